"""`--trace`: one file about router and shards on one clock, whole whatever happened to a shard."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import launched
from harness.launched import Server, wait_until

TOKENS = 24
STOP_S = 60
Event = dict[str, Any]


@dataclass
class Span:
    """A pair of events, or a complete one. Nanoseconds, so that nothing is lost to floating point."""

    name: str
    began: int
    ended: int
    facts: dict[str, int]

    def holds(self, other: "Span") -> bool:
        """Whether the other lies within this one."""
        return self.began <= other.began and other.ended <= self.ended


@dataclass
class Trace:
    """What is in a file."""

    events: list[Event]

    def asynchronous(self, category: str) -> dict[str, list[Span]]:
        """Spans of a category by id, inner ones behind outer ones. They must be brackets."""
        found: dict[str, list[Span]] = {}
        opened: dict[str, list[Span]] = {}
        for event in self.events:
            if event.get("cat") != category:
                continue
            stack = opened.setdefault(event["id"], [])
            if event["ph"] == "b":
                span = Span(event["name"], nanoseconds(event["ts"]), -1, event.get("args", {}))
                stack.append(span)
                found.setdefault(event["id"], []).append(span)
            else:
                assert event["name"] in [span.name for span in stack], f"{event} ends what did not begin"
                innermost = next(span for span in reversed(stack) if span.name == event["name"])
                innermost.ended = nanoseconds(event["ts"])
                stack.remove(innermost)
        assert not any(opened.values()), "a span has no end"
        return found

    def of_shard(self, thread: int) -> list[Span]:
        """What one thread of rank 0 did, in order."""
        events = [event for event in self.events if event["ph"] == "X" and (event["pid"], event["tid"]) == (2, thread)]
        spans = (
            Span(event["name"], nanoseconds(event["ts"]), nanoseconds(event["ts"] + event["dur"]), event["args"])
            for event in events
        )
        return sorted(spans, key=lambda span: span.began)


def nanoseconds(micros: float) -> int:
    return round(micros * 1000)


def read(file: Path) -> Trace:
    """The events, if they are what the format wants."""
    trace = json.loads(file.read_text())
    assert trace["otherData"] == {"clock": "CLOCK_MONOTONIC", "spans_left_out": 0}
    for event in trace["traceEvents"]:
        assert event["ph"] in ("M", "X", "b", "e")
        assert {"name", "pid", "tid"} <= set(event)
        assert event["ph"] == "M" or event["ts"] > 0
    return Trace(trace["traceEvents"])


def ask(server: Server, inputs: str) -> None:
    parameters = {"max_new_tokens": TOKENS, "ignore_eos": True}
    reply = server.post("/generate", {"inputs": inputs, "parameters": parameters})
    assert reply.status_code == 200, reply.text


@pytest.fixture(scope="module")
def trace(logs: Path, tmp_path_factory: pytest.TempPathFactory, red_square_uri: str) -> Iterator[Trace]:
    """Of a server that answered a text and a picture, and was then asked to stop."""
    file = tmp_path_factory.mktemp("trace") / "trace.json"
    with launched.running(logs / "trace.log", "--trace", str(file)) as server:
        ask(server, "Tell me about lighthouses.")
        ask(server, f"![]({red_square_uri})What is this a picture of?")
        server.signal(signal.SIGTERM)
        server.wait(STOP_S)
    yield read(file)


def test_requests_are_told_from_end_to_end(trace: Trace) -> None:
    requests = list(trace.asynchronous("request").values())
    assert len(requests) == 2
    for spans in requests:
        whole, *inner = spans
        assert (whole.name, whole.facts["tokens"]) == ("request", TOKENS)
        assert all(whole.holds(span) for span in inner)
        stages = {span.name: span for span in inner}
        chain = [stages[name] for name in ("prepare", "queue", "first token", "stream")]
        assert [span.began for span in chain[1:]] == [span.ended for span in chain[:-1]]


def test_a_picture_is_decoded_while_its_request_is_prepared(trace: Trace) -> None:
    _, (number, (whole, *inner)) = trace.asynchronous("request").items()
    prepare = next(span for span in inner if span.name == "prepare")
    images = trace.asynchronous("image")
    assert set(images) == {f"{number}.0"}
    assert [span.name for span in images[f"{number}.0"]] == ["decode image", "resize image"]
    assert all(prepare.holds(span) for span in images[f"{number}.0"])
    assert whole.holds(prepare)


def test_a_picture_is_uploaded_and_encoded_within_its_request(trace: Trace) -> None:
    uploads = [spans[0] for spans in trace.asynchronous("upload").values()]
    encoded = [span for span in trace.of_shard(2) if span.name == "encode images"]
    request = list(trace.asynchronous("request").values())[1][0]
    assert len(uploads) == len(encoded) == 1
    assert uploads[0].facts["bytes"] > 0
    assert request.holds(uploads[0])
    assert request.holds(encoded[0])
    assert uploads[0].ended <= encoded[0].began


def test_what_shards_do_lies_within_the_steps_of_the_router(trace: Trace) -> None:
    steps = {int(name.split(".")[1]): spans[0] for name, spans in trace.asynchronous("step").items()}
    wire, compute = trace.of_shard(1), trace.of_shard(2)
    assert {span.name for span in wire} == {"receive", "send"}
    assert {span.name for span in compute} == {"learn", "encode images", "launch", "wait"}
    assert len([span for span in wire if span.name == "send"]) == len(steps) > TOKENS
    for span in wire + compute:
        assert steps[span.facts["step"]].holds(span), span


def test_a_thread_does_one_thing_at_a_time(trace: Trace) -> None:
    compute = trace.of_shard(2)
    assert all(one.ended <= other.began for one, other in zip(compute, compute[1:], strict=False))


def test_the_next_plan_leaves_before_a_result_is_back(trace: Trace) -> None:
    """One step ahead: in a stream that decodes, each but its last steps overlaps with the next one."""
    steps = sorted((spans[0] for spans in trace.asynchronous("step").values()), key=lambda span: span.began)
    decoding = [
        (one, other)
        for one, other in zip(steps, steps[1:], strict=False)
        if one.facts["tokens"] == other.facts["tokens"] == 1
    ]
    overlapping = [one for one, other in decoding if other.began < one.ended]
    assert len(overlapping) >= 0.8 * len(decoding) > TOKENS


def test_a_shard_that_dies_leaves_a_whole_file(logs: Path, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    with launched.running(logs / "trace-of-the-dead.log", "--trace", str(file)) as server:
        ask(server, "Hello")
        os.kill(server.shards()[0], signal.SIGKILL)
        wait_until(lambda: server.status("/ready") != 200, 20, "loss of the shard")
        server.wait_ready()
        ask(server, "Hello again")
        server.signal(signal.SIGTERM)
        server.wait(STOP_S)
    steps = read(file).asynchronous("step")
    assert {name.split(".")[0] for name in steps} == {"1", "2"}


def test_a_file_that_cannot_be_written_is_refused_at_the_start(logs: Path) -> None:
    server = launched.start(logs / "no-trace.log", ("--trace", "/no such folder/trace.json"))
    try:
        assert server.wait(STOP_S) != 0
    finally:
        server.end()
    assert "/no such folder/trace.json" in server.log_tail()
