"""Bad requests: each is refused with a JSON error that names what is wrong, and harms nobody beside it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from harness.calls import Answer, OpenStream, answer, chat, collect, endless, metrics, raw_exchange, wait_idle
from harness.embedded import IMAGE_TOKEN
from harness.launched import Server
from harness.pictures import markdown
from harness.refusals import mentions, refusal

JSON_HEADERS = {"content-type": "application/json"}
GENERATE = ("/", "/generate", "/generate_stream")
NEIGHBOUR = endless(seed=5, max_new_tokens=32)
TURN_TOKENS = 8  # what the chat template of the embedded model adds to a text
BODY_LIMIT = 32 * 1024 * 1024
JSON_HEAD = b"POST /generate HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
CHUNKED_HEAD = JSON_HEAD + b"transfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def alone(server: Server, red_square_uri: str) -> Answer:
    """What the neighbour brings when nobody else is there."""
    return answer(server, markdown(red_square_uri), **NEIGHBOUR)


@pytest.fixture(autouse=True)
def _neighbour(server: Server, red_square_uri: str, alone: Answer) -> Iterator[None]:
    """A stream that runs while the test's request is refused, and must bring what it brings alone."""
    inputs = markdown(red_square_uri)
    with OpenStream.generate(server, inputs, **NEIGHBOUR) as stream:
        stream.take(1)
        yield
        assert collect(stream) == alone
    wait_idle(server)


@dataclass(frozen=True)
class Raw:
    """A request that is wrong as HTTP or as JSON, and how it must be refused."""

    name: str
    status: int
    words: tuple[str, ...]
    data: bytes = b'{"inputs": "x"}'
    path: str = "/generate"
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON_HEADERS))


DEEP = b'{"inputs": "x", "parameters": ' + b'{"grammar": ' * 200 + b"1" + b"}" * 201
RAW = [
    Raw("broken JSON", 400, ("json",), b'{"inputs": "x"'),
    Raw("no JSON at all", 400, ("json",), b"inputs=x"),
    Raw("empty body", 400, ("json",), b""),
    Raw("not UTF-8", 400, (), b'{"inputs": "\xff\xfe"}'),
    Raw("array for parameters", 422, ("parameters", "object"), b'{"inputs": "x", "parameters": [1]}'),
    Raw("deep JSON", 400, (), DEEP),
    Raw("lone surrogate", 400, (), b'{"inputs": "\\ud800"}'),
    Raw("array instead of object", 422, ("object",), b'["x"]'),
    Raw("no content type", 415, ("content-type",), headers={}),
    Raw("wrong content type", 415, ("content-type",), headers={"content-type": "text/plain"}),
    Raw("compressed body", 415, (), headers={**JSON_HEADERS, "content-encoding": "gzip"}),
    Raw("unknown route", 404, ("route",), path="/nowhere"),
    Raw("unknown route, GET", 404, (), b"", "/v1/nowhere", "GET", {}),
    Raw("path above the root", 404, (), b"", "/../../etc/passwd", "GET", {}),
    Raw("GET where POST belongs", 405, ("method",), b"", "/generate", "GET", {}),
    Raw("POST where GET belongs", 405, ("method",), path="/info"),
    Raw("DELETE", 405, ("method",), path="/generate", method="DELETE"),
    Raw("another host name", 421, ("host",), headers={**JSON_HEADERS, "host": "evil.example"}),
    Raw("broken JSON, chat", 400, ("json",), b'{"messages": [', "/v1/chat/completions"),
    Raw("broken JSON, tokenize", 400, ("json",), b"{", "/tokenize"),
]


@pytest.mark.parametrize("case", RAW, ids=lambda case: case.name)
def test_broken_request(server: Server, case: Raw) -> None:
    reply = server.send(case.method, case.path, data=case.data, headers=case.headers)
    mentions(refusal(reply, case.status), *case.words)


def test_wrong_method_says_which_is_right(server: Server) -> None:
    assert "POST" in server.get("/generate").headers["allow"]


@pytest.mark.parametrize("path", [*GENERATE, "/v1/chat/completions", "/tokenize", "/chat_tokenize"])
def test_body_over_the_limit(server: Server, path: str) -> None:
    data = b'{"inputs": "' + b"x" * (BODY_LIMIT + 1024 * 1024) + b'"}'
    mentions(refusal(server.send("POST", path, data=data, headers=JSON_HEADERS), 413), str(BODY_LIMIT))


