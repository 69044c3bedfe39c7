"""The launched server, for the time of a measurement."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from machine import REPOSITORY

START_LIMIT_S = 120


@dataclass(frozen=True)
class Server:
    """A ready server."""

    url: str
    pid: int
    seconds_to_ready: float

    def metric(self, name: str, labels: str = "") -> float:
        """The value of one series of `/metrics`, for example `("tgi_queue_size", "")`."""
        text = urllib.request.urlopen(f"{self.url}/metrics").read().decode()
        pattern = re.escape(name + (f"{{{labels}}}" if labels else "")) + r" (\S+)"
        found = re.search(f"^{pattern}$", text, re.MULTILINE)
        if found is None:
            raise LookupError(f"/metrics has no {name} with {labels!r}")
        return float(found[1])

    def resident_mib(self) -> float:
        """Memory of the launcher with the router in it; shards are processes of their own."""
        return self._memory_mib("VmRSS")

    def peak_mib(self) -> float:
        """The most that `resident_mib` has ever been."""
        return self._memory_mib("VmHWM")

    def _memory_mib(self, field: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


@contextlib.contextmanager
def launched(*flags: str) -> Iterator[Server]:
    """Starts the launcher with the embedded model and waits until it is ready."""
    port = free_port()
    launcher = Path(sys.executable).parent / "text-generation-launcher"
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(launcher), "--port", str(port), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_ready(f"{url}/ready", process)
        yield Server(url, process.pid, time.perf_counter() - start)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


@contextlib.contextmanager
def router_on_zero_cost_shard(*more: str) -> Iterator[Server]:
    """A router of its own, with `more` flags, in front of a shard that computes nothing."""
    build = [
        "cargo",
        "build",
        "--quiet",
        "--locked",
        "--release",
        "-p",
        "text-generation-proto",
        "--example",
        "zero_cost_shard",
    ]
    subprocess.run(build, check=True, cwd=REPOSITORY)
    port, scripts = free_port(), Path(sys.executable).parent
    prepared = subprocess.run(
        [scripts / "text-generation-server", "prepare"], capture_output=True, text=True, check=True
    )
    with tempfile.TemporaryDirectory() as folder:
        socket_path = f"{folder}/shard"
        shard = subprocess.Popen([target_folder() / "release" / "examples" / "zero_cost_shard", socket_path])
        flags = ["--port", str(port), "--prepared", prepared.stdout.strip(), "--shard", f"unix:{socket_path}", *more]
        start = time.perf_counter()
        router = subprocess.Popen(
            [scripts / "text-generation-router", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_ready(f"http://127.0.0.1:{port}/ready", router)
            yield Server(f"http://127.0.0.1:{port}", router.pid, time.perf_counter() - start)
        finally:
            for process in (router, shard):
                process.terminate()
                process.wait(timeout=60)


def target_folder() -> Path:
    """Where cargo builds."""
    metadata = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--format-version", "1"],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    return Path(json.loads(metadata.stdout)["target_directory"])


def wait_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Polls until the answer is 200. Raises when the process ends or the time is over."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the launcher ended with {process.returncode}")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=1)
            return
        time.sleep(0.02)
    raise TimeoutError(f"{url} was not ready within {START_LIMIT_S} s")


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def on_one_core(command: list[str]) -> list[str]:
    """The command, kept on the first core this process may use."""
    return ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
