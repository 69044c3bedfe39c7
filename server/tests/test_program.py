"""`serve` as a process: what it says, what it refuses, and when it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from driver import PREPARED
from grpc_health.v1 import health_pb2, health_pb2_grpc

LONG_S = 60.0
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}

Process = subprocess.Popen[str]


def start(socket: Path, *flags: str, errors: Path | None = None) -> Process:
    command = [sys.executable, "-X", "importtime", "-m", "text_generation_server", "serve", "--socket", str(socket)]
    pipe = subprocess.PIPE
    # Not a pipe for errors: one that nobody reads would fill and stop the process.
    with (errors or errors_of(socket)).open("w") as log:
        return subprocess.Popen([*command, *flags], env=ENVIRONMENT, text=True, stdin=pipe, stdout=pipe, stderr=log)


def errors_of(socket: Path) -> Path:
    return socket.with_suffix(".log")


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "shard.sock"


@pytest.fixture
def served(socket: Path) -> Iterator[Process]:
    flags = ["--prepared", str(PREPARED), "--device", "cpu", "--json-output", "--parent-pid", str(os.getpid())]
    process = start(socket, *flags)
    deadline = time.monotonic() + LONG_S
    while not socket.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    yield process
    process.kill()
    process.communicate()


def test_serves_and_ends_with_its_parents_pipe(served: Process, socket: Path) -> None:
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(service="text_generation_vlm.v1.Shard"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    output, _ = served.communicate("", timeout=LONG_S)
    errors = errors_of(socket).read_text()
    assert served.returncode == 0
    assert output == ""
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    last = [line["progress"] for line in lines if "progress" in line][-1]
    assert last["done"] == last["total"] > 0
    imported = {line.rpartition("|")[2].strip() for line in errors.splitlines() if line.startswith("import time")}
    assert "torch" in imported
    assert not imported & {"transformers", "torch._dynamo", "torch._inductor", "torchvision", "timm"}


def test_ends_on_sigterm(served: Process) -> None:
    served.terminate()
    assert served.wait(LONG_S) == 0


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--prepared", "/nonexistent.json"], "nonexistent.json is not a prepared model"),
        (["--prepared", str(PREPARED), "--rank", "2"], "rank 2 is outside world size 1"),
        (["--prepared", str(PREPARED), "--parent-pid", "1"], "the parent 1 is gone"),
        (["--prepared", str(PREPARED), "--cuda-memory-fraction", "2"], "memory fraction 2.0"),
        (["--prepared", str(PREPARED), "--cuda-graphs", "1,70000"], "a batch size to capture is outside 1 to 65536"),
        (["--prepared", str(PREPARED), "--attention", "nonesuch"], "attention backend nonesuch"),
    ],
)
def test_refuses_bad_flags(socket: Path, flags: list[str], reason: str) -> None:
    process = start(socket, *flags)
    process.communicate(timeout=LONG_S)
    errors = errors_of(socket).read_text()
    assert process.returncode == 2
    assert reason in errors
    assert "Traceback" not in errors


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    process = start(tmp_path / "absent" / "shard.sock", "--prepared", str(PREPARED), errors=tmp_path / "errors")
    process.communicate(timeout=LONG_S)
    assert process.returncode == 2
    assert "cannot listen on" in (tmp_path / "errors").read_text()


def test_a_model_that_is_not_there(socket: Path, tmp_path: Path) -> None:
    facts = json.loads(PREPARED.read_text()) | {"model_dir": str(tmp_path)}
    (tmp_path / "prepared.json").write_text(json.dumps(facts))
    process = start(socket, "--prepared", str(tmp_path / "prepared.json"))
    process.communicate(timeout=LONG_S)
    errors = errors_of(socket).read_text()
    assert process.returncode == 2
    assert "the model folder lacks any .safetensors file" in errors
    assert "Traceback" not in errors
