"""One function for each line of the table. A measure compares in the same run whatever it compares with."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grammars
import requests
from client import load
from loading import measure as load_and_read
from machine import REPOSITORY
from pictures import data_uri, drawing, page

from server import Server, launched, on_one_core, router_on_zero_cost_shard

CARGO = ["cargo", "bench", "--quiet", "--locked"]
PAGE_TARGET = (1260, 1624)
"""What a page becomes when both sides are rounded to a multiple of 28."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    measure: str
    reach: str
    measured: str
    reached: bool
    note: str = ""


def pages() -> list[Row]:
    """Decode, resize and hash of a JPEG page on one core, beside the Hugging Face processor."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.jpg"
        path.write_bytes(page())
        bench = [*CARGO, "-p", "text-generation-router", "--bench", "pages", "--"]
        run([*bench, str(path), *map(str, PAGE_TARGET)])  # builds, so that taskset holds the measurement only
        ours = json.loads(run(on_one_core([*bench, str(path), *map(str, PAGE_TARGET)])))["pages_per_second"]
        theirs = float(
            run(on_one_core([sys.executable, str(Path(__file__).with_name("processor_pages.py")), str(path)]))
        )
    note = f"{ours / theirs:.1f} × the Hugging Face processor ({theirs:.1f} pages/s)"
    reached = ours >= 50 and ours >= 5 * theirs
    return [
        Row(
            "decode + resize + hash, 1275×1650 JPEG page, one core",
            "≥ 50 pages/s, ≥ 5 × HF",
            f"{ours:.1f} pages/s",
            reached,
            note,
        )
    ]


def scheduler() -> list[Row]:
    """Schedule and commit with 10,000 waiting and 1,000 running sequences, whatever the waiting ones wait for."""
    lines = run([*CARGO, "-p", "text-generation-scheduler", "--bench", "step"]).splitlines()
    waiting = [line.split() for line in lines if "10,000 waiting" in line]
    # Each line ends in median, minimum, mean and 99th percentile.
    medians = [float(words[-4]) for words in waiting]
    goal, note = "schedule + commit, 10,000 waiting, 1,000 running", f"median, worst of {len(medians)} cases"
    return [Row(goal, "< 200 µs", f"{max(medians):.0f} µs", max(medians) < 200, note)]


def router_alone() -> list[Row]:
    """The router in front of a shard that costs nothing; router, shard and client share the machine."""
    result, _ = zero_cost_streams(64, 1000)
    rate, first = result["tokens_per_second"], result["first_token_us"] / 1000
    return [
        Row(
            "router, zero-cost shard, 64 streams",
            "≥ 50,000 tokens/s",
            f"{rate:,.0f} tokens/s",
            rate >= 50_000,
            "shard and client on the same cores",
        ),
        Row(
            "router, zero-cost shard, first token of one stream",
            "< 1 ms",
            f"{first:.2f} ms",
            first < 1,
            "whole request, shard and client included",
        ),
    ]


def many_streams(streams: int = 1000, tokens: int = 1000) -> list[Row]:
    """A thousand streams at once; the client fails when one of them does not end with its last token."""
    limits = ["--max-concurrent-requests", str(streams), "--max-batch-size", str(streams)]
    result, peak_mib = zero_cost_streams(streams, tokens, *limits)
    wait_s, peak_mb = result["longest_wait_ms"] / 1000, peak_mib * 1.048576
    return [
        Row(
            f"{streams:,} concurrent streams of {tokens:,} tokens, zero-cost shard",
            "all finish, no stall > 1 s, < 300 MB",
            f"all, longest {wait_s:.2f} s, {peak_mb:.0f} MB",
            wait_s < 1 and peak_mb < 300,
            f"first token included; {result['tokens_per_second']:,.0f} tokens/s; peak of the router",
        )
    ]


def zero_cost_streams(streams: int, tokens: int, *flags: str) -> tuple[dict[str, float], float]:
    """What the Rust client measured, and the router's peak memory in MiB."""
    with router_on_zero_cost_shard(*flags) as router:
        address = router.url.removeprefix("http://")
        bench = [*CARGO, "-p", "text-generation-router", "--bench", "streams", "--", address, str(streams), str(tokens)]
        return json.loads(run(bench).splitlines()[-1]), router.peak_mib()


