"""`/v1/responses` of the launched server: what it says about a picture, in JSON, in calls, over turns and in events."""

import json
from collections.abc import Iterator

import pytest
from harness.calls import OpenStream, wait_idle
from harness.embedded import IMAGE_TOKENS
from harness.launched import Server
from harness.types import Json, JsonValue

PATH = "/v1/responses"
QUESTION = "What is this?"
SCHEMA: Json = {
    "type": "object",
    "properties": {
        "shape": {"enum": ["square", "circle", "triangle"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["shape", "count"],
}
REPORT: Json = {"type": "function", "name": "report", "parameters": SCHEMA}
PING: Json = {"type": "function", "name": "ping", "parameters": {"type": "object", "properties": {}}}


def question(image: str) -> list[Json]:
    """A question about a picture."""
    parts = [{"type": "input_image", "image_url": image}, {"type": "input_text", "text": QUESTION}]
    return [{"role": "user", "content": parts}]


def respond(server: Server, asked: JsonValue, **fields: object) -> Json:
    """The body of a successful response."""
    reply = server.post(PATH, {"input": asked, "max_output_tokens": 120, "temperature": 0, **fields})
    assert reply.status_code == 200, reply.text
    body: Json = reply.json()
    return body


def text(response: Json) -> str:
    """The text of the only item."""
    [item] = response["output"]
    [part] = item["content"]
    found: str = part["text"]
    return found


def events(server: Server, asked: JsonValue, **fields: object) -> Iterator[Json]:
    """The events of a streamed response."""
    body = {"input": asked, "max_output_tokens": 120, "temperature": 0, "stream": True, **fields}
    with OpenStream.open(server, PATH, body) as stream:
        for number, data in enumerate(stream.events()):
            event: Json = json.loads(data)
            assert event["sequence_number"] == number
            yield event


def plain(response: Json) -> Json:
    """Without what is made up anew for each response."""
    items = [{key: value for key, value in item.items() if key not in ("id", "call_id")} for item in response["output"]]
    times = ("id", "created_at", "completed_at", "usage")
    return {key: value for key, value in response.items() if key not in times} | {"output": items}


def chat_text(server: Server, image: str) -> str:
    """What a chat says about the picture."""
    parts = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": QUESTION}]
    body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 120, "temperature": 0}
    found: str = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    return found


def test_text(server: Server) -> None:
    response = respond(server, QUESTION, model="tgi")
    assert (response["object"], response["status"], response["model"]) == ("response", "completed", "tgi")
    assert "do not see an image" in text(response)


def test_a_picture_is_seen_as_in_a_chat(server: Server, red_square_uri: str) -> None:
    response = respond(server, question(red_square_uri))
    assert text(response) == chat_text(server, red_square_uri)
    assert "red square" in text(response)
    usage = response["usage"]
    assert usage["input_tokens_details"]["image_tokens"] == IMAGE_TOKENS
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_json_from_a_picture(server: Server, red_square_uri: str) -> None:
    chosen = {"format": {"type": "json_schema", "name": "picture", "schema": SCHEMA, "strict": True}}
    response = respond(server, question(red_square_uri), text=chosen)
    value = json.loads(text(response))
    assert value["shape"] in ("square", "circle", "triangle")
    assert 1 <= value["count"] <= 5
    assert response["text"] == chosen


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "report"}])
def test_a_call_that_has_to_be(server: Server, red_square_uri: str, choice: JsonValue) -> None:
    response = respond(server, question(red_square_uri), tools=[REPORT], tool_choice=choice)
    call = response["output"][0]
    assert (call["type"], call["name"], call["status"]) == ("function_call", "report", "completed")
    assert json.loads(call["arguments"])["shape"] in ("square", "circle", "triangle")


def test_the_named_one_is_called(server: Server, red_square_uri: str) -> None:
    choice = {"type": "function", "name": "ping"}
    response = respond(server, question(red_square_uri), tools=[REPORT, PING], tool_choice=choice)
    assert [item["name"] for item in response["output"]] == ["ping"]


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_nobody_has_to_call(server: Server, red_square_uri: str, choice: str | None) -> None:
    response = respond(server, question(red_square_uri), tools=[REPORT], tool_choice=choice)
    assert text(response)


def test_two_turns_with_a_picture_that_a_tool_brought(server: Server, red_square_uri: str) -> None:
    camera = {"type": "function", "name": "camera", "parameters": {"type": "object", "properties": {}}}
    asked: list[Json] = [{"role": "user", "content": "Look out of the window."}]
    first = respond(server, asked, tools=[camera], tool_choice="required", parallel_tool_calls=False)
    [call] = first["output"]
    brought = [{"type": "input_image", "image_url": red_square_uri}]
    answer = {"type": "function_call_output", "call_id": call["call_id"], "output": brought}
    second = respond(server, [*asked, call, answer, {"role": "user", "content": QUESTION}], tools=[camera])
    assert second["usage"]["input_tokens_details"]["image_tokens"] == IMAGE_TOKENS
    assert second["output"]
    third = respond(server, [*asked, call, answer, *second["output"], {"role": "user", "content": QUESTION}])
    assert third["usage"]["input_tokens"] > 0


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_output_tokens": 2},
        {"tools": [REPORT], "tool_choice": "required"},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {"text": {"format": {"type": "json_object"}}, "seed": 3, "temperature": 1},
    ],
)
def test_a_stream_is_the_whole_response(server: Server, red_square_uri: str, fields: Json) -> None:
    whole = respond(server, question(red_square_uri), **fields)
    told = list(events(server, question(red_square_uri), **fields))
    assert [event["type"] for event in told[:2]] == ["response.created", "response.in_progress"]
    assert told[-1]["type"] == f"response.{whole['status']}"
    assert plain(told[-1]["response"]) == plain(whole)
    deltas = [event["delta"] for event in told if "delta" in event]
    item = whole["output"][0]
    first = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
    assert "".join(deltas).startswith(first)


def test_log_probabilities_are_those_of_a_chat(server: Server, red_square_uri: str) -> None:
    response = respond(server, question(red_square_uri), include=["message.output_text.logprobs"], top_logprobs=2)
    parts = [{"type": "image_url", "image_url": {"url": red_square_uri}}, {"type": "text", "text": QUESTION}]
    body = {"messages": [{"role": "user", "content": parts}], "logprobs": True, "top_logprobs": 2, "temperature": 0}
    chat = server.post("/v1/chat/completions", {**body, "max_tokens": 120}).json()["choices"][0]
    found = response["output"][0]["content"][0]["logprobs"]
    assert [entry["token"] for entry in found] == [entry["token"] for entry in chat["logprobs"]["content"]]


def test_a_client_that_leaves_frees_its_place(server: Server, red_square_uri: str) -> None:
    body = {"input": question(red_square_uri), "stream": True, "ignore_eos": True, "temperature": 0}
    with OpenStream.open(server, PATH, body) as stream:
        next(stream.events())
        stream.leave()
    wait_idle(server)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "file_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
    ],
)
def test_what_is_not_served_is_refused_by_name(server: Server, fields: Json, name: str) -> None:
    for stream in (False, True):
        reply = server.post(PATH, {"input": QUESTION, "stream": stream, **fields})
        assert reply.status_code == 422, reply.text
        assert name in reply.json()["error"]
