"""Every backend against attention written down naively, over random shapes and layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from driver import ints
from torch import Tensor

from text_generation_server.attention import BACKENDS, UnknownBackend, find_backend
from text_generation_server.attention.base import AttentionShape, StepLayout
from text_generation_server.plan import Ints

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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("block_size", [16, 8, 1])
@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (3, 1)])
@pytest.mark.parametrize("limits", [(None, None), (9, None), (None, 20.0), (9, 20.0)])
def test_matches_dense(
    backend: str, block_size: int, heads: tuple[int, int], limits: tuple[int | None, float | None]
) -> None:
    shape = shape_of(heads, *limits)
    num_blocks = NUM_TOKENS // block_size
    cache = torch.zeros(2, 2, num_blocks + 1, block_size, heads[1], HEAD_DIM)
    # What stale blocks hold must not matter, short of what is not finite: the shard clears those.
    cache[:, :, :num_blocks].uniform_(-100, 100)
    paged, dense = find_backend(backend)(shape, cache), [Dense(shape), Dense(shape)]
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


def lay_out(blocks_RB: Ints, starts_R: Ints, num_tokens_R: Ints, block_size: int) -> StepLayout:
    slots = [
        int(blocks[position // block_size]) * block_size + position % block_size
        for blocks, start, count in zip(blocks_RB, starts_R, num_tokens_R, strict=True)
        for position in range(start, start + count)
    ]
    return StepLayout(
        num_tokens_R=num_tokens_R,
        starts_R=starts_R,
        blocks_RB=blocks_RB.astype(np.int32),
        slots_T=torch.tensor(slots),
    )


def test_an_unknown_backend_names_the_known() -> None:
    with pytest.raises(UnknownBackend, match="torch"):
        find_backend("nonesuch")