def family_lines() -> list[Row]:
    """What a family with images costs: its file in the router, its file in the server, and three table rows."""
    rust, python = REPOSITORY / "router/src/families", REPOSITORY / "server/text_generation_server/models"
    names = [path.stem for path in rust.glob("*.rs") if (python / f"{path.stem}.py").is_file()]
    lines = {name: 3 + count_lines(rust / f"{name}.rs") + count_lines(python / f"{name}.py") for name in names}
    median, largest = statistics.median(lines.values()), max(lines, key=lambda name: lines[name])
    note = f"{len(lines)} families; the longest is {largest} with {lines[largest]}"
    goal = "lines a family adds, both languages, without tests"
    return [Row(goal, "median ≤ 150", f"{median:.0f}", median <= 150, note)]


def count_lines(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text().splitlines())


def loading() -> list[Row]:
    """A checkpoint of 500 MB: load time beside reading its file, and memory beside the weights of one of two ranks."""
    reading, seconds, weights, peak = load_and_read()
    factor, extra = seconds / reading, (peak - weights) / 1e6
    note = f"{seconds:.2f} s against {reading:.2f} s"
    return [
        Row(
            "load a 500 MB checkpoint, page cache warm",
            "≤ 1.5 × reading the file",
            f"{factor:.2f} ×",
            factor <= 1.5,
            note,
        ),
        Row(
            "peak memory while loading, 2 ranks",
            "≤ weights of the rank + 256 MB",
            f"weights + {extra:.0f} MB",
            extra <= 256,
            f"{weights / 1e6:.0f} MB of weights; pages of the mapped file are not counted",
        ),
    ]


def start_up(rounds: int = 3) -> list[Row]:
    """Launch to ready with the embedded model, and what stays resident."""
    times, sizes = [], []
    for _ in range(rounds):
        with launched() as server:
            times.append(server.seconds_to_ready)
            sizes.append(server.resident_mib())
    seconds, size = statistics.median(times), statistics.median(sizes)
    return [
        Row("start to ready, embedded model", "< 5 s", f"{seconds:.2f} s", seconds < 5, f"median of {rounds}"),
        Row("launcher + router resident", "< 100 MB", f"{size:.0f} MiB", size * 1.048576 < 100),
    ]


def one_sequence(server: Server) -> list[Row]:
    """What a decode step takes beyond the model, one step ahead."""
    load(server.url, ["Hello"], 1, 64)
    before = forward(server)
    result = load(server.url, [f"Hello {number}" for number in range(4)], 1, 256)
    after = forward(server)
    model = 1000 * (after[0] - before[0]) / (after[1] - before[1])
    step = statistics.fmean(gap for stream in result.streams for gap in stream.gaps) * 1000
    over = step - model
    note = f"step {step:.2f} ms, model {model:.2f} ms"
    return [Row("step overhead at one sequence, one step ahead", "< 0.3 ms", f"{over:.2f} ms", over < 0.3, note)]


def forward(server: Server) -> tuple[float, float]:
    """Seconds in the model and number of decode steps so far."""
    name, labels = "tgi_batch_forward_duration", 'method="decode"'
    return server.metric(f"{name}_sum", labels), server.metric(f"{name}_count", labels)


def concurrent_images(server: Server, requests: int = 32, tokens: int = 32) -> list[Row]:
    """Eight requests at once against one at a time, every picture unique."""
    seeds = iter(range(10_000))
    prompts = lambda: [f"![]({data_uri(drawing(next(seeds)))})What is in this picture?" for _ in range(requests)]  # noqa: E731
    load(server.url, prompts()[:4], 4, tokens)
    alone = load(server.url, prompts(), 1, tokens).tokens_per_second
    together = load(server.url, prompts(), 8, tokens).tokens_per_second
    factor = together / alone
    note = f"{together:.0f} against {alone:.0f} tokens/s"
    return [
        Row("8 concurrent image requests, unique pictures", "≥ 4 × one at a time", f"{factor:.1f} ×", factor >= 4, note)
    ]


