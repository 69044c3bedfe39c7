"""Bodies and event streams of `/v1/chat/completions`, as OpenAI's clients read them."""

import json
from itertools import islice
from typing import Any

import pytest
from harness.calls import OpenStream, chat, image_part, text_part
from harness.embedded import ANSWER, IMAGE_TOKENS
from harness.launched import Server
from harness.pictures import data_uri, drawing, png
from harness.types import Json

JsonList = list[dict[str, Any]]


@pytest.fixture(scope="module")
def content(red_square_uri: str) -> JsonList:
    """A picture and a question."""
    return [image_part(red_square_uri), text_part("What is this?")]


def _stream(server: Server, content: JsonList, **fields: object) -> list[str]:
    body = {"messages": [{"role": "user", "content": content}], "temperature": 0, "stream": True, **fields}
    reply = server.post("/v1/chat/completions", body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "text/event-stream"
    text = reply.content.decode()
    assert text.endswith("\n\n")
    return text.removesuffix("\n\n").split("\n\n")


def _chunks(server: Server, content: JsonList, **fields: object) -> list[Json]:
    *events, done = _stream(server, content, **fields)
    assert done == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_whole(server: Server, content: JsonList) -> None:
    body = chat(server, content, max_tokens=24, model="tgi")
    assert (body["object"], body["model"]) == ("chat.completion", "tgi")
    assert body["id"]
    assert body["created"] > 1_600_000_000
    (choice,) = body["choices"]
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert choice["message"] == {"role": "assistant", "content": ANSWER}


def test_usage_is_exact(server: Server, content: JsonList) -> None:
    usage = chat(server, content, max_tokens=3)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (48, 3, 51)
    assert usage["prompt_tokens_details"]["image_tokens"] == IMAGE_TOKENS


def test_finish_reason_length(server: Server, content: JsonList) -> None:
    assert chat(server, content, max_tokens=2)["choices"][0]["finish_reason"] == "length"


def test_max_completion_tokens(server: Server, content: JsonList) -> None:
    assert chat(server, content, max_completion_tokens=2)["usage"]["completion_tokens"] == 2


def test_chunks(server: Server, content: JsonList) -> None:
    chunks = _chunks(server, content, max_tokens=24)
    assert all(chunk["object"] == "chat.completion.chunk" and len(chunk["choices"]) == 1 for chunk in chunks)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == ANSWER


def test_one_chunk_has_the_finish_reason(server: Server, content: JsonList) -> None:
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in _chunks(server, content, max_tokens=24)]
    assert reasons[-1] == "stop"
    assert set(reasons[:-1]) == {None}


def test_no_usage_in_a_stream_unless_asked(server: Server, content: JsonList) -> None:
    assert all(not chunk.get("usage") and chunk["choices"] for chunk in _chunks(server, content, max_tokens=3))


def test_usage_in_a_stream(server: Server, content: JsonList) -> None:
    *chunks, last = _chunks(server, content, max_tokens=3, stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3
    assert all(not chunk.get("usage") for chunk in chunks)


@pytest.mark.parametrize("stop", [" picture", [" picture"], ["of no use", "a picture of"]])
def test_stop_is_cut(server: Server, content: JsonList, stop: str | list[str]) -> None:
    body = chat(server, content, max_tokens=24, stop=stop)
    choice = body["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert "picture" not in choice["message"]["content"]
    assert choice["message"]["content"].startswith("This is")


def test_nothing_of_a_stop_string_is_streamed(server: Server, content: JsonList) -> None:
    chunks = _chunks(server, content, max_tokens=24, stop=["a picture of"])
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "This is "


def test_logprobs(server: Server, content: JsonList) -> None:
    (choice,) = chat(server, content, max_tokens=4, logprobs=True, top_logprobs=3)["choices"]
    entries = choice["logprobs"]["content"]
    assert len(entries) == 4
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    assert all(entry["logprob"] <= 0 and len(entry["top_logprobs"]) == 3 for entry in entries)
    assert all(entry["top_logprobs"][0]["token"] == entry["token"] for entry in entries)


def test_n_choices(server: Server, content: JsonList) -> None:
    body = chat(server, content, max_tokens=8, n=2, temperature=1.5, seed=3)
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert body["usage"]["prompt_tokens"] == 48


def test_openai_defaults_are_accepted(server: Server, content: JsonList) -> None:
    defaults: Json = {
        "top_p": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "n": 1,
        "stop": None,
        "stream_options": None,
        "logit_bias": {},
        "user": "me",
        "parallel_tool_calls": True,
        "tool_choice": None,
        "response_format": {"type": "text"},
    }
    plain, asked = (chat(server, content, max_tokens=24, **fields)["choices"] for fields in ({}, defaults))
    assert plain == asked


def test_seeded_chat_is_reproducible(server: Server, content: JsonList) -> None:
    bodies = [chat(server, content, max_tokens=16, temperature=2, seed=seed) for seed in (5, 5, 6)]
    texts = [body["choices"][0]["message"] for body in bodies]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_a_prompt_seen_before_is_counted_as_cached(server: Server, content: JsonList) -> None:
    messages = [*content, text_part(" again" * 40)]
    chat(server, messages, max_tokens=1)
    usage = chat(server, messages, max_tokens=1)["usage"]
    assert 0 < usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]


def test_image_url_may_be_a_bare_string(server: Server, red_square_uri: str) -> None:
    content = [{"type": "image_url", "image_url": red_square_uri}, text_part("What is this?")]
    assert "red square" in chat(server, content, max_tokens=24)["choices"][0]["message"]["content"]


def test_assistant_message_at_the_end_is_continued(server: Server, content: JsonList) -> None:
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "This is a picture of"}]
    reply = server.post("/v1/chat/completions", {"messages": messages, "temperature": 0, "max_tokens": 16})
    assert reply.json()["choices"][0]["message"]["content"].strip() == "a red square."


def test_the_default_length_is_more_than_a_hundred_tokens(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "temperature": 100, "seed": 11, "stream": True}
    with OpenStream.open(server, "/v1/chat/completions", body) as stream:
        assert len(list(islice(stream.events(), 101))) == 101


@pytest.mark.parametrize("shape", ["circle", "square", "triangle"])
def test_the_model_names_drawings(server: Server, shape: str) -> None:
    picture = data_uri(png(drawing(shape, "red", "white")))
    body = chat(server, [image_part(picture), text_part("What is this?")], max_tokens=24)
    assert shape in body["choices"][0]["message"]["content"]


def test_the_model_says_that_it_sees_no_picture(server: Server) -> None:
    text = chat(server, "What is in this image?", max_tokens=24)["choices"][0]["message"]["content"]
    assert "do not see an image" in text
