"""Paged attention in plain PyTorch: runs on any device, and is what every other backend is compared with.

Rows with one token are decoded together, in groups of similar length, each a padded gather and one product.
A longer row is computed alone; one that starts its sequence needs no gather at all.

Suffixes: G query heads a key/value head, B rows of a group, L cached tokens a row sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from text_generation_server.attention.base import (
    AttentionBackend,
    AttentionShape,
    StepLayout,
    TokenIndex,
    token_index,
)
from text_generation_server.transfers import Transfers

MAX_PADDING = 2
"""A group's longest row has at most this many times the blocks of its shortest, or `SMALL_BLOCKS`."""

SMALL_BLOCKS = 8


@dataclass
class Group:
    """Rows computed by one call. `blocks` is None for a row whose tokens are all in this step."""

    tokens: TokenIndex
    queries: int
    starts: NDArray[np.int64]
    blocks: Tensor | None
    shape: tuple[int, int]
    both_ways: Sequence[tuple[int, int]] = ()
    """Offset and length of ranges of the queries that see each other. Only a group of one row has some."""
    masks: dict[int | None, Tensor | None] = field(default_factory=dict)


class TorchAttention(AttentionBackend):
    """The oracle."""

    supported_block_sizes = (16, 8, 32, 64, 1)

    def __init__(self, shape: AttentionShape, cache_L2BSKD: Tensor) -> None:
        super().__init__(shape, cache_L2BSKD)
        self._block_size = cache_L2BSKD.shape[3]
        self._zero_block = cache_L2BSKD.shape[2] - 1
        self._device = cache_L2BSKD.device
        self._transfers = Transfers(self._device)
        self._blocks = [(layer[0], layer[1]) for layer in cache_L2BSKD]
        self._slots = [(keys.flatten(0, 1), values.flatten(0, 1)) for keys, values in self._blocks]
        self._groups: list[Group] = []
        self._slots_T = torch.empty(0, dtype=torch.int64)

    def begin_step(self, layout: StepLayout) -> None:
        self._slots_T = layout.slots_T
        ends_R = np.cumsum(layout.num_tokens_R)
        decoding = np.flatnonzero(layout.num_tokens_R == 1)
        similar = _by_length(layout, decoding, self._block_size)
        groups = [self._decode_group(layout, rows, ends_R - 1) for rows in similar]
        longer = np.flatnonzero(layout.num_tokens_R > 1)
        self._groups = groups + [self._prefill_row(layout, int(row), int(ends_R[row])) for row in longer]

    def attend(self, q_TND: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int) -> Tensor:
        keys_SKD, values_SKD = self._slots[layer]
        keys_SKD.index_copy_(0, self._slots_T, k_TKD)
        values_SKD.index_copy_(0, self._slots_T, v_TKD)
        if len(self._groups) == 1:
            return self._attend_group(self._groups[0], (q_TND, k_TKD, v_TKD), layer)
        output_TND = torch.empty_like(q_TND, memory_format=torch.contiguous_format)
        for group in self._groups:
            part = (q_TND[group.tokens], k_TKD[group.tokens], v_TKD[group.tokens])
            output_TND[group.tokens] = self._attend_group(group, part, layer)
        return output_TND

    def _decode_group(self, layout: StepLayout, rows: NDArray[np.int64], token_of_R: NDArray[np.int64]) -> Group:
        lengths = layout.starts_R[rows] + 1
        longest = -(-int(lengths.max()) // self._block_size)
        blocks = layout.blocks_RB[rows, :longest]
        unused = np.arange(longest) * self._block_size >= lengths[:, None]
        # Another sequence's block could hold a NaN, and 0 * NaN is not 0.
        blocks = np.where(unused, self._zero_block, blocks)
        shape = (len(rows), longest * self._block_size if len(rows) > 1 else int(lengths[0]))
        return Group(
            token_index(token_of_R[rows], self._transfers), 1, layout.starts_R[rows], self._to_device(blocks), shape
        )

    def _prefill_row(self, layout: StepLayout, row: int, end: int) -> Group:
        count, start = int(layout.num_tokens_R[row]), int(layout.starts_R[row])
        tokens = slice(end - count, end)
        blocks = None
        if start:
            blocks = self._to_device(layout.blocks_RB[row : row + 1, : -(-(start + count) // self._block_size)])
        ranges = layout.both_ways.get(row, ())
        return Group(tokens, count, layout.starts_R[row : row + 1], blocks, (1, start + count), ranges)

    def _to_device(self, blocks: NDArray[np.int32]) -> Tensor:
        return self._transfers.one(blocks.reshape(-1))

    def _attend_group(self, group: Group, step_QKV: tuple[Tensor, Tensor, Tensor], layer: int) -> Tensor:
        keys_BLKD, values_BLKD = step_QKV[1].unsqueeze(0), step_QKV[2].unsqueeze(0)
        if group.blocks is not None:
            keys_BLKD, values_BLKD = (self._gather(side, group) for side in self._blocks[layer])
        mask = self._mask(group, self.shape.windows[layer], step_QKV[0].dtype)
        if group.queries == 1:
            return self._decode(step_QKV[0], keys_BLKD, values_BLKD, mask)
        return self._prefill(step_QKV[0], keys_BLKD, values_BLKD, mask)

    def _gather(self, blocks_BSKD: Tensor, group: Group) -> Tensor:
        rows, length = group.shape
        gathered = blocks_BSKD.index_select(0, group.blocks)  # type: ignore[arg-type]
        return gathered.view(rows, -1, *blocks_BSKD.shape[2:])[:, :length]

    def _decode(self, q_BND: Tensor, keys_BLKD: Tensor, values_BLKD: Tensor, mask: Tensor | None) -> Tensor:
        # The query heads that share a key head are treated as queries of it, so nothing is repeated.
        q_BKGD = q_BND.reshape(len(q_BND), self.shape.num_kv_heads, -1, self.shape.head_dim)
        output_BKGD = self._product(q_BKGD, keys_BLKD.transpose(1, 2), values_BLKD.transpose(1, 2), mask, False)
        return output_BKGD.flatten(1, 2)

    def _prefill(self, q_TND: Tensor, keys_1LKD: Tensor, values_1LKD: Tensor, mask: Tensor | None) -> Tensor:
        q_1NTD = q_TND.transpose(0, 1).unsqueeze(0)
        causal = mask is None
        output = self._product(q_1NTD, keys_1LKD.transpose(1, 2), values_1LKD.transpose(1, 2), mask, causal)
        return output[0].transpose(0, 1)

    def _product(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        if self.shape.softcap is not None:
            return _softcapped(q, k, v, mask, self.shape)
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=self.shape.scale, enable_gqa=grouped
        )

    def _mask(self, group: Group, window: int | None, dtype: torch.dtype) -> Tensor | None:
        if window not in group.masks:
            group.masks[window] = self._make_mask(group, window, dtype)
        return group.masks[window]

    def _make_mask(self, group: Group, window: int | None, dtype: torch.dtype) -> Tensor | None:
        rows, length = group.shape
        if window is not None and length <= window:
            window = None
        if window is None and self.shape.softcap is None and _sees_everything(group):
            return None
        starts = torch.from_numpy(group.starts)
        query_BQ1 = (starts[:, None] + torch.arange(group.queries))[:, :, None]
        key_L = torch.arange(length)
        hidden = key_L > query_BQ1
        if not self.shape.ranges_ignore_windows:
            _reveal(hidden, group)
        if window is not None:
            hidden |= key_L <= query_BQ1 - window
        if self.shape.ranges_ignore_windows:
            _reveal(hidden, group)
        mask = torch.zeros(rows, 1, group.queries, length).masked_fill_(hidden[:, None], float("-inf"))
        return self._transfers.one(mask.numpy()).to(dtype)


def _reveal(hidden_BQL: Tensor, group: Group) -> None:
    """Within the group's ranges nothing is hidden any more."""
    for offset, length in group.both_ways:
        first = int(group.starts[0]) + offset
        hidden_BQL[:, offset : offset + length, first : first + length] = False


def _sees_everything(group: Group) -> bool:
    # One decoding row is cut to its own length; a row that starts its sequence is plainly causal.
    if group.both_ways:
        return False
    return group.blocks is None or (group.queries == 1 and group.shape == (1, int(group.starts[0]) + 1))


def _by_length(layout: StepLayout, rows: NDArray[np.int64], block_size: int) -> list[NDArray[np.int64]]:
    """Splits decoding rows so that no group pads its shortest row too far."""
    if len(rows) < 2:
        return [rows] if len(rows) else []
    blocks = layout.starts_R[rows] // block_size + 1
    if int(blocks.max()) <= max(SMALL_BLOCKS, MAX_PADDING * int(blocks.min())):
        return [rows]
    # Powers of the padding factor; a stable sort keeps neighbours together.
    level = np.ceil(np.log(np.maximum(blocks, SMALL_BLOCKS)) / np.log(MAX_PADDING)).astype(np.int64)
    return [rows[level == one] for one in np.unique(level)]


def _softcapped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, shape: AttentionShape) -> Tensor:
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    cap = shape.softcap or 1.0
    scores = torch.tanh(q @ k.transpose(-1, -2) * (shape.scale / cap)) * cap
    if mask is not None:
        scores = scores + mask
    return torch.softmax(scores.float(), dim=-1).to(v.dtype) @ v
