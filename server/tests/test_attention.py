"""Every backend against attention written down naively, over random shapes and layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from driver import ints
from torch import Tensor

from text_generation_server.attention import BACKENDS, UnknownBackend, find_backend
from text_generation_server.attention.base import AttentionShape, StepLayout

HEAD_DIM = 16
NUM_BLOCKS = 96


class Dense:
    """Keeps every sequence's keys and values in a list and attends one token at a time."""

    def __init__(self, shape: AttentionShape) -> None:
        self.shape = shape
        self.keys: dict[int, list[Tensor]] = {}
        self.values: dict[int, list[Tensor]] = {}

    def attend(self, sequence: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        keys, values = self.keys.setdefault(sequence, []), self.values.setdefault(sequence, [])
        keys.append(k)
        values.append(v)
        first = 0 if window is None else max(0, len(keys) - window)
        heads = [self._head(q, head, keys[first:], values[first:]) for head in range(self.shape.num_heads)]
        return torch.stack(heads)

    def _head(self, q: Tensor, head: int, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        kv_head = head // (self.shape.num_heads // self.shape.num_kv_heads)
        scores = torch.stack([q[head] @ key[kv_head] for key in keys]) * self.shape.scale
        if self.shape.softcap is not None:
            scores = torch.tanh(scores / self.shape.softcap) * self.shape.softcap
        weights = torch.softmax(scores, 0)
        return sum((weight * value[kv_head] for weight, value in zip(weights, values, strict=True)), torch.zeros(HEAD_DIM))  # fmt: skip


def shape_of(heads: int, kv_heads: int, window: int | None, softcap: float | None) -> AttentionShape:
    return AttentionShape(
        num_heads=heads,
        num_kv_heads=kv_heads,
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
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (4, 4), (3, 1)])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (9, None), (None, 20.0), (9, 20.0)])
def test_matches_dense(
    backend: str, block_size: int, heads: int, kv_heads: int, window: int | None, softcap: float | None
) -> None:
    shape = shape_of(heads, kv_heads, window, softcap)
    num_blocks = NUM_BLOCKS * 16 // block_size
    cache = torch.zeros(2, 2, num_blocks + 1, block_size, kv_heads, HEAD_DIM)
    # What stale blocks hold must not matter, short of what is not finite: the shard clears those.
    cache[:, :, :num_blocks].uniform_(-100, 100)
    paged, dense = find_backend(backend)(shape, cache), [Dense(shape), Dense(shape)]
    generator = torch.Generator().manual_seed(3)
    tables = np.random.default_rng(5).permutation(num_blocks)[: 4 * (num_blocks // 4)].reshape(4, -1)
    lengths = np.zeros(4, dtype=np.int64)
    for step in STEPS:
        rows = list(step)
        layout = lay_out(tables[rows], lengths[rows], ints(step.values()), block_size)
        paged.begin_step(layout)
        for layer in range(2):
            q, k, v = (torch.randn(sum(step.values()), n, HEAD_DIM, generator=generator) for n in (heads, kv_heads, kv_heads))  # fmt: skip
            owners = np.repeat(rows, list(step.values())).tolist()
            wanted = [dense[layer].attend(one, q[t], k[t], v[t], shape.windows[layer]) for t, one in enumerate(owners)]
            torch.testing.assert_close(paged.attend(q, k, v, layer), torch.stack(wanted), atol=1e-4, rtol=1e-4)
        for row, count in step.items():
            lengths[row] += count


def lay_out(blocks_RB: np.ndarray, starts_R: np.ndarray, num_tokens_R: np.ndarray, block_size: int) -> StepLayout:  # type: ignore[type-arg]
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
