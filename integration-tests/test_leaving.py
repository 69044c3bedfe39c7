"""A client that leaves a busy server: its neighbours bring what they bring alone."""

import contextlib
import random

from harness.calls import Answer, Background, OpenStream, answer, collect, endless, send_unanswered, wait_idle
from harness.launched import Server
from harness.pictures import markdown

LONG = endless(seed=21, max_new_tokens=400)


def test_neighbours_of_one_who_leaves_are_unharmed(server: Server, red_square_uri: str) -> None:
    inputs = markdown(red_square_uri)
    alone = answer(server, inputs, **LONG)
    with OpenStream.generate(server, inputs, **LONG) as stays:
        leaves = OpenStream.generate(server, inputs, **endless(seed=22, max_new_tokens=1500))
        leaves.take(5)
        leaves.leave()
        assert collect(stays) == alone
    wait_idle(server)


def test_many_leave_at_any_moment(server: Server, red_square_uri: str) -> None:
    """Sockets closed at random points of head, body, fetch, queue, prefill and decode."""
    source = random.Random(5)
    inputs = markdown(red_square_uri)
    alone = answer(server, inputs, **LONG)

    def stays() -> Answer:
        with OpenStream.generate(server, inputs, **LONG) as stream:
            return collect(stream)

    neighbour = Background(stays)
    for number in range(60):
        body = {"inputs": inputs, "parameters": endless(seed=number, max_new_tokens=1500)}
        connection = send_unanswered(server, source.choice(["/generate", "/generate_stream"]), body)
        connection.settimeout(source.uniform(0.001, 0.05))
        with contextlib.suppress(TimeoutError):
            connection.recv(source.choice([1, 200, 4000]))
        connection.close()
    assert neighbour.result() == alone
    wait_idle(server)


def test_a_client_that_does_not_read_is_no_burden(server: Server, red_square_uri: str) -> None:
    inputs = markdown(red_square_uri)
    alone = answer(server, inputs, **LONG)
    idle = [send_unanswered(server, "/generate_stream", {"inputs": inputs, "parameters": LONG}) for _ in range(8)]
    assert answer(server, inputs, **LONG) == alone
    for connection in idle:
        connection.close()
    wait_idle(server)