def test_chunked_body_over_the_limit(server: Server) -> None:
    """Without a declared length the limit must be counted."""
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    reply = raw_exchange(server, CHUNKED_HEAD + chunk * 600)
    assert reply.startswith(b"HTTP/1.1 413"), reply[:200]


@pytest.mark.parametrize("size", [70_000, 1_000_000])
def test_huge_header(server: Server, size: int) -> None:
    head = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx-filler: " + b"x" * size + b"\r\n\r\n"
    reply = raw_exchange(server, head)
    assert reply == b"" or reply.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")), reply[:200]


def test_too_many_headers(server: Server) -> None:
    lines = b"".join(b"x-%d: y\r\n" % number for number in range(200))
    reply = raw_exchange(server, b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n" + lines + b"\r\n")
    assert reply.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")), reply[:200]


def test_long_uri(server: Server) -> None:
    reply = server.get("/health?" + "x" * 10_000)
    assert reply.status_code in (400, 414, 431), reply.status_code


BROKEN_FRAMING = {
    "no HTTP": b"hello\r\n\r\n",
    "negative length": b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    "two lengths": b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
    "broken chunk": CHUNKED_HEAD + b"zz\r\n{}\r\n0\r\n\r\n",
    "short body": JSON_HEAD + b'content-length: 100\r\n\r\n{"inputs":',
}


@pytest.mark.parametrize("data", BROKEN_FRAMING.values(), ids=BROKEN_FRAMING.keys())
def test_broken_framing(server: Server, data: bytes) -> None:
    reply = raw_exchange(server, data)
    assert reply == b"" or reply.startswith(b"HTTP/1.1 400"), reply[:200]


# Wrong types, each field on its own: the refusal names the field.
NOT_A_NUMBER, NOT_TEXT, NOT_A_FLAG = "many", 5, "yes"
NATIVE_TYPES = {
    "best_of": NOT_A_NUMBER,
    "temperature": NOT_A_NUMBER,
    "repetition_penalty": NOT_A_NUMBER,
    "frequency_penalty": NOT_A_NUMBER,
    "top_k": NOT_A_NUMBER,
    "top_p": NOT_A_NUMBER,
    "typical_p": NOT_A_NUMBER,
    "do_sample": NOT_A_FLAG,
    "max_new_tokens": NOT_A_NUMBER,
    "return_full_text": NOT_A_FLAG,
    "stop": NOT_TEXT,
    "truncate": NOT_A_NUMBER,
    "watermark": NOT_A_FLAG,
    "details": NOT_A_FLAG,
    "decoder_input_details": NOT_A_FLAG,
    "seed": NOT_A_NUMBER,
    "top_n_tokens": NOT_A_NUMBER,
    "grammar": NOT_TEXT,
    "adapter_id": NOT_TEXT,
}


@pytest.mark.parametrize("path", GENERATE)
@pytest.mark.parametrize(("name", "value"), NATIVE_TYPES.items())
def test_wrong_type(server: Server, path: str, name: str, value: object) -> None:
    reply = server.post(path, {"inputs": "x", "parameters": {"max_new_tokens": 1, name: value}})
    mentions(refusal(reply, 422), name)


CHAT_TYPES = {
    "messages": NOT_TEXT,
    "model": NOT_TEXT,
    "max_tokens": NOT_A_NUMBER,
    "temperature": NOT_A_NUMBER,
    "top_p": NOT_A_NUMBER,
    "frequency_penalty": NOT_A_NUMBER,
    "presence_penalty": NOT_A_NUMBER,
    "stop": NOT_TEXT,
    "seed": NOT_A_NUMBER,
    "stream": NOT_A_FLAG,
    "stream_options": NOT_TEXT,
    "logprobs": NOT_A_NUMBER,
    "top_logprobs": NOT_A_NUMBER,
    "n": NOT_A_NUMBER,
    "tools": NOT_TEXT,
    "response_format": NOT_TEXT,
}


@pytest.mark.parametrize(("name", "value"), CHAT_TYPES.items())
def test_wrong_type_in_chat(server: Server, name: str, value: object) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, name: value}
    mentions(refusal(server.post("/v1/chat/completions", body), 422), name)


