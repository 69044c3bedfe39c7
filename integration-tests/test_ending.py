"""SIGTERM: what runs may finish, nothing new begins, and the end comes in time whoever dawdles."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from harness import launched, processes
from harness.calls import Background, OpenStream, collect, endless, send_unanswered
from harness.launched import Server, wait_until

LONGEST = endless(seed=41, max_new_tokens=1900)
PROMPT_END_S = 5.0


@pytest.fixture
def own(logs: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test's own, with the flags of its marker."""
    flags = request.param if hasattr(request, "param") else ()
    with launched.running(logs / f"{request.node.name}.log", *flags) as server:
        yield server


def _gone(pids: list[int]) -> bool:
    return not any(map(processes.alive, pids))


def _refused(server: Server) -> bool:
    """Whether a new request is turned away: 503 while the port is open, a closed port after."""
    try:
        return server.post("/generate", {"inputs": "x"}, timeout=5).status_code == 503
    except requests.ConnectionError:
        return True


def test_running_streams_finish_and_new_requests_are_refused(own: Server) -> None:
    family = [own.process.pid, *processes.descendants(own.process.pid)]
    streams = [OpenStream.generate(own, "x", **endless(seed=seed, max_new_tokens=600)) for seed in (1, 2, 3)]
    for stream in streams:
        stream.take(1)
    own.signal(signal.SIGTERM)
    wait_until(lambda: _refused(own), 1, "refusal")
    assert own.status("/ready") in (503, None)
    results = [Background(collect, stream) for stream in streams]
    assert all(result.result().finish_reason in ("length", "eos_token") for result in results)
    assert own.wait(PROMPT_END_S) == 0
    wait_until(lambda: _gone(family), 1, "end of all processes")


@pytest.mark.parametrize("own", [("--graceful-termination-timeout", "1")], indirect=True, ids=["1 s"])
def test_the_drain_limit_ends_streams_with_an_error(own: Server) -> None:
    with OpenStream.generate(own, "x", **LONGEST) as stream:
        stream.take(1)
        own.signal(signal.SIGTERM)
        *_, last = stream.events()
    assert set(json.loads(last)) == {"error", "error_type"}, "too fast a machine for this test, or a silent end"
    assert own.wait(PROMPT_END_S) == 0


def test_a_second_signal_ends_at_once(own: Server) -> None:
    family = [own.process.pid, *processes.descendants(own.process.pid)]
    with OpenStream.generate(own, "x", **LONGEST) as stream:
        stream.take(1)
        own.signal(signal.SIGTERM)
        time.sleep(0.3)
        start = time.monotonic()
        own.signal(signal.SIGTERM)
        own.wait(PROMPT_END_S)
        assert time.monotonic() - start < 2
    wait_until(lambda: _gone(family), 1, "end of all processes")


def test_idle_and_stalled_clients_do_not_hold_it_up(own: Server) -> None:
    idle = [socket.create_connection(("127.0.0.1", own.port)) for _ in range(20)]
    half = socket.create_connection(("127.0.0.1", own.port))
    lines = [b"POST /generate HTTP/1.1", b"host: 127.0.0.1", b"content-type: application/json", b"content-length: 100"]
    half.sendall(b"\r\n".join([*lines, b"", b"{"]))
    body = {"inputs": "x", "parameters": endless(seed=4, max_new_tokens=20)}
    stalled = send_unanswered(own, "/generate_stream", body)
    time.sleep(0.5)
    own.signal(signal.SIGTERM)
    assert own.wait(PROMPT_END_S) == 0
    for connection in (*idle, half, stalled):
        connection.close()


def test_sigint_ends_an_idle_server(own: Server) -> None:
    own.signal(signal.SIGINT)
    assert own.wait(PROMPT_END_S) == 0
