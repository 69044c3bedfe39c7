"""A shard that dies or hangs: streams end with an error, probes say so, and the service comes back by itself."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import launched, processes
from harness.calls import OpenStream, endless, generate
from harness.launched import Server, wait_until
from harness.types import Json

PROMPT = "one two three What can you do?"
LONG = endless(seed=31, max_new_tokens=1800)
NOTICED_WITHIN_S = 2.0
RESTART_LIMIT_S = 60.0
HUNG_WITHIN_S = 12.0


@pytest.fixture
def own(logs: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that the test may break."""
    with launched.running(logs / f"{request.node.name}.log") as server:
        yield server


def _error_at_the_end(stream: OpenStream) -> Json:
    last: Json | None = None
    for event in stream.events():
        last = json.loads(event)
    assert last is not None, "no event after the shard died"
    assert set(last) == {"error", "error_type"}, last
    return last


def test_a_killed_shard(own: Server) -> None:
    before = generate(own, PROMPT, max_new_tokens=24)
    (shard,) = own.shards()
    with OpenStream.generate(own, "x", **LONG) as stream:
        stream.take(3)
        os.kill(shard, signal.SIGKILL)
        wait_until(lambda: own.status("/health") == 503, NOTICED_WITHIN_S, "red health", every=0.01)
        assert _error_at_the_end(stream)["error_type"] == "generation"
    assert own.get("/health").status_code == 503 or own.shards() != [shard]
    wait_until(lambda: own.status("/health") == 200, RESTART_LIMIT_S, "green health")
    assert own.shards() != [shard]
    assert generate(own, PROMPT, max_new_tokens=24) == before
    wait_until(lambda: own.status("/ready") == 200, NOTICED_WITHIN_S, "readiness")


def test_a_chat_stream_over_a_dying_shard_ends_with_an_error_and_done(own: Server) -> None:
    messages = [{"role": "user", "content": "x"}]
    body = {"messages": messages, "stream": True, "max_tokens": 1800, "temperature": 100, "seed": 31}
    with OpenStream.open(own, "/v1/chat/completions", body) as stream:
        events = stream.events()
        next(events)
        next(events)
        os.kill(own.shards()[0], signal.SIGKILL)
        *_, error, done = events
    assert "message" in json.loads(error)["error"]
    assert done == "[DONE]"


def test_a_stopped_shard_turns_health_red_until_it_goes_on(own: Server) -> None:
    (shard,) = own.shards()
    os.kill(shard, signal.SIGSTOP)
    try:
        wait_until(lambda: own.status("/health") == 503, HUNG_WITHIN_S, "red health")
        body = own.get("/health").json()
        assert body["error_type"] == "healthcheck"
        assert own.status("/live") == 200, "a hung shard is no reason to kill the router"
    finally:
        os.kill(shard, signal.SIGCONT)
    wait_until(lambda: own.status("/health") == 200, RESTART_LIMIT_S, "green health")
    assert generate(own, "x", max_new_tokens=2)["details"]["generated_tokens"] == 2


def test_a_killed_launcher_leaves_no_child(own: Server) -> None:
    children = processes.descendants(own.process.pid)
    assert children
    own.signal(signal.SIGKILL)
    wait_until(lambda: not any(map(processes.alive, children)), 5, "end of all children")
