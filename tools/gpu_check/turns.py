"""Part g: the second turn about a picture, of the launched server: its prompt's beginning is in the prefix cache."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import requests
from harness import launched, pictures

from gpu_check import absent
from gpu_check.place import Place
from gpu_check.rows import NotHere, Row

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
SERVER = '#!/bin/sh\nexec "{python}" -m text_generation_server "$@"\n'

MIN_GAIN = 5


def parts(place: Place) -> Iterator[Row]:
    """Time to the first token of first and second turns about pictures nobody has seen."""
    check(place)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "text-generation-server"
        program.write_text(SERVER.format(python=sys.executable))
        program.chmod(0o755)
        flags = ("--text-generation-server", str(program), "--device", place.device.type)
        with launched.running(Path(folder) / "log", *flags) as server:
            warm, *turns = [two_turns(server.url, colour) for colour in COLOURS]
            cached = [second_cached for _, _, second_cached in turns]
        first, second = (statistics.median(turn[index] for turn in turns) for index in (0, 1))
    note = f"embedded model, {len(turns)} pictures; {first * 1e3:.3g} ms, then {second * 1e3:.3g} ms"
    faster, reached = f"{first / second:.1f} × faster", place.holds(first >= MIN_GAIN * second)
    yield Row("second turn about a picture: first token", faster, reached, f"≥ {MIN_GAIN} ×", note, goal=True)
    least = min(cached)
    yield Row("prompt tokens of the second turn from the cache", f"at least {least}", least > 0, "> 0")


def check(place: Place) -> None:
    """Says what is missing."""
    if not place.launcher and shutil.which("text-generation-launcher") is None:
        raise NotHere("no launcher: name one in TEXT_GENERATION_LAUNCHER")
    missing = [name for name in ("grpc_health", "llguidance") if absent.MISSING or find_spec(name) is None]
    if missing:
        raise NotHere(f"the launched shard needs {', '.join(missing)}")


def two_turns(url: str, colour: str) -> tuple[float, float, int]:
    """Seconds to the first token of each turn, and how many tokens of the second prompt were cached."""
    uri = pictures.data_uri(pictures.png(pictures.drawing("square", colour, "white")))
    question = [
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "text", "text": "What is this a picture of?"},
    ]
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    first, answer, _ = ask(url, messages)
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "What color is the background?"}]
    second, _, cached = ask(url, messages)
    return first, second, cached


def ask(url: str, messages: list[dict[str, Any]]) -> tuple[float, str, int]:
    """One streamed chat: seconds to its first piece, its text, prompt tokens that were cached."""
    body = {"messages": messages, "max_tokens": 12, "stream": True, "stream_options": {"include_usage": True}}
    started, seconds, text, cached = time.perf_counter(), 0.0, "", 0
    with requests.post(f"{url}/v1/chat/completions", json=body, stream=True, timeout=60) as reply:
        assert reply.status_code == 200, reply.text
        for line in reply.iter_lines():
            if not line.startswith(b"data: {"):
                continue
            seconds = seconds or time.perf_counter() - started
            event = json.loads(line[6:])
            text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
            details = (event.get("usage") or {}).get("prompt_tokens_details") or {}
            cached = details.get("cached_tokens", cached)
    return seconds, text, cached
