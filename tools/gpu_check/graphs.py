"""Part b: decode steps that were captured as CUDA graphs against the same steps launched one by one."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from gpu_check.loaded import load, text
from gpu_check.place import Place
from gpu_check.rows import NotHere, Row
from text_generation_server.plan import Sampling, StepResult

MODULE = "text_generation_server.cuda_graphs"
REPLAY = "cudaGraphLaunch"
BATCHES = (1, 3, 8, 64)
"""Sizes that are captured, and one that is filled up."""
TIE = 0.05
"""Nats between the best two tokens below which either is as good: other shapes choose other kernels, and these round
differently."""
BEST_TWO = Sampling(num_top_tokens=2)


@dataclass(frozen=True)
class Answers:
    """Of every batch size: each step's tokens, and how far the second best of each was behind."""

    tokens: dict[int, list[list[int]]]
    gaps: dict[int, list[list[float]]]


def parts(place: Place) -> Iterator[Row]:
    """Answers with and without, and whether there was anything to compare."""
    if find_spec(MODULE) is None:
        raise NotHere(f"this tree has no {MODULE}")
    batches = tuple(size for size in BATCHES if size <= place.pick(64, 3))
    launched, _ = answers(place, batches, captured=False)
    replayed, calls = answers(place, batches, captured=True)
    yield Row(
        "steps are replayed", "yes" if REPLAY in calls else "no", place.holds(REPLAY in calls), f"{REPLAY} is called"
    )
    for size in batches:
        yield compared(size, launched, replayed)


def answers(place: Place, batches: tuple[int, ...], *, captured: bool) -> tuple[Answers, set[str]]:
    """Greedy tokens, and what the host called in one more step of the last batch."""
    loaded = load(place, cuda_graphs=None if captured else ())
    found, calls = Answers({}, {}), set[str]()
    for size in batches:
        prompts = {name: text(20 + 7 * name, name) for name in range(1, size + 1)}
        first = loaded.prefill(prompts, together=size, sampling=BEST_TWO)
        steps = first + [loaded.decode() for _ in range(place.pick(48, 4))]
        found.tokens[size] = [step.sampled.token_ids for step in steps]
        found.gaps[size] = [gaps_of(step) for step in steps]
        calls = place.host_calls(loaded.decode)
        loaded.forget()
    del loaded
    gc.collect()
    if not place.tiny:
        torch.cuda.empty_cache()
    return found, calls


def gaps_of(step: StepResult) -> list[float]:
    """Of each row, how far the second best token was behind."""
    best = step.sampled.top_logprobs
    return [first - second for first, second in zip(best[::2], best[1::2], strict=True)]


def compared(size: int, one: Answers, other: Answers) -> Row:
    """Sequences of a batch may part only where two tokens were as good."""
    apart, worst = 0, 0.0
    for row in range(size):
        for step, tokens in enumerate(one.tokens[size]):
            if tokens[row] != other.tokens[size][step][row]:
                apart, worst = apart + 1, max(worst, one.gaps[size][step][row])
                break
    measured = f"{size - apart} of {size} sequences equal, {len(one.tokens[size])} tokens each"
    note = f"the others part where the second token is {worst:.3f} nats behind" if apart else ""
    return Row(
        f"a batch of {size}", measured, worst < TIE, f"equal, or apart after a tie of less than {TIE} nats", note
    )
