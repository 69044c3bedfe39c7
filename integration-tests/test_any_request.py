"""Properties: a valid request is never the server's fault, and a mutated one is answered or refused in the form of an
error. The examples are the same in every run; `HYPOTHESIS_EXAMPLES` asks for more of them."""

import json
import os
from typing import Any

import pytest
from harness.calls import MAX_ERROR_BYTES
from harness.launched import Server
from harness.pictures import data_uri, drawing, jpeg, markdown, photo, png
from harness.types import Json, JsonValue
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "100"))
FIXED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PICTURES = [
    data_uri(png(drawing("circle", "red", "white", (64, 64)))),
    data_uri(jpeg(photo(1, (80, 50))), "image/jpeg"),
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(lambda text: "![" not in text)


def _optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries({}, optional={name: st.none() | field for name, field in fields.items()})


PARAMETERS = st.builds(
    lambda chosen, length: {**chosen, "max_new_tokens": length},
    _optional(
        temperature=st.floats(0.01, 100),
        repetition_penalty=st.floats(0.1, 10),
        frequency_penalty=st.floats(-2, 2),
        top_k=st.integers(0, 3000),
        top_p=st.floats(0.01, 1),
        typical_p=st.floats(0.01, 1),
        do_sample=st.booleans(),
        return_full_text=st.booleans(),
        stop=st.lists(TEXT, max_size=4),
        truncate=st.integers(500, 2000),
        details=st.booleans(),
        seed=st.integers(0, 2**64 - 1),
        top_n_tokens=st.integers(0, 5),
    ),
    st.integers(1, 6),
)
INPUTS = st.lists(TEXT | st.sampled_from(PICTURES).map(markdown), min_size=1, max_size=4).map("".join)
GENERATE = st.fixed_dictionaries({"inputs": INPUTS, "parameters": PARAMETERS})
CONTENT = st.lists(
    TEXT.map(lambda text: {"type": "text", "text": text})
    | st.sampled_from(PICTURES).map(lambda url: {"type": "image_url", "image_url": {"url": url}}),
    min_size=1,
    max_size=3,
)
MESSAGE = st.builds(lambda content: {"role": "user", "content": content}, TEXT | CONTENT)
CHAT = st.builds(
    lambda messages, chosen, length: {"messages": messages, **chosen, "max_tokens": length},
    st.lists(MESSAGE, min_size=1, max_size=3),
    _optional(
        model=TEXT,
        temperature=st.floats(0, 2),
        top_p=st.floats(0.01, 1),
        frequency_penalty=st.floats(-2, 2),
        presence_penalty=st.floats(-2, 2),
        seed=st.integers(0, 2**63 - 1),
        stop=TEXT | st.lists(TEXT, max_size=4),
        stream=st.booleans(),
        logprobs=st.booleans(),
        user=TEXT,
    ),
    st.integers(1, 6),
)
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
ANY_JSON = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(body=GENERATE, path=st.sampled_from(["/", "/generate", "/generate_stream"]))
@FIXED
def test_valid_native_requests_are_served(server: Server, body: Json, path: str) -> None:
    reply = server.post(path, body)
    assert reply.status_code == 200, reply.text


@given(body=CHAT)
@FIXED
def test_valid_chats_are_served(server: Server, body: Json) -> None:
    reply = server.post("/v1/chat/completions", body)
    assert reply.status_code == 200, reply.text


def _places(value: JsonValue, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in _places(child, (*path, key)))]


def _replaced(value: JsonValue, path: tuple[Any, ...], new: JsonValue) -> JsonValue:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(value[path[0]], path[1:], new)
    return copy


def _judge(status: int, content: bytes) -> None:
    assert 200 <= status < 500, f"{status}: {content[:500]!r}"
    if status >= 400:
        body = json.loads(content)
        assert set(body) == {"error", "error_type"}
        assert len(content) <= MAX_ERROR_BYTES


def _bounded(body: JsonValue) -> JsonValue:
    """Keeps an accidental novel short: what is tested is the parser, not patience."""
    if isinstance(body, dict) and "messages" in body:
        return {"max_tokens": 4, **body}
    return body


@pytest.mark.parametrize(("path", "valid"), [("/generate", GENERATE), ("/v1/chat/completions", CHAT)])
def test_mutated_requests_are_answered_or_refused(server: Server, path: str, valid: st.SearchStrategy[Json]) -> None:
    @given(body=valid, data=st.data(), new=ANY_JSON)
    @FIXED
    def mutated(body: Json, data: st.DataObject, new: JsonValue) -> None:
        place = data.draw(st.sampled_from(_places(body)))
        reply = server.post(path, _bounded(_replaced(body, place, new)))
        _judge(reply.status_code, reply.content)

    mutated()


@given(body=GENERATE, data=st.data())
@FIXED
def test_damaged_bodies_are_answered_or_refused(server: Server, body: Json, data: st.DataObject) -> None:
    sent = bytearray(json.dumps(body).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    reply = server.send("POST", "/generate", data=bytes(sent), headers={"content-type": "application/json"})
    _judge(reply.status_code, reply.content)
