"""Starts the server as a user does, by its launcher, and ends it whatever happens. Knows no request bodies."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from harness import processes
from harness.types import JsonValue

START_LIMIT_S = 240.0
STOP_LIMIT_S = 20.0
LOG_TAIL = 4000
# Settings of the machine that would reach the launcher through its environment twins.
FOREIGN_SETTINGS = ("MODEL_ID", "PORT", "HOSTNAME", "NUM_SHARD", "DTYPE", "API_KEY", "REVISION", "DEVICE", "LOG_LEVEL")


@dataclass
class Server:
    """A launched server."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Base address without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, timeout: float = 10, headers: Mapping[str, str] | None = None) -> requests.Response:
        """One GET on a connection of its own."""
        return self.send("GET", path, timeout=timeout, headers=headers)

    def post(
        self, path: str, body: JsonValue, timeout: float = 60, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        """One POST of JSON on a connection of its own."""
        with _session() as session:
            return session.post(self.url + path, json=body, timeout=timeout, headers=headers)

    def send(
        self,
        method: str,
        path: str,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> requests.Response:
        """Any request, with exactly this body."""
        with _session() as session:
            return session.request(method, self.url + path, data=data, headers=headers, timeout=timeout)

    def status(self, path: str) -> int | None:
        """Status of a GET; None when nobody answers."""
        try:
            return self.get(path, timeout=5).status_code
        except requests.RequestException:
            return None

    def shards(self) -> list[int]:
        """Process ids of the shards, by rank."""
        found = [pid for pid in processes.descendants(self.process.pid) if processes.is_shard(pid)]
        # A shard's own helpers carry the same command line: the shards are the topmost of them.
        return sorted(pid for pid in found if processes.parent(pid) not in found)

    def log_tail(self) -> str:
        """The end of what it logged."""
        return self.log.read_text(errors="replace")[-LOG_TAIL:]

    def wait_ready(self) -> None:
        """Returns when the server takes requests.

        Raises:
            AssertionError: it ended, or it took too long.
        """

        def ready() -> bool:
            code = self.process.poll()
            assert code is None, f"the launcher ended with {code}:\n{self.log_tail()}"
            return self.status("/ready") == 200

        wait_until(ready, START_LIMIT_S, f"ready server; its log:\n{self.log_tail()}", every=0.2)

    def signal(self, number: signal.Signals) -> None:
        """Signals the launcher alone, as a supervisor does."""
        self.process.send_signal(number)

    def wait(self, timeout: float) -> int:
        """Exit code of the launcher."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"still running after {timeout} s:\n{self.log_tail()}") from late

    def end(self) -> None:
        """Ends it and all that it started, politely if that works."""
        family = [self.process.pid, *processes.descendants(self.process.pid)]
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            self.process.terminate()
            self.process.terminate()
            self.process.wait(STOP_LIMIT_S)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_LIMIT_S)


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a proxy of this machine is none of the server's business
    return session


def wait_until(condition: Callable[[], bool], limit_s: float, what: str, every: float = 0.05) -> float:
    """Seconds until the condition held.

    Raises:
        AssertionError: it did not within the limit.
    """
    start = time.monotonic()
    while not condition():
        waited = time.monotonic() - start
        assert waited < limit_s, f"after {waited:.1f} s still no {what}"
        time.sleep(every)
    return time.monotonic() - start


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launcher() -> str:
    """The launcher under test: named by the environment, else beside this Python, else on PATH."""
    named = os.environ.get("TEXT_GENERATION_LAUNCHER")
    beside = Path(sys.executable).with_name("text-generation-launcher")
    found = named or (str(beside) if beside.exists() else shutil.which("text-generation-launcher"))
    assert found, "no text-generation-launcher: install the package, or name it in TEXT_GENERATION_LAUNCHER"
    return found


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment without settings meant for other servers."""
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN_SETTINGS}
    return kept | dict(extra or {})


def start(log: Path, flags: Sequence[str] = (), port: int | None = None) -> Server:
    """Starts a server and does not wait for it."""
    port = port or free_port()
    with log.open("wb") as out:
        command = [launcher(), "--port", str(port), *flags]
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=environment(), start_new_session=True
        )
    return Server(process, port, log)


@contextmanager
def running(log: Path, *flags: str) -> Iterator[Server]:
    """A server that takes requests, ended afterwards."""
    server = start(log, flags)
    try:
        server.wait_ready()
        yield server
    finally:
        server.end()
