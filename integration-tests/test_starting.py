"""What start-up refuses, and with how clear a word; and who may listen."""

import socket
import struct
from pathlib import Path

import pytest
from harness import launched
from harness.launched import Server
from harness.processes import descendants, listening_tcp, listening_unix, open_udp

REFUSAL_LIMIT_S = 60
LOOPBACK = "0100007F"  # 127.0.0.1 as /proc writes it


def _refused(log: Path, *flags: str, port: int | None = None) -> str:
    """What a launcher says that must not start."""
    server = launched.start(log, flags, port)
    try:
        assert server.wait(REFUSAL_LIMIT_S) != 0
    finally:
        server.end()
    return log.read_text()


def test_a_taken_port(logs: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert str(port) in _refused(logs / "taken-port.log", port=port)


BAD_FLAGS = {
    "a folder without a model": (("--model-id", "/nonexistent/model"), "/nonexistent/model"),
    "a host name that is no address": (("--hostname", "localhost"), "hostname"),
    "an unknown flag": (("--no-such-flag",), "--no-such-flag"),
    "no shard": (("--num-shard", "0"), "num-shard"),
    "a total below the input": (("--max-input-tokens", "100", "--max-total-tokens", "50"), "max-input-tokens"),
}


@pytest.mark.parametrize(("flags", "word"), BAD_FLAGS.values(), ids=BAD_FLAGS.keys())
def test_bad_flags(logs: Path, flags: tuple[str, ...], word: str) -> None:
    text = _refused(logs / "bad-flags.log", *flags)
    assert word.replace("-", "_") in text.replace("-", "_")
    assert "panicked" not in text


def test_a_model_without_weights(logs: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "fast_vlm"}')
    assert "safetensors" in _refused(logs / "no-weights.log", "--model-id", str(tmp_path))


def test_a_model_of_an_unknown_type(logs: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no_such_type"}')
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    assert "no_such_type" in _refused(logs / "unknown-type.log", "--model-id", str(tmp_path))


def test_only_the_loopback_port_is_open(server: Server) -> None:
    family = [server.process.pid, *descendants(server.process.pid)]
    assert listening_tcp(family) == {(LOOPBACK, server.port)}
    assert open_udp(family) == set()


def test_the_socket_of_the_shard_is_private(server: Server) -> None:
    family = [server.process.pid, *descendants(server.process.pid)]
    paths = listening_unix(family)
    assert paths
    for path in paths:
        assert path.parent.stat().st_mode & 0o777 == 0o700, path


def test_prompts_are_not_in_the_log(server: Server) -> None:
    server.post("/generate", {"inputs": "a very private sentence", "parameters": {"max_new_tokens": 2}})
    server.post("/generate", {"inputs": "a very private sentence", "parameters": {"max_new_tokens": 0}})
    assert "very private" not in server.log.read_text()
