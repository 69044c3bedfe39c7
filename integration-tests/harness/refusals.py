"""What every refusal must look like, whoever refuses."""

import requests

from harness.calls import MAX_ERROR_BYTES
from harness.types import Json


def refusal(reply: requests.Response, *statuses: int) -> Json:
    """The body of a refusal in TGI's form.

    Raises:
        AssertionError: it is no refusal, or one that a client could not read.
    """
    assert reply.status_code in statuses, f"{reply.status_code}: {reply.text[:400]}"
    assert reply.headers["content-type"].startswith("application/json"), reply.headers
    assert len(reply.content) <= MAX_ERROR_BYTES, f"{len(reply.content)} bytes"
    body: Json = reply.json()
    assert set(body) == {"error", "error_type"}, body
    assert all(isinstance(value, str) and value for value in body.values()), body
    return body


def mentions(body: Json, *words: str) -> None:
    """The text names what is wrong, whatever its case."""
    text = body["error"].lower()
    assert all(word.lower() in text for word in words), f"{words} not all in {body['error']!r}"
