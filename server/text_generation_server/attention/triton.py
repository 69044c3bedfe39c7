"""Paged attention by our own Triton kernels: needs a GPU of CUDA or ROCm, and nothing to be built.

A step is two launches a layer: tokens that prefill, in tiles of many tokens, and rows that decode, whose keys are
split among programs so that few rows fill the device (Flash-Decoding, https://pytorch.org/blog/flash-decoding/). What
describes the step goes to the device in one copy, into buffers that keep their place.

A captured step is launched for the longest rows there may be: its number of splits depends on the number of rows alone.
A row that is shorter leaves programs without work, which end after a few loads. That is chosen over graphs for several
lengths, which would take their capture's time and memory several times: one row must have enough programs for the
whole device whatever its length, or its keys are not read at the speed of memory, and a program without work costs a
row that reads few keys anyway next to nothing. How it compares on a GPU was never measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from torch import Tensor

from text_generation_server.attention.base import AttentionBackend, AttentionShape, Bounds, StepLayout
from text_generation_server.attention.kernels import attend_kernel, join_kernel, store_kernel
from text_generation_server.transfers import Transfers

INTERPRETED = bool(triton.knobs.runtime.interpret)
"""Whether the kernels run on the CPU, for tests: Triton's interpreter, which cannot multiply bfloat16."""

PREFILL_LINES = 64
"""Query lines of a tile: tokens times the heads that share a key head."""

KEYS_A_TURN = 64
HEADS_A_PROGRAM = 8
MIN_LINES = 16
"""Matrix units take no fewer."""

NO_WINDOW = 1 << 30
"""Wider than any sequence, and far from the end of 32 bits."""

MAX_SPLITS = 32
KEYS_A_SPLIT = 4 * KEYS_A_TURN
"""A split of fewer keys costs more than it gives."""

PROGRAMS_WANTED = 264
"""Twice the multiprocessors of a large GPU."""

ALIGNMENT = 16
"""Numbers that a part of `StepBuffers` is filled up to, so that loads stay aligned."""

ROW_PARTS = 5
"""Parts that a step of decoding rows has beside the blocks."""


@dataclass(frozen=True)
class Tiles:
    """What one launch computes."""

    rows: Tensor
    offsets: Tensor
    lines: int
    tokens: int
    splits: int
    ranges: bool = False
    """Whether tokens of a range see each other. A row that decodes has no use for it."""


