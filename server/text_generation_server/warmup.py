"""The largest work a router may send, made of blanks, and what it takes of the device's memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NoReturn

import numpy as np
import torch

from text_generation_server.images import ImageEncoder, blank_image
from text_generation_server.memory import NoRoom
from text_generation_server.plan import (
    Failure,
    FailureKind,
    ImageHeader,
    Ints,
    NewSequence,
    RowFlag,
    Rows,
    Sampling,
    Spans,
    StepPlan,
    WarmupRequest,
)
from text_generation_server.validation import MAX_TOP_TOKENS

MAX_CPU_TOKENS = 256
"""On a CPU the step only fills kernel caches: there is no device memory to divide, and start-up should be short."""

MAX_CPU_PIXELS = 1 << 20
"""A larger image is not encoded there either: encoders that take images as they are need minutes for their largest."""


SAMPLING_ALL = Sampling(greedy=False, temperature=0.5, top_k=50, top_p=0.9, typical_p=0.9)
"""What makes choosing a token take the most memory."""


class Meter:
    """Bytes that torch has taken of a device. Nobody asks a CPU: there the KV cache has a size of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.on_cpu = device.type == "cpu"

    def start(self) -> int:
        """Gives back what is not in use; the peak begins at what is left, which is returned."""
        if self.on_cpu:
            return 0
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        return torch.cuda.memory_reserved(self._device)

    def peak(self) -> int:
        """The most since `start`. Reserved and not only in use: gaps between tensors are taken from others as well."""
        return 0 if self.on_cpu else torch.cuda.max_memory_reserved(self._device)

    def total_and_others(self) -> tuple[int, int]:
        """Bytes of the device, and those that are neither free nor torch's."""
        free, total = torch.cuda.mem_get_info(self._device)
        return total, total - free - torch.cuda.memory_reserved(self._device)


def largest_tokens(request: WarmupRequest, device: torch.device) -> list[int]:
    """Tokens of each prompt row of the largest step."""
    tokens = request.max_step_tokens
    if device.type == "cpu":
        tokens = min(tokens, MAX_CPU_TOKENS)
    longest = request.max_sequence_tokens
    rows = [longest] * (tokens // longest) + [tokens % longest] * (tokens % longest > 0)
    return rows[: request.max_rows]


def warm_up_plans(rows: list[int], block_size: int, device: torch.device) -> Iterator[StepPlan]:
    """The largest prefill, then a decode step of the rows that have room for one.

    The first prompt is scored, because that takes memory; where none is divided it would only take time.
    """
    decoding = [row for row, count in enumerate(rows) if count > 1]
    yield _plan(0, rows, block_size, scored=device.type != "cpu")
    if decoding:
        yield _decode(1, decoding, rows)


def crowded_plan(request: WarmupRequest, step: int) -> StepPlan:
    """As many rows as there may be, of a token each, that all sample in the costliest way: scores of a whole vocabulary
    for each of them may take more than a long prompt does."""
    rows = [1] * min(request.max_rows, request.max_step_tokens)
    return replace(_plan(step, rows, request.block_size, scored=False), new_sequences=_sampling(len(rows)))


def _sampling(count: int) -> list[NewSequence]:
    return [NewSequence(row, SAMPLING_ALL, _ints([])) for row in range(count)]


def largest_images(request: WarmupRequest, device: torch.device) -> int:
    """How many of the largest image a step may encode; on a CPU one is enough, if it is not too large."""
    largest = request.largest_image
    if largest is None:
        return 0
    if device.type == "cpu":
        return int(sum(view.width * view.height for view in largest.views) <= MAX_CPU_PIXELS)
    return max(1, request.max_step_image_tokens // max(1, largest.num_tokens))


def encode_largest(encoder: ImageEncoder, largest: ImageHeader, count: int) -> None:
    """Encodes so many of the largest image.

    Raises:
        torch.OutOfMemoryError: there is no memory for them.
        NoRoom: the model does not take them.
    """
    keys = [number.to_bytes(4, "little") for number in range(count)]
    encoded = encoder.embed({key: blank_image(key, largest) for key in keys})
    for embedding in encoded.values():
        if isinstance(embedding, Failure):
            raise_failure(embedding, f"{count} images of the largest size cannot be encoded")


def raise_failure(failure: Failure, what: str) -> NoReturn:
    """A failure of the warm-up: memory that ran out is told from everything else."""
    if failure.kind == FailureKind.OUT_OF_MEMORY:
        raise torch.OutOfMemoryError(what)
    raise NoRoom(f"{what}: {failure.message}")


def _plan(step: int, rows: list[int], block_size: int, scored: bool) -> StepPlan:
    blocks = [-(-count // block_size) for count in rows]
    new = [NewSequence(row, Sampling(), _ints([])) for row in range(len(rows))]
    flags = [int(RowFlag.SAMPLE | RowFlag.RESET_BLOCKS)] * len(rows)
    if scored and rows:
        new[0] = NewSequence(0, Sampling(), _ints([0] * rows[0]), prompt_num_top=MAX_TOP_TOKENS)
        flags[0] |= int(RowFlag.SCORE)
    return StepPlan(
        epoch=0,
        step=step,
        forget_sequences=[],
        forget_images=[],
        new_sequences=new,
        encode_images=[],
        rows=Rows(
            sequences=list(range(len(rows))),
            num_tokens_R=_ints(rows),
            starts_R=_ints([0] * len(rows)),
            flags_R=_ints(flags),
            num_new_blocks_R=_ints(blocks),
            new_blocks=np.arange(sum(blocks)),
            token_ids_T=_ints([0] * sum(rows)),
            positions_AT=None,
            spans=NO_SPANS,
        ),
    )


def _decode(step: int, decoding: list[int], rows: list[int]) -> StepPlan:
    count = len(decoding)
    return StepPlan(
        epoch=0,
        step=step,
        forget_sequences=[],
        forget_images=[],
        new_sequences=[],
        encode_images=[],
        rows=Rows(
            sequences=decoding,
            num_tokens_R=_ints([1] * count),
            # The last prompt token once more: it always has room.
            starts_R=_ints([rows[row] - 1 for row in decoding]),
            flags_R=_ints([int(RowFlag.SAMPLE | RowFlag.USE_SAMPLED_TOKEN)] * count),
            num_new_blocks_R=_ints([0] * count),
            new_blocks=_ints([]),
            token_ids_T=_ints([0] * count),
            positions_AT=None,
            spans=NO_SPANS,
        ),
    )


def _ints(numbers: list[int]) -> Ints:
    return np.array(numbers, dtype=np.int64)


NO_SPANS = Spans(_ints([]), _ints([]), _ints([]), _ints([]), [])
