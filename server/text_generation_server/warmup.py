"""The largest step a router may send, made of blanks, and what it leaves for the KV cache."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from text_generation_server.images import ImageEncoder, blank_image
from text_generation_server.plan import (
    Failure,
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


class NoRoom(Exception):
    """The largest step does not fit into the device's memory."""


def largest_tokens(request: WarmupRequest, device: torch.device) -> list[int]:
    """Tokens of each prompt row of the largest step."""
    tokens = request.max_step_tokens
    if device.type == "cpu":
        tokens = min(tokens, MAX_CPU_TOKENS)
    longest = request.max_sequence_tokens
    rows = [longest] * (tokens // longest) + [tokens % longest] * (tokens % longest > 0)
    return rows[: request.max_rows]


def blocks_for(rows: list[int], block_size: int) -> int:
    """Blocks the rows own."""
    return sum(-(-count // block_size) for count in rows)


def warm_up_plans(rows: list[int], block_size: int, device: torch.device) -> Iterator[StepPlan]:
    """The largest prefill, then a decode step of the rows that have room for one.

    The first prompt is scored, because that takes memory; where none is divided it would only take time.
    """
    decoding = [row for row, count in enumerate(rows) if count > 1]
    yield _plan(0, rows, block_size, scored=device.type != "cpu")
    if decoding:
        yield _decode(1, decoding, rows)


def encode_largest(encoder: ImageEncoder, request: WarmupRequest, device: torch.device) -> None:
    """Encodes as many of the largest image as a step may hold; on a CPU one is enough, if it is not too large."""
    largest = request.largest_image
    if largest is None or not encoder.takes_images:
        return
    if device.type == "cpu" and sum(view.width * view.height for view in largest.views) > MAX_CPU_PIXELS:
        return
    count = 1
    if device.type != "cpu":
        first = encoder.embed({b"": blank_image(b"", largest)})[b""]
        tokens = 1 if isinstance(first, Failure) else len(first)
        count = max(1, request.max_step_image_tokens // tokens)
    keys = [number.to_bytes(4, "little") for number in range(count)]
    encoded = encoder.embed({key: blank_image(key, largest) for key in keys})
    for embedding in encoded.values():
        if isinstance(embedding, Failure):
            raise NoRoom(f"{count} images of the largest size cannot be encoded: {embedding.message}")


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
