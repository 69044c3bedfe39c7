"""What a block takes, and what a fresh cache holds."""

from __future__ import annotations

import pytest
import torch

from text_generation_server.attention.base import AttentionShape
from text_generation_server.kv_cache import KvCache, block_bytes

SHAPE = AttentionShape(num_heads=4, num_kv_heads=2, head_dim=8, scale=1.0, windows=(None, None, None))


def test_block_bytes_counts_keys_and_values_of_every_layer() -> None:
    assert block_bytes(SHAPE, 16, torch.bfloat16) == 3 * 2 * 16 * 2 * 8 * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_fresh_cache_is_zero(dtype: torch.dtype) -> None:
    cache = KvCache(SHAPE, 5, 16, torch.empty(0, dtype=dtype))
    assert cache.tensor.shape == (3, 2, 6, 16, 2, 8)
    assert cache.tensor.dtype is dtype
    assert not cache.tensor.any()


def test_clearing_touches_only_the_named_blocks() -> None:
    cache = KvCache(SHAPE, 5, 16, torch.empty(0))
    cache.tensor.fill_(1.0)
    cache.clear(torch.tensor([1, 3]))
    assert cache.tensor.sum((0, 1, 3, 4, 5)).bool().tolist() == [True, False, True, False, True, True]