class TritonAttention(AttentionBackend):
    """Kernels for bf16, f16 and f32, head widths up to 256."""

    supported_block_sizes = (16, 32, 64, 8, 1)
    can_be_captured = True

    def __init__(self, shape: AttentionShape, cache_L2BSKD: Tensor) -> None:
        super().__init__(shape, cache_L2BSKD)
        self._device = cache_L2BSKD.device
        self._block_size = cache_L2BSKD.shape[3]
        self._layers = [(layer[0], layer[1]) for layer in cache_L2BSKD]
        self._group = shape.num_heads // shape.num_kv_heads
        self._decode_lines = max(MIN_LINES, triton.next_power_of_2(self._group))
        self._prefill_lines = max(PREFILL_LINES, self._decode_lines)
        self._buffers = StepBuffers(self._device)
        self._captured_buffers: StepBuffers | None = None
        # What splits collect, float32: weighted values, then maxima, then sums of weights. There are never more of them
        # than programs are wanted, so that this keeps its place too.
        lines = PROGRAMS_WANTED * self._group
        sizes = [lines * shape.head_dim, lines, lines]
        self._partial = torch.split_with_sizes(torch.empty(sum(sizes), device=self._device), sizes)

    def begin_step(self, layout: StepLayout) -> None:
        decoding_R = layout.num_tokens_R == 1
        decode_rows, prefill_rows = np.flatnonzero(decoding_R), np.flatnonzero(~decoding_R)
        tokens = self._prefill_lines // self._group
        tile_rows, tile_offsets = _cut(layout, prefill_rows, tokens)
        ends_R = np.cumsum(layout.num_tokens_R)
        parts = {
            "counts": layout.num_tokens_R,
            "starts": layout.starts_R,
            "first_tokens": ends_R - layout.num_tokens_R,
            "decode_rows": decode_rows,
            "decode_offsets": np.zeros_like(decode_rows),
            "prefill_rows": tile_rows,
            "prefill_offsets": tile_offsets,
        }
        if layout.both_ways:
            parts["range_firsts"], parts["range_ends"] = _ranges(layout, ends_R)
        # Last and block by block, because only its length differs between replays.
        parts["blocks"] = layout.blocks_RB.T
        step = self._buffers_for(layout.captured).fill(parts)
        self._step, self._slots_T, self._num_rows = step, layout.slots_T, len(layout.num_tokens_R)
        decode = Tiles(
            step["decode_rows"], step["decode_offsets"], self._decode_lines, 1, self._splits(layout, decode_rows)
        )
        prefill = Tiles(step["prefill_rows"], step["prefill_offsets"], self._prefill_lines, tokens, 1)
        prefill = replace(prefill, ranges=bool(layout.both_ways))
        self._tiles = [tiles for tiles in (decode, prefill) if len(tiles.rows)]

    def attend(self, q_TND: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int) -> Tensor:
        return self._attend(torch.cat((q_TND, k_TKD, v_TKD), 1), None, layer)

    def rotate_and_attend(self, heads_TND: Tensor, table_T21D: Tensor, layer: int) -> Tensor:
        return self._attend(heads_TND, table_T21D, layer)

    def _attend(self, heads_TND: Tensor, table: Tensor | None, layer: int) -> Tensor:
        keys, values = self._layers[layer]
        num_tokens, num_heads, head_dim = heads_TND.shape
        half = triton.next_power_of_2(head_dim // 2)
        store_kernel[(num_tokens, triton.cdiv(num_heads, HEADS_A_PROGRAM))](
            heads_TND, heads_TND if table is None else table, self._slots_T, keys, values,
            heads_TND.stride(0), keys.stride(1),
            NUM_HEADS=self.shape.num_heads, NUM_KV_HEADS=self.shape.num_kv_heads, HEAD_DIM=head_dim,
            SIZE_H=HEADS_A_PROGRAM, SIZE_E=half, ROTATE=table is not None,
        )  # fmt: skip
        output_TND = torch.empty(
            (num_tokens, self.shape.num_heads, head_dim), dtype=heads_TND.dtype, device=self._device
        )
        for tiles in self._tiles:
            self._launch(tiles, heads_TND, output_TND, layer)
        return output_TND

    def _launch(self, tiles: Tiles, heads_TND: Tensor, output_TND: Tensor, layer: int) -> None:
        keys, values = self._layers[layer]
        shape, step = self.shape, self._step
        no_ranges = step["counts"]
        width = triton.next_power_of_2(shape.head_dim)
        attend_kernel[(len(tiles.rows), shape.num_kv_heads, tiles.splits)](
            heads_TND, keys, values, output_TND, *self._partial,
            tiles.rows, tiles.offsets, step["first_tokens"], step["counts"], step["starts"], step["blocks"],
            step.get("range_firsts", no_ranges), step.get("range_ends", no_ranges),
            heads_TND.stride(0), output_TND.stride(0), keys.stride(1), self._num_rows,
            shape.scale, shape.softcap or 1.0, shape.windows[layer] or NO_WINDOW,
            GROUP=self._group, TOKENS=tiles.tokens, HEAD_DIM=shape.head_dim, BLOCK_SIZE=self._block_size,
            SIZE_M=tiles.lines, SIZE_L=KEYS_A_TURN, SIZE_D=width, SPLITS=tiles.splits,
            MIN_TURNS=KEYS_A_SPLIT // KEYS_A_TURN, SOFTCAP=shape.softcap is not None, RANGES=tiles.ranges,
            RANGES_FIRST=shape.ranges_ignore_windows, WIDEN=INTERPRETED,
        )  # fmt: skip
        if tiles.splits > 1:
            join_kernel[(len(tiles.rows), shape.num_heads)](
                *self._partial, output_TND, tiles.rows, step["first_tokens"],
                output_TND.stride(0),
                HEAD_DIM=shape.head_dim, SIZE_D=width, SPLITS=tiles.splits,
            )  # fmt: skip

    def _splits(self, layout: StepLayout, rows: NDArray[np.int64]) -> int:
        """Splits of each decoding row's keys: enough programs for the device, enough keys for a program.

        A power of two, so that few kernels are compiled.
        """
        programs = max(1, len(rows) * self.shape.num_kv_heads)
        blocks = layout.blocks_RB.shape[1] if layout.captured is None else layout.captured.max_blocks
        most = min(PROGRAMS_WANTED // programs, blocks * self._block_size // KEYS_A_SPLIT, MAX_SPLITS)
        return 1 << max(0, most.bit_length() - 1)

    def _buffers_for(self, bounds: Bounds | None) -> StepBuffers:
        if bounds is None:
            return self._buffers
        if self._captured_buffers is None:
            self._captured_buffers = StepBuffers(self._device, _captured_size(bounds))
        return self._captured_buffers


class StepBuffers:
    """Whole numbers that describe a step, on the device: one copy a step, into memory that stays where it is.

    A graph that was captured with parts of some sizes is replayed after a `fill` with parts of the same sizes; the last
    of them may be shorter or longer.
    """

    def __init__(self, device: torch.device, size: int | None = None) -> None:
        """Grows as it needs to, unless a size is given."""
        self._device = device
        self._transfers = Transfers(device)
        self._grows = size is None
        self._on_device = torch.zeros(size or 0, dtype=torch.int32, device=device)

    def fill(self, parts: Mapping[str, NDArray[np.integer[Any]]]) -> dict[str, Tensor]:
        """Each part, flat, on the device. What an earlier call returned holds the new numbers from now on."""
        ends = np.cumsum([_aligned(part.size) for part in parts.values()])
        self._reserve(int(ends[-1]))
        host = np.zeros(int(ends[-1]), dtype=np.int32)
        found = {}
        for (name, part), end in zip(parts.items(), ends.tolist(), strict=True):
            start = end - _aligned(part.size)
            host[start : start + part.size] = part.reshape(-1)
            found[name] = self._on_device[start : start + part.size]
        self._transfers.overwrite(self._on_device, host)
        return found

    def _reserve(self, size: int) -> None:
        if len(self._on_device) >= size:
            return
        if not self._grows:
            raise ValueError(f"a captured step has {len(self._on_device)} numbers at most, not {size}")
        self._on_device = torch.empty(triton.next_power_of_2(size), dtype=torch.int32, device=self._device)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _captured_size(bounds: Bounds) -> int:
    """Numbers of the largest captured step: its rows' tables, and what else each row has one of."""
    rows = _aligned(bounds.max_rows)
    return ROW_PARTS * rows + _aligned(bounds.max_rows * bounds.max_blocks)


def _cut(layout: StepLayout, rows: NDArray[np.int64], tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tiles of rows that prefill: each one's row, and its first token within the row."""
    tiles_R = -(-layout.num_tokens_R[rows] // tokens)
    index = np.arange(int(tiles_R.sum())) - np.repeat(np.cumsum(tiles_R) - tiles_R, tiles_R)
    return np.repeat(rows, tiles_R), index * tokens


def _ranges(layout: StepLayout, ends_R: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Position of the first token of each token's range, and of the first behind it; 0 and 0 without a range."""
    firsts_T, behind_T = np.zeros((2, int(ends_R[-1])), dtype=np.int64)
    for row, ranges in layout.both_ways.items():
        token, start = int(ends_R[row] - layout.num_tokens_R[row]), int(layout.starts_R[row])
        for offset, length in ranges:
            firsts_T[token + offset : token + offset + length] = start + offset
            behind_T[token + offset : token + offset + length] = start + offset + length
    return firsts_T, behind_T
