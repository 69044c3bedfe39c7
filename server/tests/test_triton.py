"""Our Triton kernels against the `torch` backend: compiled where there is a GPU, interpreted on the CPU otherwise.

`test_attention.py` compares the `torch` backend with attention written down naively, and this one too in a few cases.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from device import DEVICE
from layouts import lay_out
from torch import Tensor

from text_generation_server.attention.base import AttentionBackend, AttentionShape, StepLayout
from text_generation_server.attention.torch import TorchAttention
from text_generation_server.attention.triton import TritonAttention
from text_generation_server.plan import Ints

TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


@dataclass(frozen=True, kw_only=True)
class Case:
    """Rows of a step as (tokens, tokens before them), and what attention is asked for."""

    rows: list[tuple[int, int]]
    heads: tuple[int, int] = (4, 2)
    head_dim: int = 64
    block_size: int = 16
    window: int | None = None
    softcap: float | None = None
    dtype: torch.dtype = torch.float32
    ranges: dict[int, list[tuple[int, int]]] | None = None
    ranges_ignore_windows: bool = False

    @property
    def shape(self) -> AttentionShape:
        return AttentionShape(
            num_heads=self.heads[0],
            num_kv_heads=self.heads[1],
            head_dim=self.head_dim,
            scale=self.head_dim**-0.5,
            windows=(self.window,),
            softcap=self.softcap,
            has_ranges=self.ranges is not None,
            ranges_ignore_windows=self.ranges_ignore_windows,
        )

    def layout(self, tables: Ints) -> StepLayout:
        counts, starts = np.array(self.rows, dtype=np.int64).T
        width = -(-int((counts + starts).max()) // self.block_size)
        layout = lay_out(tables[:, :width], starts, counts, self.block_size)
        return replace(layout, slots_T=layout.slots_T.to(DEVICE), both_ways=self.ranges or {})


CASES = {
    "one row decodes": Case(rows=[(1, 30)]),
    "a first token": Case(rows=[(1, 0)]),
    "a prompt": Case(rows=[(70, 0)]),
    "a chunk": Case(rows=[(20, 45)]),
    "rows of every kind": Case(rows=[(1, 17), (33, 0), (1, 5), (5, 64), (1, 63), (2, 1)]),
    "one key head": Case(rows=[(1, 40), (9, 3)], heads=(8, 1)),
    "no shared key heads": Case(rows=[(1, 40), (9, 3)], heads=(3, 3)),
    "a group that is no power of two": Case(rows=[(1, 40), (25, 3)], heads=(14, 2)),
    "blocks of one token": Case(rows=[(1, 9), (11, 2)], block_size=1),
    "blocks of 64 tokens": Case(rows=[(1, 70), (11, 60)], block_size=64),
    "heads of 80": Case(rows=[(1, 20), (10, 7)], head_dim=80),
    "heads of 96": Case(rows=[(1, 20), (10, 7)], head_dim=96),
    "heads of 128": Case(rows=[(1, 20), (10, 7)], head_dim=128),
    "heads of 256": Case(rows=[(1, 20), (10, 7)], head_dim=256),
    "a window": Case(rows=[(1, 90), (40, 50), (1, 3)], window=21),
    "a window of one token": Case(rows=[(1, 9), (5, 2)], window=1),
    "softcap": Case(rows=[(1, 90), (40, 50)], softcap=5.0),
    "softcap and window": Case(rows=[(1, 90), (40, 50)], softcap=5.0, window=33),
    "bfloat16": Case(rows=[(1, 90), (40, 50)], dtype=torch.bfloat16),
    "float16": Case(rows=[(1, 90), (40, 50)], dtype=torch.float16),
    "a long row is split": Case(rows=[(1, 1100), (1, 3), (1, 600)], heads=(2, 1)),
    "a long row with a window is split": Case(rows=[(1, 1100), (1, 3)], heads=(2, 1), window=300),
    "a range": Case(rows=[(50, 10)], ranges={0: [(7, 30)]}),
    "ranges that touch, beside others": Case(
        rows=[(1, 8), (50, 10), (30, 0)], ranges={1: [(0, 1), (1, 20), (30, 20)], 2: [(29, 1)]}
    ),
    "a range cut by the window": Case(rows=[(60, 20)], ranges={0: [(5, 50)]}, window=16),
    "a range beyond the window": Case(rows=[(60, 20)], ranges={0: [(5, 50)]}, window=16, ranges_ignore_windows=True),
    "a range beside a window": Case(
        rows=[(60, 20), (1, 4)], ranges={0: [(0, 2), (50, 10)]}, window=9, ranges_ignore_windows=True
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_torch(name: str) -> None:
    compare(CASES[name], seed=3)


@pytest.mark.parametrize("seed", range(8))
def test_random_steps_equal_torch(seed: int) -> None:
    generator = np.random.default_rng(seed)
    kv_heads, group = int(generator.integers(1, 3)), int(generator.integers(1, 6))
    rows = [
        (int(generator.choice([1, 1, int(generator.integers(2, 50))])), int(generator.integers(0, 70)))
        for _ in range(generator.integers(1, 5))
    ]
    longest = max(range(len(rows)), key=lambda row: rows[row][0])
    length = rows[longest][0]
    compare(
        Case(
            rows=rows,
            heads=(kv_heads * group, kv_heads),
            head_dim=int(generator.choice([16, 32, 64, 72])),
            block_size=int(generator.choice([8, 16, 32])),
            window=(None, 7, 40)[generator.integers(3)],
            softcap=(None, 10.0)[generator.integers(2)],
            ranges={longest: [(length // 3, length - length // 3)]} if seed % 2 else None,
            ranges_ignore_windows=seed % 4 == 3,
        ),
        seed,
    )


def compare(case: Case, seed: int, backend: type[AttentionBackend] = TritonAttention) -> None:
    """Outputs and caches, of heads that are rotated already and of heads that are not."""
    generator = torch.Generator().manual_seed(seed)
    counts, starts = np.array(case.rows).T
    blocks = [-(-int(total) // case.block_size) for total in counts + starts]
    num_blocks = sum(blocks)
    size = (1, 2, num_blocks + 1, case.block_size, case.heads[1], case.head_dim)
    cache = torch.randn(size, generator=generator)
    cache[:, :, -1] = 0
    free = iter(np.random.default_rng(seed).permutation(num_blocks).tolist())
    tables = np.zeros((len(blocks), max(blocks)), dtype=np.int64)
    for row, count in enumerate(blocks):
        tables[row, :count] = [next(free) for _ in range(count)]
    num_tokens = int(counts.sum())
    heads_TND = torch.randn(num_tokens, case.heads[0] + 2 * case.heads[1], case.head_dim, generator=generator)
    angles = torch.rand(num_tokens, 1, case.head_dim, generator=generator) * 7
    for table in (None, torch.stack((angles.cos(), angles.sin()), 1)):
        found, wanted = (outputs(one, case, (cache, heads_TND, table), tables) for one in (backend, TorchAttention))
        tolerance = TOLERANCES[case.dtype]
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


def outputs(
    backend: type[AttentionBackend],
    case: Case,
    tensors: tuple[Tensor, Tensor, Tensor | None],
    tables: Ints,
) -> tuple[Tensor, Tensor]:
    """What a step gives, and the cache behind it."""
    cache, heads_TND, table = (
        None if one is None else one.to(device=DEVICE, dtype=case.dtype, copy=True) for one in tensors
    )
    assert cache is not None and heads_TND is not None
    attention = backend(case.shape, cache)
    attention.begin_step(case.layout(tables))
    if table is not None:
        return attention.rotate_and_attend(heads_TND, table, 0), cache
    q, k, v = torch.split(heads_TND, [case.heads[0], case.heads[1], case.heads[1]], 1)
    return attention.attend(q, k, v, 0), cache


def test_tokens_that_fill_a_graph_are_not_stored() -> None:
    case = Case(rows=[(1, 3), (1, 3)])
    cache = torch.zeros(1, 2, 3, 16, 2, 64, device=DEVICE)
    attention = TritonAttention(case.shape, cache)
    layout = case.layout(np.array([[0], [1]]))
    layout.slots_T[1] = -1
    attention.begin_step(layout)
    heads_TND = torch.ones(2, 8, 64, device=DEVICE)
    attention.rotate_and_attend(heads_TND, torch.ones(2, 2, 1, 64, device=DEVICE), 0)
    assert cache[0, :, 0, 3].abs().sum() > 0
    assert cache[0, :, 1:].abs().sum() == 0


def test_kernels_compile_for_real_gpus(tmp_path: Path) -> None:
    """To machine code of two generations, within their shared memory. That it is right is for a GPU to show."""
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    variables |= {"PYTHONPATH": os.pathsep.join(sys.path), "TRITON_CACHE_DIR": str(tmp_path)}
    program = Path(__file__).with_name("compile_kernels.py")
    done = subprocess.run([sys.executable, program], env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("sm_90 ")) == (0, 26), done.stderr
