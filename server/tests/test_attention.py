"""The `torch` backend, with which others are compared, against attention written down naively."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from driver import ints
from layouts import lay_out
from torch import Tensor

from text_generation_server.attention import UnknownBackend, UnsuitableBackend, choose
from text_generation_server.attention.base import AttentionShape
from text_generation_server.attention.torch import TorchAttention

HEAD_DIM = 16
NUM_TOKENS = 4 * 384


class Dense:
    """Keeps every sequence's keys and values and attends one token and one head at a time."""

    def __init__(self, shape: AttentionShape) -> None:
        self.shape = shape
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def attend(self, sequence: int, qkv: tuple[Tensor, Tensor, Tensor], window: int | None) -> Tensor:
        q, k, v = qkv
        nothing = torch.empty(0, self.shape.num_kv_heads, HEAD_DIM)
        self.keys[sequence] = torch.cat((self.keys.get(sequence, nothing), k[None]))
        self.values[sequence] = torch.cat((self.values.get(sequence, nothing), v[None]))
        first = 0 if window is None else max(0, len(self.keys[sequence]) - window)
        return torch.stack([self._head(q, head, sequence, first) for head in range(self.shape.num_heads)])

    def _head(self, q: Tensor, head: int, sequence: int, first: int) -> Tensor:
        kv_head = head // (self.shape.num_heads // self.shape.num_kv_heads)
        scores = self.keys[sequence][first:, kv_head] @ q[head] * self.shape.scale
        if self.shape.softcap is not None:
            scores = torch.tanh(scores / self.shape.softcap) * self.shape.softcap
        return torch.softmax(scores, 0) @ self.values[sequence][first:, kv_head]


def shape_of(heads: tuple[int, int], window: int | None, softcap: float | None) -> AttentionShape:
    return AttentionShape(
        num_heads=heads[0],
        num_kv_heads=heads[1],
        head_dim=HEAD_DIM,
        scale=HEAD_DIM**-0.5,
        windows=(None, window),
        softcap=softcap,
    )


STEPS = [
    # Tokens of each sequence in each step: prefill, mixed, decode, chunks, a late comer.
    {0: 5, 1: 1, 2: 40},
    {0: 1, 1: 1, 2: 1},
    {0: 7, 1: 1, 2: 1, 3: 33},
    {0: 1, 1: 1, 2: 1, 3: 1},
    {3: 1, 0: 1},
    {1: 90, 0: 1},
    {0: 1, 1: 1, 2: 1, 3: 1},
    {2: 3, 3: 2},
]


@pytest.mark.parametrize("block_size", [16, 8, 1])
@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (3, 1)])
@pytest.mark.parametrize("limits", [(None, None), (9, None), (None, 20.0), (9, 20.0)])
def test_matches_dense(block_size: int, heads: tuple[int, int], limits: tuple[int | None, float | None]) -> None:
    shape = shape_of(heads, *limits)
    num_blocks = NUM_TOKENS // block_size
    cache = torch.zeros(2, 2, num_blocks + 1, block_size, heads[1], HEAD_DIM)
    # What stale blocks hold must not matter, short of what is not finite: the shard clears those.
    cache[:, :, :num_blocks].uniform_(-100, 100)
    paged, dense = TorchAttention(shape, cache), [Dense(shape), Dense(shape)]
    generator = torch.Generator().manual_seed(3)
    tables = np.random.default_rng(5).permutation(num_blocks).reshape(4, -1)
    lengths = np.zeros(4, dtype=np.int64)
    for step in STEPS:
        rows, counts = list(step), ints(step.values())
        paged.begin_step(lay_out(tables[rows], lengths[rows], counts, block_size))
        for layer in range(2):
            size = (int(counts.sum()), heads[0] + 2 * heads[1], HEAD_DIM)
            q, k, v = torch.split(torch.randn(size, generator=generator), [heads[0], heads[1], heads[1]], 1)
            owners = np.repeat(rows, counts).tolist()
            wanted = [dense[layer].attend(s, (q[t], k[t], v[t]), shape.windows[layer]) for t, s in enumerate(owners)]
            torch.testing.assert_close(paged.attend(q, k, v, layer), torch.stack(wanted), atol=1e-4, rtol=1e-4)
        lengths[rows] += counts


