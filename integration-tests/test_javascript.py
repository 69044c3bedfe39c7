"""The JavaScript clients that users have installed: the last that streams TGI's way, and an old one."""

import pytest
from harness.calls import answer, wait_idle
from harness.javascript import Node
from harness.launched import Server
from harness.pictures import markdown

QUESTION = "What is this a picture of?\n\n"


@pytest.mark.parametrize("version", ["2", "4"])
def test_streamed_tokens_are_those_of_the_whole_answer(
    node: Node, server: Server, red_square_uri: str, version: str
) -> None:
    events = node.run("client.mjs", f"{version}-stream", server.url, red_square_uri)
    whole = answer(server, markdown(red_square_uri) + QUESTION, max_new_tokens=16)
    assert tuple(event["token"]["id"] for event in events) == whole.token_ids
    assert events[-1]["generated_text"] == whole.text
    assert all(event["generated_text"] is None for event in events[:-1])


@pytest.mark.parametrize("version", ["2", "4"])
def test_whole_answer(node: Node, server: Server, red_square_uri: str, version: str) -> None:
    reply = node.run("client.mjs", f"{version}-whole", server.url, red_square_uri)
    assert reply["generated_text"] == answer(server, markdown(red_square_uri) + QUESTION, max_new_tokens=16).text


def test_chat(node: Node, server: Server, red_square_uri: str) -> None:
    reply = node.run("client.mjs", "4-chat", server.url, red_square_uri)
    assert "red square" in reply["choices"][0]["message"]["content"]


def test_chat_stream(node: Node, server: Server, red_square_uri: str) -> None:
    chunks = node.run("client.mjs", "4-chat-stream", server.url, red_square_uri)
    assert "red square" in "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_refused_stream_shows_its_reason(node: Node, server: Server) -> None:
    assert "http" in node.run("client.mjs", "2-refused", server.url)["message"]


def test_an_aborted_stream_ends_on_both_sides(node: Node, server: Server) -> None:
    assert node.run("client.mjs", "2-aborted", server.url) == {"events": 3, "name": "AbortError"}
    wait_idle(server)
