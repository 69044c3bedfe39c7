"""Two permits, one place in the step: what happens when they are taken, and that leaving gives them back."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import launched
from harness.calls import OpenStream, answer, endless, metrics, send_unanswered, wait_idle
from harness.launched import Server, wait_until
from harness.picture_host import ALLOWED_ADDRESS, PictureHost
from harness.pictures import data_uri, drawing, markdown, png
from harness.refusals import refusal

FREED_WITHIN_S = 2.0
LONG = endless(seed=8, max_new_tokens=1800)


@pytest.fixture(scope="module")
def narrow(logs: Path) -> Iterator[Server]:
    """A server that is full with two requests and computes one at a time."""
    flags = ("--max-concurrent-requests", "2", "--max-batch-size", "1", "--image-allow-address", ALLOWED_ADDRESS)
    with launched.running(logs / "narrow.log", *flags) as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_left(narrow: Server) -> Iterator[None]:
    yield
    wait_until(lambda: _free_permits(narrow) == 2, FREED_WITHIN_S, "two free permits")
    wait_idle(narrow)


def _free_permits(server: Server) -> int:
    """How many requests are let in at once, found by letting them in and leaving again."""
    with _send_long(server) as first, _send_long(server) as second:
        return sum(not _turned_away(connection) for connection in (first, second))


def _send_long(server: Server) -> socket.socket:
    return send_unanswered(server, "/generate_stream", {"inputs": "x", "parameters": LONG})


def _turned_away(connection: socket.socket) -> bool:
    """Whether it is refused now; who waits in the queue hears nothing."""
    connection.settimeout(0.2)
    try:
        return connection.recv(12).startswith(b"HTTP/1.1 429")
    except TimeoutError:
        return False


def _running(server: Server) -> OpenStream:
    stream = OpenStream.generate(server, "x", **LONG)
    stream.take(1)
    return stream


def test_one_too_many_is_refused_at_once(narrow: Server) -> None:
    with _running(narrow), _queued(narrow):
        reply = narrow.post("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 1}}, timeout=1)
        body = refusal(reply, 429)
        assert body["error_type"] == "overloaded"
        assert int(reply.headers["retry-after"]) > 0


def test_a_refused_stream_has_a_status(narrow: Server) -> None:
    with _running(narrow), _queued(narrow):
        refusal(narrow.post("/generate_stream", {"inputs": "x"}, timeout=1), 429)
        body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
        refusal(narrow.post("/v1/chat/completions", body, timeout=1), 429)


def _wait_queued(server: Server) -> None:
    wait_until(lambda: metrics(server)["tgi_queue_size"] == 1, 2, "request in the queue")


def _queued(server: Server) -> socket.socket:
    connection = _send_long(server)
    _wait_queued(server)
    return connection


def test_probes_answer_while_the_server_is_full(narrow: Server) -> None:
    with _running(narrow), _queued(narrow):
        assert [narrow.status(path) for path in ("/health", "/ready", "/metrics", "/info")] == [200] * 4


def test_best_of_needs_as_many_permits(narrow: Server) -> None:
    parameters = {"best_of": 2, "do_sample": True, "max_new_tokens": 2}
    assert narrow.post("/generate", {"inputs": "x", "parameters": parameters}).status_code == 200
    with _running(narrow):
        refusal(narrow.post("/generate", {"inputs": "x", "parameters": parameters}, timeout=1), 429)


def test_leaving_a_running_stream(narrow: Server) -> None:
    _running(narrow).leave()
    wait_idle(narrow, FREED_WITHIN_S)


def test_leaving_a_whole_answer(narrow: Server) -> None:
    connection = send_unanswered(narrow, "/generate", {"inputs": "x", "parameters": LONG})
    wait_until(lambda: _running_now(narrow) == 1, 2, "running request")
    connection.close()
    wait_idle(narrow, FREED_WITHIN_S)


def _running_now(server: Server) -> float:
    return metrics(server)["tgi_batch_current_size"]


def test_leaving_the_queue_frees_the_permit_and_harms_nobody(narrow: Server) -> None:
    with _running(narrow) as first:
        _queued(narrow).close()
        assert len(first.take(20)) == 21
        # The first still runs, so whoever is let in now took the permit of the one who left.
        wait_until(lambda: _free_permits(narrow) == 1, FREED_WITHIN_S, "free permit")
        first.leave()


def test_leaving_during_an_image_fetch(narrow: Server, host: PictureHost) -> None:
    before = len(host.requests_for("hang"))
    body = {"inputs": markdown(host.url("hang")), "parameters": {"max_new_tokens": 1}}
    waiting = [send_unanswered(narrow, "/generate", body) for _ in range(2)]
    wait_until(lambda: len(host.requests_for("hang")) > before, 2, "fetch")
    for connection in waiting:
        connection.close()
    wait_until(lambda: host.open_now == 0, FREED_WITHIN_S, "end of the fetch")
    wait_until(lambda: _free_permits(narrow) == 2, FREED_WITHIN_S, "two free permits")


def test_leaving_before_the_first_token_of_a_picture(narrow: Server) -> None:
    for number in range(12):
        picture = data_uri(png(drawing("circle", "red", "blue", (300 + number, 300))))
        send_unanswered(narrow, "/generate_stream", {"inputs": markdown(picture), "parameters": LONG}).close()
    wait_until(lambda: _free_permits(narrow) == 2, FREED_WITHIN_S, "two free permits")


def test_the_next_request_does_not_wait_for_an_abandoned_one(narrow: Server) -> None:
    alone = answer(narrow, "one two three What can you do?", max_new_tokens=24)
    _running(narrow).leave()
    wait_idle(narrow, FREED_WITHIN_S)
    assert answer(narrow, "one two three What can you do?", max_new_tokens=24) == alone