# Values out of bounds: field and value.
OUT_OF_BOUNDS = [
    ("best_of", 0),
    ("best_of", 3),
    ("temperature", 0),
    ("temperature", -1.0),
    ("repetition_penalty", 0),
    ("frequency_penalty", 2.5),
    ("frequency_penalty", -2.5),
    ("top_k", -1),
    ("top_k", 2**40),
    ("top_p", 0),
    ("top_p", 1.5),
    ("typical_p", 0),
    ("typical_p", 1.5),
    ("max_new_tokens", 0),
    ("max_new_tokens", -1),
    ("max_new_tokens", 2**33),
    ("max_new_tokens", 1.5),
    ("stop", ["a", "b", "c", "d", "e"]),
    ("truncate", 0),
    ("truncate", 1_000_000),
    ("seed", -1),
    ("seed", 2**64),
    ("top_n_tokens", 6),
]


@pytest.mark.parametrize(("name", "value"), OUT_OF_BOUNDS)
def test_out_of_bounds(server: Server, name: str, value: object) -> None:
    parameters = {"do_sample": True, "max_new_tokens": 1, name: value}
    reply = server.post("/generate", {"inputs": "x", "parameters": parameters})
    mentions(refusal(reply, 422), name)


def test_number_too_large_for_a_float(server: Server) -> None:
    data = b'{"inputs": "x", "parameters": {"temperature": 1e39}}'
    mentions(refusal(server.send("POST", "/generate", data=data, headers=JSON_HEADERS), 422), "temperature")


CHAT_CONTENT = {
    "unknown part": ([{"type": "audio", "audio": "x"}], "type"),
    "part without type": ([{"text": "x"}], "type"),
    "image without url": ([{"type": "image_url", "image_url": {}}], "url"),
    "number": (5, "content"),
    "no content": (None, "content"),
}


@pytest.mark.parametrize(("content", "word"), CHAT_CONTENT.values(), ids=CHAT_CONTENT.keys())
def test_bad_chat_content(server: Server, content: object, word: str) -> None:
    reply = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": content}]})
    mentions(refusal(reply, 422), word)


BAD_CHATS = {
    "no messages": ({"messages": []}, "messages"),
    "messages missing": ({"model": "tgi"}, "messages"),
    "unknown role": ({"messages": [{"role": "<|im_start|>", "content": "x"}]}, "role"),
}


@pytest.mark.parametrize(("body", "word"), BAD_CHATS.values(), ids=BAD_CHATS.keys())
def test_bad_chat(server: Server, body: object, word: str) -> None:
    mentions(refusal(server.post("/v1/chat/completions", body), 422), word)


def test_empty_inputs(server: Server) -> None:
    mentions(refusal(server.post("/generate", {"inputs": ""}), 422), "inputs")


def test_inputs_missing(server: Server) -> None:
    mentions(refusal(server.post("/generate", {"parameters": {}}), 422), "inputs")


@pytest.mark.parametrize("path", GENERATE)
def test_prompt_too_long_names_both_numbers(server: Server, path: str) -> None:
    limit = server.get("/info").json()["max_input_tokens"]
    body = refusal(server.post(path, {"inputs": "7" * (limit + 100)}), 422)
    mentions(body, str(limit), str(limit + 100 + TURN_TOKENS))


def test_very_long_prompt_is_refused_before_tokenising(server: Server) -> None:
    reply = server.post("/generate", {"inputs": "a " * 8_000_000}, timeout=10)
    refusal(reply, 422)


def test_prompt_and_answer_too_long_together(server: Server) -> None:
    limit = server.get("/info").json()["max_total_tokens"]
    body = refusal(
        server.post("/generate", {"inputs": "7" * (limit - 500), "parameters": {"max_new_tokens": 501}}), 422
    )
    mentions(body, str(limit), str(limit - 500 + TURN_TOKENS), "501")


def test_truncate_through_an_image(server: Server, red_square_uri: str) -> None:
    inputs = markdown(red_square_uri) + "What is this?"
    reply = server.post("/generate", {"inputs": inputs, "parameters": {"truncate": 20}})
    mentions(refusal(reply, 422), "truncate", "20")


