"""Clients as their users have them installed: each does what it can do, by the names that its scripts have for it."""

from collections.abc import Callable

import pytest
from harness import clients
from harness.embedded import ANSWER
from harness.javascript import Node
from harness.launched import Server
from harness.types import Json, JsonValue

PYTHON = [
    ("old", "hub"),
    ("old", "openai_sdk"),
    ("old", "text_generation_client"),
    ("previous", "instructor_client"),
    ("previous", "llama_index_client"),
    ("previous", "openai_responses"),
    ("previous", "openai_sdk"),
    ("newest", "hub"),
    ("newest", "langchain_openai_client"),
    ("newest", "litellm_client"),
    ("newest", "openai_responses"),
    ("newest", "openai_sdk"),
    ("newest", "pydantic_ai_client"),
]
JAVASCRIPT = ["ai", "inference", "openai", "responses", "openai_responses"]
NATIVE = [("old", "hub"), ("newest", "hub")]

Call = Callable[[str], JsonValue]
"""A call by its name; what it brought."""

SHAPES = ("square", "circle", "triangle")


@pytest.fixture(
    params=[*PYTHON, *JAVASCRIPT], ids=lambda client: client if isinstance(client, str) else "-".join(client)
)
def call(request: pytest.FixtureRequest, server: Server, node: Node, red_square_uri: str) -> Call:
    """A client that asks about a red square."""
    if isinstance(request.param, str):
        return lambda name: node.run(f"{request.param}.mjs", name, server.url, red_square_uri)
    environment, script = request.param
    return lambda name: clients.run(environment, script, name, server.url, red_square_uri)


@pytest.fixture(params=NATIVE, ids="-".join)
def native(request: pytest.FixtureRequest, server: Server, red_square_uri: str) -> Call:
    """A client of TGI's own routes."""
    environment, script = request.param
    return lambda name: clients.run(environment, script, name, server.url, red_square_uri)


def test_sync(call: Call) -> None:
    reply = call("sync")
    assert "text" not in reply or "do not see" in reply["text"]
    assert "value" not in reply or _is_picture(reply["value"])


def test_image(call: Call) -> None:
    reply = call("image")
    assert _is_picture(reply["value"]) if "value" in reply else "red square" in reply["text"]


def test_stream(call: Call) -> None:
    reply = call("stream")
    if "value" in reply:
        assert _is_picture(reply["value"])
        return
    assert len([piece for piece in reply["pieces"] if piece]) > 1
    assert "red square" in "".join(reply["pieces"])


def test_json(call: Call) -> None:
    assert _is_picture(call("json")["value"])


def test_tools(call: Call) -> None:
    reply = call("tools")
    assert reply["name"].lower() in ("report", "picture")
    assert _is_picture(reply["arguments"])


def test_error(call: Call) -> None:
    reply = call("error")
    assert "answered" not in reply
    assert any(name in reply["message"] for name in ("temperature", "top_p", "image URL")), reply


def test_native(native: Call) -> None:
    assert native("native")["text"] == ANSWER


def test_native_stream(native: Call) -> None:
    reply = native("native_stream")
    assert "".join(reply["pieces"]) == reply["text"] == ANSWER


def test_native_json(native: Call) -> None:
    assert _is_picture(native("native_json")["value"])


def test_native_error(native: Call) -> None:
    assert "image URL" in native("native_error")["message"]


@pytest.mark.parametrize("environment", ["previous", "newest"])
def test_responses_are_what_the_library_says_they_are(server: Server, red_square_uri: str, environment: str) -> None:
    reply = clients.run(environment, "openai_responses", "valid", server.url, red_square_uri)
    assert len(set(reply["ids"])) == 3


@pytest.mark.parametrize("name", ["native", "native_stream"])
def test_newest_javascript_text_generation(node: Node, server: Server, red_square_uri: str, name: str) -> None:
    reply = node.run("inference.mjs", name, server.url, red_square_uri)
    assert (reply["text"] if name == "native" else "".join(reply["pieces"])) == ANSWER


def _is_picture(value: Json) -> bool:
    return value["shape"] in SHAPES and isinstance(value["count"], int) and 1 <= value["count"] <= 5
