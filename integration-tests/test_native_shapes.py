"""Bodies and event streams of the TGI routes, key by key and byte by byte."""

import json
import re

import pytest
from harness.calls import OpenStream, answer, endless, generate, streamed_answer, user_turn
from harness.launched import Server
from harness.pictures import markdown
from harness.types import Json

ASKED = {"max_new_tokens": 6, "details": True}
OPTIONAL = [
    "best_of",
    "temperature",
    "repetition_penalty",
    "frequency_penalty",
    "top_k",
    "top_p",
    "typical_p",
    "do_sample",
    "return_full_text",
    "stop",
    "truncate",
    "watermark",
    "decoder_input_details",
    "seed",
    "top_n_tokens",
    "grammar",
    "adapter_id",
]


@pytest.fixture(scope="module")
def inputs(red_square_uri: str) -> str:
    """A prompt with a picture, whose answer ends by itself within 16 tokens."""
    return markdown(red_square_uri) + "What is this a picture of?\n\n"


def _stream(server: Server, inputs: str, **parameters: object) -> bytes:
    reply = server.post("/generate_stream", {"inputs": inputs, "parameters": parameters})
    assert reply.status_code == 200, reply.text
    return reply.content


def _events(server: Server, inputs: str, **parameters: object) -> list[Json]:
    return [json.loads(event[5:]) for event in _stream(server, inputs, **parameters).decode().split("\n\n") if event]


def test_framing_is_one_data_line_and_a_blank_line(server: Server, inputs: str) -> None:
    data = _stream(server, inputs, max_new_tokens=6)
    assert re.fullmatch(rb"(data: ?\{[^\n]*\}\n\n){6}", data), data
    assert b"[DONE]" not in data


def test_keys_of_events(server: Server, inputs: str) -> None:
    for event in _events(server, inputs, max_new_tokens=3):
        assert set(event) == {"index", "token", "generated_text", "details"}
        assert set(event["token"]) == {"id", "text", "logprob", "special"}
        assert event["token"]["logprob"] <= 0


def test_index_counts_from_one(server: Server, inputs: str) -> None:
    assert [event["index"] for event in _events(server, inputs, max_new_tokens=6)] == [1, 2, 3, 4, 5, 6]


def test_only_the_last_event_has_the_text(server: Server, inputs: str) -> None:
    *events, last = _events(server, inputs, max_new_tokens=6)
    assert [event["generated_text"] for event in events] == [None] * 5
    assert last["generated_text"] == "".join(event["token"]["text"] for event in [*events, last])


def test_details_only_when_asked(server: Server, inputs: str) -> None:
    assert all(event["details"] is None for event in _events(server, inputs, max_new_tokens=3))


def test_details_of_the_last_event(server: Server, inputs: str) -> None:
    *events, last = _events(server, inputs, **ASKED)
    expected = {"finish_reason": "length", "generated_tokens": 6, "seed": None, "input_length": 53}
    assert last["details"] == expected
    assert all(event["details"] is None for event in events)


def test_end_of_sequence_is_streamed_as_a_special_token(server: Server, inputs: str) -> None:
    *_, last = _events(server, inputs, max_new_tokens=24, details=True)
    assert last["details"]["finish_reason"] == "eos_token"
    assert (last["token"]["special"], last["token"]["text"]) == (True, "<|im_end|>")
    assert "<|im_end|>" not in last["generated_text"]


def test_stream_equals_whole(server: Server, inputs: str) -> None:
    assert streamed_answer(server, inputs, max_new_tokens=24) == answer(server, inputs, max_new_tokens=24)


def test_root_returns_a_list(server: Server, inputs: str) -> None:
    (body,) = server.post("/", {"inputs": inputs, "parameters": ASKED}).json()
    assert body == server.post("/generate", {"inputs": inputs, "parameters": ASKED}).json()


def test_root_streams(server: Server, inputs: str) -> None:
    reply = server.post("/", {"inputs": inputs, "parameters": ASKED, "stream": True})
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.content == _stream(server, inputs, **ASKED)


def test_root_does_not_echo_a_picture_prompt(server: Server, inputs: str) -> None:
    (body,) = server.post("/", {"inputs": inputs, "parameters": {"max_new_tokens": 3}}).json()
    assert "data:image" not in body["generated_text"]


def test_whole_without_details(server: Server, inputs: str) -> None:
    body = server.post("/generate", {"inputs": inputs, "parameters": {"max_new_tokens": 3}}).json()
    assert set(body) == {"generated_text"}


def test_details_of_the_whole(server: Server, inputs: str) -> None:
    details = generate(server, inputs, max_new_tokens=3)["details"]
    assert set(details) == {"finish_reason", "generated_tokens", "seed", "prefill", "tokens"}
    assert (details["finish_reason"], details["generated_tokens"], details["seed"]) == ("length", 3, None)
    assert details["prefill"] == []
    assert all(set(token) == {"id", "text", "logprob", "special"} for token in details["tokens"])


def test_return_full_text(server: Server, inputs: str) -> None:
    body = generate(server, inputs, max_new_tokens=3, return_full_text=True)
    assert body["generated_text"].startswith(inputs)


@pytest.mark.parametrize("count", [1, 5])
def test_top_tokens(server: Server, inputs: str, count: int) -> None:
    details = generate(server, inputs, max_new_tokens=4, top_n_tokens=count)["details"]
    assert [len(top) for top in details["top_tokens"]] == [count] * 4
    for top, token in zip(details["top_tokens"], details["tokens"], strict=True):
        assert top[0] == token, "greedy takes the likeliest"
        assert [entry["logprob"] for entry in top] == sorted((entry["logprob"] for entry in top), reverse=True)