class Masked:
    """One sequence, every pair of tokens judged on its own: the rule as `transformers` measures."""

    def __init__(self, shape: AttentionShape, ranges: list[tuple[int, int]]) -> None:
        self.shape = shape
        self.ranges = ranges

    def sees(self, query: int, key: int, window: int | None) -> bool:
        together = any(first <= query < last and first <= key < last for first, last in self.ranges)
        near = window is None or key > query - window
        if self.shape.ranges_ignore_windows:
            return together or (key <= query and near)
        return near and (key <= query or together)

    def attend(self, qkv_TND: Tensor, window: int | None) -> Tensor:
        q_TND, k_TKD, v_TKD = split(qkv_TND, self.shape)
        repeats = self.shape.num_heads // self.shape.num_kv_heads
        k_TND, v_TND = k_TKD.repeat_interleave(repeats, 1), v_TKD.repeat_interleave(repeats, 1)
        scores_NTT = torch.einsum("qnd,knd->nqk", q_TND, k_TND) * self.shape.scale
        if self.shape.softcap is not None:
            scores_NTT = torch.tanh(scores_NTT / self.shape.softcap) * self.shape.softcap
        count = len(q_TND)
        seen = torch.tensor([[self.sees(query, key, window) for key in range(count)] for query in range(count)])
        weights = torch.softmax(scores_NTT.masked_fill(~seen, float("-inf")), -1)
        return torch.einsum("nqk,knd->qnd", weights, v_TND)


def split(qkv_TND: Tensor, shape: AttentionShape) -> tuple[Tensor, ...]:
    return torch.split(qkv_TND, [shape.num_heads, shape.num_kv_heads, shape.num_kv_heads], 1)


LENGTH = 40
RANGES = [(3, 10), (10, 11), (14, 30)]
CUTS = [[], [3], [10], [14, 30], [3, 10, 11, 14, 30, 31], [12], [38, 39]]


@pytest.mark.parametrize("heads", [(6, 2), (3, 1)])
@pytest.mark.parametrize("limits", [(None, None), (4, None), (9, None), (25, 20.0)])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("cuts", CUTS)
def test_ranges_attend_both_ways(
    heads: tuple[int, int], limits: tuple[int | None, float | None], ignore: bool, cuts: list[int]
) -> None:
    """Chunks that end where ranges do, beside a row without ranges, give what the whole prompt gives."""
    shape = replace(shape_of(heads, *limits), ranges_ignore_windows=ignore)
    cache = torch.zeros(2, 2, 17, 8, heads[1], HEAD_DIM)
    cache[:, :, :16].uniform_(-100, 100)
    paged = TorchAttention(shape, cache)
    size = (2, LENGTH, heads[0] + 2 * heads[1], HEAD_DIM)
    qkv_LT = torch.randn(size, generator=torch.Generator().manual_seed(3))
    plain_LT = torch.randn(size, generator=torch.Generator().manual_seed(4))
    wanted = [Masked(shape, RANGES).attend(qkv_LT[layer], shape.windows[layer]) for layer in (0, 1)]
    beside = [Masked(shape, []).attend(plain_LT[layer], shape.windows[layer]) for layer in (0, 1)]
    tables = np.random.default_rng(5).permutation(16).reshape(2, -1)
    for start, stop in pairwise([0, *cuts, LENGTH]):
        inside = [(first - start, last - first) for first, last in RANGES if start <= first and last <= stop]
        layout = lay_out(tables, ints([start, start]), ints([stop - start] * 2), 8)
        paged.begin_step(replace(layout, both_ways={1: inside} if inside else {}))
        for layer in range(2):
            chunk = torch.cat((plain_LT[layer, start:stop], qkv_LT[layer, start:stop]))
            q, k, v = split(chunk, shape)
            found = torch.split(paged.attend(q, k, v, layer), stop - start)
            for one, all_of_it in zip(found, (beside[layer], wanted[layer]), strict=True):
                torch.testing.assert_close(one, all_of_it[start:stop], atol=1e-4, rtol=1e-4)


CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "head_dim", "name", "reason"),
    [
        (GPU, 128, "triton", "suit the device"),
        (GPU, 288, "torch", "head widths up to 256, not 288"),
        (CPU, 128, "torch", "there is no GPU"),
    ],
)
def test_auto_says_what_it_chose_and_why(device: torch.device, head_dim: int, name: str, reason: str) -> None:
    chosen = choose("auto", device, torch.float32, replace(shape_of((2, 2), None, None), head_dim=head_dim))
    assert (chosen.name, reason in chosen.reason) == (name, True)


def test_a_backend_that_was_asked_for_is_used_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triton.knobs.runtime.interpret", False)
    shape = shape_of((2, 2), None, None)
    assert choose("torch", GPU, torch.float32, shape).load() is TorchAttention
    assert choose("triton", GPU, torch.float32, shape).name == "triton"
    with pytest.raises(UnsuitableBackend, match="no GPU"):
        choose("triton", CPU, torch.float32, shape)


def test_an_unknown_backend_names_the_known() -> None:
    with pytest.raises(UnknownBackend, match="there is auto, flash_attn, torch, triton"):
        choose("nonesuch", CPU, torch.float32, shape_of((2, 2), None, None))