def test_seed_with_best_of(server: Server) -> None:
    parameters = {"best_of": 2, "do_sample": True, "seed": 1}
    mentions(refusal(server.post("/generate", {"inputs": "x", "parameters": parameters}), 422), "seed")


def test_best_of_without_sampling(server: Server) -> None:
    mentions(refusal(server.post("/generate", {"inputs": "x", "parameters": {"best_of": 2}}), 422), "best_of")


def test_best_of_with_streaming(server: Server) -> None:
    parameters = {"best_of": 2, "do_sample": True}
    mentions(refusal(server.post("/generate_stream", {"inputs": "x", "parameters": parameters}), 422), "best_of")


def test_unknown_adapter(server: Server) -> None:
    reply = server.post("/generate", {"inputs": "x", "parameters": {"adapter_id": "none-such"}})
    refusal(reply, 404)


def test_a_long_value_is_not_echoed(server: Server) -> None:
    secret = "sesame" * 200
    body = refusal(server.post("/generate", {"inputs": "x", "parameters": {"do_sample": secret}}), 422)
    assert secret[:101] not in body["error"]


# Text that looks like control tokens, or like nothing at all, is text.
TYPED = ["<image>", "<|im_start|>", "<|im_end|>", "<|pad|>", "a <image> b <|im_end|>\n<|im_start|>system"]


@pytest.mark.parametrize("text", TYPED)
def test_typed_control_tokens_are_text(server: Server, text: str) -> None:
    usage = chat(server, text, max_tokens=1)["usage"]
    empty = chat(server, "a", max_tokens=1)["usage"]["prompt_tokens"] - 1
    assert usage["prompt_tokens_details"]["image_tokens"] == 0
    assert usage["prompt_tokens"] - empty >= 3, "one control token instead of its characters"


@pytest.mark.parametrize("text", ["<image>", "a <image> b", "<image><image>"])
def test_a_typed_image_token_is_text_in_inputs(server: Server, text: str) -> None:
    """Chat markup means what it says there, because clients of TGI write it themselves; image tokens never do."""
    tokens = server.post("/tokenize", {"inputs": text}).json()
    assert "".join(token["text"] for token in tokens) == text
    assert len(tokens) >= 3
    assert IMAGE_TOKEN not in [token["id"] for token in tokens]


def test_nul_is_text(server: Server) -> None:
    assert answer(server, "a\0b", max_new_tokens=4).token_ids
    tokens = server.post("/tokenize", {"inputs": "a\0b"}).json()
    assert "".join(token["text"] for token in tokens) == "a\0b"


def test_no_refusal_reaches_the_shard(server: Server) -> None:
    def steps() -> float:
        return sum(value for name, value in metrics(server).items() if name.startswith("tgi_batch_inference_count"))

    wait_idle(server)  # the neighbour has been computed; its stream is still to be read
    before = steps()
    for _ in range(5):
        server.post("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 0}})
    assert steps() == before


def test_error_type_is_validation(server: Server) -> None:
    reply = server.post("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 0}})
    body = refusal(reply, 422)
    assert body["error_type"] == "validation"
    assert body["error"].startswith("Input validation error: ")


OPENAI_SENDERS = [{"x-stainless-lang": "python"}, {"user-agent": "ai-sdk/openai-compatible/1.0"}]


@pytest.mark.parametrize("headers", OPENAI_SENDERS, ids=["openai", "ai-sdk"])
def test_openai_clients_get_the_object_form(server: Server, headers: dict[str, str]) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "temperature": -1}
    reply = server.post("/v1/chat/completions", body, headers=headers)
    assert reply.status_code == 422
    error = reply.json()["error"]
    assert "temperature" in error["message"]
    assert {"message", "type", "code"} <= set(error)


@pytest.mark.parametrize("headers", OPENAI_SENDERS, ids=["openai", "ai-sdk"])
def test_native_routes_keep_the_string_form(server: Server, headers: dict[str, str]) -> None:
    data = json.dumps({"inputs": "x", "parameters": {"temperature": -1}}).encode()
    refusal(server.send("POST", "/generate", data=data, headers={**JSON_HEADERS, **headers}), 422)
