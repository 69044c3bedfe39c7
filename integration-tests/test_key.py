"""A server with a key: no route that does work answers without it, and it appears nowhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import launched
from harness.launched import Server

KEY = "correct-Horse-battery"
WITHOUT_KEY = [
    "/",
    "/generate",
    "/generate_stream",
    "/tokenize",
    "/chat_tokenize",
    "/v1/chat/completions",
    "/v1/responses",
]
WRONG_KEYS = [None, "", "Bearer", "Bearer wrong", f"Bearer {KEY.lower()}", f"Basic {KEY}", f"Bearer {KEY}x"]


@pytest.fixture(scope="module")
def locked(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants a key."""
    key_file = tmp_path_factory.mktemp("key") / "key"
    key_file.write_text(f"{KEY}\n")
    with launched.running(logs / "locked.log", "--api-key-file", str(key_file)) as server:
        yield server


@pytest.mark.parametrize("path", WITHOUT_KEY)
@pytest.mark.parametrize("key", WRONG_KEYS)
def test_no_route_without_the_key(locked: Server, path: str, key: str | None) -> None:
    body = {"inputs": "x", "messages": [{"role": "user", "content": "x"}]}
    reply = locked.post(path, body, headers={} if key is None else {"authorization": key})
    assert reply.status_code == 401
    assert reply.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions"])
def test_with_the_key(locked: Server, path: str) -> None:
    chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    body = {"inputs": "x", "parameters": {"max_new_tokens": 1}, **chat}
    assert locked.post(path, body, headers={"authorization": f"Bearer {KEY}"}).status_code == 200


def test_probes_need_no_key(locked: Server) -> None:
    assert [locked.status(path) for path in ("/health", "/live", "/ready")] == [200] * 3


def test_the_key_is_not_in_the_log(locked: Server) -> None:
    locked.post("/generate", {"inputs": "x"}, headers={"authorization": f"Bearer {KEY}"})
    assert KEY.lower() not in locked.log.read_text().lower()
