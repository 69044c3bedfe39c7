"""Requests of the tests, and what comes back in a form that can be compared: token ids, text, numbers."""

import contextlib
import http.client
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

from harness.launched import Server, wait_until
from harness.types import Json

Result = TypeVar("Result")
MAX_ERROR_BYTES = 1024
# Every token is about as likely as any other, so the end of the answer comes when the limit does, or nearly.
FLAT_TEMPERATURE = 100.0
IDLE_LIMIT_S = 2.0


@dataclass(frozen=True)
class Answer:
    """What one request brought, streamed or not."""

    token_ids: tuple[int, ...]
    text: str
    finish_reason: str


def generate(server: Server, inputs: str, **parameters: object) -> Json:
    """The body of a successful `/generate` with details."""
    reply = server.post("/generate", {"inputs": inputs, "parameters": {"details": True, **parameters}})
    assert reply.status_code == 200, reply.text
    body: Json = reply.json()
    return body


def answer(server: Server, inputs: str, **parameters: object) -> Answer:
    """A `/generate`, reduced to what must not change."""
    body = generate(server, inputs, **parameters)
    details = body["details"]
    return Answer(tuple(token["id"] for token in details["tokens"]), body["generated_text"], details["finish_reason"])


def streamed_answer(server: Server, inputs: str, **parameters: object) -> Answer:
    """The same from `/generate_stream`."""
    with OpenStream.generate(server, inputs, **parameters) as stream:
        return collect(stream)


def collect(stream: "OpenStream") -> Answer:
    """What the rest of a native stream says."""
    events = [json.loads(event) for event in stream.events()]
    assert events, "the stream ended without an event"
    assert "error" not in events[-1], events[-1]
    last = events[-1]
    ids = tuple(event["token"]["id"] for event in [*stream.taken, *events])
    return Answer(ids, last["generated_text"], last["details"]["finish_reason"])


def chat(server: Server, content: object, **fields: object) -> Json:
    """The body of a successful chat completion with one user message."""
    messages = [{"role": "user", "content": content}]
    reply = server.post("/v1/chat/completions", {"messages": messages, "temperature": 0, **fields})
    assert reply.status_code == 200, reply.text
    body: Json = reply.json()
    return body


def image_part(url: str) -> Json:
    """An image of a chat message."""
    return {"type": "image_url", "image_url": {"url": url}}


def text_part(text: str) -> Json:
    """A text of a chat message."""
    return {"type": "text", "text": text}


def events(server: Server, path: str, body: Json) -> list[Json]:
    """What each event of a stream holds, but for `[DONE]`."""
    reply = server.post(path, body)
    assert reply.status_code == 200, reply.text
    lines = [line.removeprefix("data:").strip() for line in reply.content.decode().split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def user_turn(text: str) -> str:
    """One turn as clients write it who apply the chat template of the embedded model themselves."""
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def endless(seed: int, max_new_tokens: int) -> Json:
    """Parameters of a request that goes on for about this many tokens and is the same every time."""
    return {"temperature": FLAT_TEMPERATURE, "seed": seed, "max_new_tokens": max_new_tokens, "details": True}


@dataclass
class OpenStream:
    """An event stream that is being read, and may be left."""

    connection: http.client.HTTPConnection
    response: http.client.HTTPResponse
    taken: list[Json] = field(default_factory=list)

    @classmethod
    def open(cls, server: Server, path: str, body: Json) -> Self:
        """Sends the request and waits for the head of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise AssertionError(f"{response.status}: {response.read()!r}")
        return cls(connection, response)

    @classmethod
    def generate(cls, server: Server, inputs: str, **parameters: object) -> Self:
        """A `/generate_stream` with details."""
        return cls.open(server, "/generate_stream", {"inputs": inputs, "parameters": {"details": True, **parameters}})

    def events(self) -> Iterator[str]:
        """Data of each event, until the stream ends."""
        while line := self.response.readline():
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip().decode()

    def take(self, count: int) -> list[Json]:
        """The next events of a native stream."""
        events = self.events()
        self.taken += [json.loads(next(events)) for _ in range(count)]
        return self.taken

    def leave(self) -> None:
        """Goes away as a killed client does: with a reset, unread data and all."""
        assert self.connection.sock is not None or self.response.fp is not None
        _reset_on_close(self.connection.sock)
        self.response.close()
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self.connection.close()


def _reset_on_close(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def send_unanswered(server: Server, path: str, body: Json) -> socket.socket:
    """Sends a request whose answer is not waited for; closing the socket is leaving."""
    data = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "host: 127.0.0.1",
        "content-type: application/json",
        f"content-length: {len(data)}",
    ]
    head = "\r\n".join([*lines, "", ""])
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.sendall(head.encode() + data)
    return connection


def raw_exchange(server: Server, data: bytes, limit_s: float = 20) -> bytes:
    """Sends bytes and returns all that comes back until the server closes, which it may do before it has them all."""
    received: list[bytes] = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=limit_s) as connection:
        with contextlib.suppress(ConnectionError, OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            received.extend(iter(lambda: connection.recv(65536), b""))
    return b"".join(received)


class Background(Generic[Result]):
    """A call in a thread, whose result or exception is wanted later."""

    def __init__(self, call: Callable[..., Result], *arguments: object) -> None:
        self._outcome: Future[Result] = Future()
        threading.Thread(target=self._run, args=(call, arguments), daemon=True).start()

    def _run(self, call: Callable[..., Result], arguments: tuple[object, ...]) -> None:
        try:
            self._outcome.set_result(call(*arguments))
        except Exception as error:
            self._outcome.set_exception(error)

    def result(self, limit_s: float = 120) -> Result:
        """What the call returned; raises what it raised."""
        return self._outcome.result(limit_s)


def metrics(server: Server) -> dict[str, float]:
    """Every sample of `/metrics`, by name with labels."""
    text = server.get("/metrics").text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def is_idle(server: Server) -> bool:
    """Whether nothing runs and nothing waits."""
    values = metrics(server)
    return values.get("tgi_batch_current_size", 0) == 0 and values.get("tgi_queue_size", 0) == 0


def wait_idle(server: Server, limit_s: float = IDLE_LIMIT_S) -> None:
    """Returns when nothing is left of earlier requests."""
    wait_until(lambda: is_idle(server), limit_s, f"idle server: {metrics(server)}")