def grammar_masks() -> list[Row]:
    """Masks and compiling over a vocabulary of the size that large models have."""
    vocabulary = grammars.tokenizer()
    times, compiled = grammars.mask_times(vocabulary), grammars.compile_ms(vocabulary)
    mask = f"{times.median_us / 1000:.3f} ms"
    note = f"median of {times.tokens} tokens, taking the token included; p99 {times.p99_us / 1000:.2f} ms"
    return [
        Row("mask a token, 100-property schema, 151,936 tokens", "< 0.1 ms", mask, times.median_us < 100, note),
        Row("compile the VLM page's schema and its first mask", "< 5 ms", f"{compiled:.2f} ms", compiled < 5, "median"),
    ]


def guided_stream(server: Server, tokens: int = 256) -> list[Row]:
    """Streams whose every token is masked and none forced, in turn with free ones, and refusals of costly grammars."""
    prompts = [f"Hello {number}" for number in range(6)]
    held: dict[str, object] = {"grammar": {"type": "json", "value": {"type": "string", "minLength": 8 * tokens}}}
    load(server.url, prompts, 1, tokens, held)
    rounds = [[load(server.url, prompts, 1, tokens, more).tokens_per_second for more in (held, None)] for _ in range(5)]
    rates = sorted(rounds, key=lambda pair: pair[0] / pair[1])[len(rounds) // 2]
    slowest = max(refusal_s(server, value) for value in ("(a{1000}){1000}", "(" * 100_000, "a" * 2_000_000))
    note = f"{rates[0]:.0f} against {rates[1]:.0f} tokens/s, the middle one of 5 rounds"
    share = rates[0] / rates[1]
    return [
        Row("guided stream, one sequence", "≥ 0.9 × a free one", f"{share:.2f} ×", share >= 0.9, note),
        Row("costly or huge grammar refused", "< 2 s", f"{slowest:.2f} s", slowest < 2, "slowest of 3"),
    ]


def refusal_s(server: Server, expression: str) -> float:
    """Seconds until the server refuses a regular expression."""
    grammar = {"type": "regex", "value": expression}
    body = {"inputs": "x", "parameters": {"max_new_tokens": 1, "grammar": grammar}}
    started = time.perf_counter()
    reply = requests.post(f"{server.url}/generate", json=body, timeout=30)
    if reply.status_code != 422:
        raise RuntimeError(f"{expression[:20]}… was answered with {reply.status_code}")
    return time.perf_counter() - started


ALONE: tuple[Callable[[], list[Row]], ...] = (
    family_lines,
    scheduler,
    pages,
    grammar_masks,
    router_alone,
    many_streams,
    loading,
    start_up,
)
SERVED: tuple[Callable[[Server], list[Row]], ...] = (one_sequence, guided_stream, concurrent_images)
"""Those that share a server."""


def everything(only: str = "") -> list[Row]:
    """All measures whose names contain `only`, those that share a server last."""
    rows: list[Row] = []
    for measure in ALONE:
        if only in measure.__name__:
            rows += announced(measure.__name__, measure)
    served = [measure for measure in SERVED if only in measure.__name__]
    if not served:
        return rows
    with launched() as server:
        time.sleep(1)
        for one in served:
            rows += announced(one.__name__, partial(one, server))
    return rows


def announced(name: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """Runs a measure and says so."""
    print(f"measuring {name} …", flush=True)  # noqa: T201
    rows = measure()
    for row in rows:
        print(f"  {row.measure}: {row.measured} (reach {row.reach}) {row.note}", flush=True)  # noqa: T201
    return rows


def run(command: list[str]) -> str:
    """What a command prints. Raises with its error output when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


__all__ = ["Row", "everything"]
