"""Tool calls of the launched server. The embedded model calls nothing by itself: what has to be called is."""

import json

import pytest
from harness.calls import image_part, text_part
from harness.embedded import IMAGE_TOKENS
from harness.launched import Server
from harness.types import Json

SCHEMA: Json = {
    "type": "object",
    "properties": {"shape": {"$ref": "#/$defs/shape"}, "count": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["shape", "count"],
    "$defs": {"shape": {"enum": ["square", "circle", "triangle"]}},
}
REPORT: Json = {"type": "function", "function": {"name": "report", "parameters": SCHEMA}}
PING: Json = {"type": "function", "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}}}


def ask(server: Server, image: str, **fields: object) -> Json:
    """The only choice of a chat about a picture."""
    body = {"messages": messages(image), "max_tokens": 120, "temperature": 0, **fields}
    reply = server.post("/v1/chat/completions", body)
    assert reply.status_code == 200, reply.text
    [choice] = reply.json()["choices"]
    found: Json = choice
    return found


def messages(image: str) -> list[Json]:
    """A question about a picture."""
    return [{"role": "user", "content": [image_part(image), text_part("What is this?")]}]


@pytest.mark.parametrize("choice", ["required", "report", {"type": "function", "function": {"name": "report"}}])
def test_a_call_that_has_to_be(server: Server, red_square_uri: str, choice: object) -> None:
    answer = ask(server, red_square_uri, tools=[REPORT], tool_choice=choice)
    assert answer["finish_reason"] == "tool_calls"
    [call] = answer["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "report")
    arguments = json.loads(call["function"]["arguments"])
    assert arguments["shape"] in SCHEMA["$defs"]["shape"]["enum"]
    assert 1 <= arguments["count"] <= 5
    assert not answer["message"].get("content")


def test_the_named_one_is_called(server: Server, red_square_uri: str) -> None:
    named = {"type": "function", "function": {"name": "ping"}}
    answer = ask(server, red_square_uri, tools=[REPORT, PING], tool_choice=named)
    assert [call["function"]["name"] for call in answer["message"]["tool_calls"]] == ["ping"]


def test_a_streamed_call_is_the_whole_one(server: Server, red_square_uri: str) -> None:
    fields = {"tools": [REPORT], "tool_choice": "required", "max_tokens": 120, "temperature": 0}
    whole = ask(server, red_square_uri, **fields)["message"]["tool_calls"][0]["function"]
    text = server.post("/v1/chat/completions", {"messages": messages(red_square_uri), "stream": True, **fields}).text
    *events, done = [line[6:] for line in text.split("\n\n") if line]
    assert done == "[DONE]"
    choices = [json.loads(event)["choices"][0] for event in events]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls") or []]
    assert {call["index"] for call in calls} == {0}
    assert calls[0]["id"]
    assert [call["function"].get("name") for call in calls if call["function"].get("name")] == ["report"]
    assert "".join(call["function"].get("arguments") or "" for call in calls) == whole["arguments"]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["tool_calls"]
    assert not any(choice["delta"].get("content") for choice in choices)


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_nobody_has_to_call(server: Server, red_square_uri: str, choice: str | None) -> None:
    answer = ask(server, red_square_uri, tools=[REPORT], tool_choice=choice)
    assert answer["finish_reason"] == "stop"
    assert answer["message"]["content"]
    assert not answer["message"].get("tool_calls")


def test_an_answer_about_a_picture_that_a_tool_brought(server: Server, red_square_uri: str) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "camera", "arguments": "{}"}}
    history = [
        {"role": "user", "content": "Look out of the window."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": [image_part(red_square_uri)]},
        {"role": "user", "content": "What is this?"},
    ]
    reply = server.post("/v1/chat/completions", {"messages": history, "max_tokens": 24, "temperature": 0})
    assert reply.status_code == 200, reply.text
    assert reply.json()["usage"]["prompt_tokens_details"]["image_tokens"] == IMAGE_TOKENS
    assert reply.json()["choices"][0]["message"]["content"]


def test_an_unknown_function_is_refused(server: Server, red_square_uri: str) -> None:
    body = {"messages": messages(red_square_uri), "tools": [REPORT], "tool_choice": "nothing"}
    reply = server.post("/v1/chat/completions", body)
    assert reply.status_code == 422
    assert reply.json()["error_type"] == "tool_error"