def test_top_tokens_in_events(server: Server, inputs: str) -> None:
    for event in _events(server, inputs, max_new_tokens=3, top_n_tokens=2):
        assert len(event["top_tokens"]) == 2
        assert event["top_tokens"][0] == event["token"]


def test_stop_string_stays_in_the_text(server: Server, inputs: str) -> None:
    body = generate(server, inputs, max_new_tokens=24, stop=["picture"])
    assert body["generated_text"].endswith("picture")
    assert body["details"]["finish_reason"] == "stop_sequence"


def test_stop_string_ends_a_stream(server: Server, inputs: str) -> None:
    *events, last = _events(server, inputs, max_new_tokens=24, stop=["picture"], details=True)
    assert last["generated_text"].endswith("picture")
    assert last["details"]["finish_reason"] == "stop_sequence"
    assert last["details"]["generated_tokens"] == len(events) + 1


def test_stop_string_over_several_tokens(server: Server, inputs: str) -> None:
    body = generate(server, inputs, max_new_tokens=24, stop=["is a picture"])
    assert body["generated_text"] == "This is a picture"
    assert body["details"]["finish_reason"] == "stop_sequence"


def test_null_is_absent_for_every_parameter(server: Server, inputs: str) -> None:
    nulls: dict[str, object] = dict.fromkeys(OPTIONAL)
    assert generate(server, inputs, max_new_tokens=4, **nulls) == generate(server, inputs, max_new_tokens=4)


def test_neutral_values_are_accepted(server: Server, inputs: str) -> None:
    neutral = {"top_p": 1.0, "typical_p": 1.0, "top_k": 0, "temperature": 1.0, "repetition_penalty": 1.0, "best_of": 1}
    assert generate(server, inputs, max_new_tokens=4, **neutral) == generate(server, inputs, max_new_tokens=4)


def test_unknown_fields_are_ignored(server: Server, inputs: str) -> None:
    body = {"inputs": inputs, "options": {}, "parameters": {**ASKED, "max_time": 1, "num_return_sequences": 1}}
    assert server.post("/generate", body).json() == generate(server, inputs, max_new_tokens=6)


def test_absent_parameters_sample_and_present_ones_do_not(server: Server) -> None:
    prompt = "What can you do?"
    assert generate(server, prompt, max_new_tokens=4)["details"]["seed"] is None
    # A turn that begins with nonsense: the model is so unsure that its best first token has a chance of one in five.
    unsure = {"inputs": "zq <|im_start|>"}
    sampled = {server.post("/generate", unsure).json()["generated_text"] for _ in range(8)}
    assert len(sampled) > 1


def test_seeds_are_reproducible(server: Server, inputs: str) -> None:
    parameters = {"max_new_tokens": 16, "temperature": 3.0, "seed": 4711}
    first, second = (generate(server, inputs, **parameters) for _ in range(2))
    assert first == second
    assert first["details"]["seed"] == 4711
    assert generate(server, inputs, **{**parameters, "seed": 4712})["generated_text"] != first["generated_text"]


def test_an_invented_seed_can_be_sent_back(server: Server, inputs: str) -> None:
    parameters = {"max_new_tokens": 16, "temperature": 3.0}
    first = generate(server, inputs, **parameters)
    seed = first["details"]["seed"]
    assert 0 <= seed < 2**53
    assert generate(server, inputs, **parameters, seed=seed) == first


def test_best_of_returns_the_likeliest(server: Server, inputs: str) -> None:
    details = generate(server, inputs, max_new_tokens=8, best_of=2, do_sample=True, temperature=2.0)["details"]
    (loser,) = details["best_of_sequences"]

    def mean(tokens: list[Json]) -> float:
        return float(sum(token["logprob"] for token in tokens) / len(tokens))

    assert mean(details["tokens"]) >= mean(loser["tokens"])
    assert {"generated_text", "finish_reason", "generated_tokens", "seed", "prefill", "tokens"} <= set(loser)


def test_truncate_keeps_the_end(server: Server) -> None:
    prompt = user_turn("one two three What can you do?")
    end = prompt[prompt.index("What") :]
    kept = len(server.post("/tokenize", {"inputs": end}).json())
    cut = answer(server, prompt, max_new_tokens=8, truncate=kept)
    assert cut == answer(server, end, max_new_tokens=8)
    assert cut != answer(server, prompt, max_new_tokens=8)


def test_repetition_penalty_changes_the_answer(server: Server, inputs: str) -> None:
    plain = answer(server, inputs, max_new_tokens=16)
    assert answer(server, inputs, max_new_tokens=16, repetition_penalty=3.0) != plain


def test_alternative_text_and_parentheses_in_markdown(server: Server, red_square_uri: str, inputs: str) -> None:
    described = inputs.replace("![](", "![a (red) square](")
    assert answer(server, described, max_new_tokens=16) == answer(server, inputs, max_new_tokens=16)


def test_an_answer_may_fill_the_context(server: Server) -> None:
    limit = server.get("/info").json()["max_total_tokens"]
    prompt = 8 + len(server.post("/tokenize", {"inputs": "x"}).json())
    with OpenStream.generate(server, "x", **endless(seed=2, max_new_tokens=limit - prompt)) as stream:
        assert len(stream.take(1030)) == 1030, "TGI begins anew after 1024"
