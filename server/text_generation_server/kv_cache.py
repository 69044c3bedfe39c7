"""The KV blocks of one rank: how many fit, and the tensor that holds them. Who owns which is the router's business."""

from __future__ import annotations

import torch
from torch import Tensor

from text_generation_server.attention.base import AttentionShape


class OutOfBlocks(Exception):
    """Memory does not hold one sequence of the promised length."""


def block_bytes(shape: AttentionShape, block_size: int, dtype: torch.dtype) -> int:
    """Bytes of one block over all layers."""
    return shape.num_layers * 2 * block_size * shape.num_kv_heads * shape.head_dim * dtype.itemsize


def blocks_that_fit(budget_bytes: int, bytes_a_block: int, max_blocks: int, needed: int) -> int:
    """Blocks within the budget, at most `max_blocks` unless that is 0, at least the `needed` for one sequence."""
    fitting = budget_bytes // bytes_a_block - 1  # the zero block
    count = min(fitting, max_blocks) if max_blocks else fitting
    if count < needed:
        raise OutOfBlocks(f"{count} KV blocks fit; one sequence of the longest length needs {needed}")
    return count


class KvCache:
    """Keys and values of every layer, plus one block of zeros behind the numbered ones for padding."""

    def __init__(self, shape: AttentionShape, num_blocks: int, block_size: int, like: Tensor) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        size = (shape.num_layers, 2, num_blocks + 1, block_size, shape.num_kv_heads, shape.head_dim)
        self.tensor = torch.zeros(size, dtype=like.dtype, device=like.device)

    def clear(self, blocks: Tensor) -> None:
        """Zeroes blocks that change hands: a NaN left by one sequence must not reach the padding of another."""
        self.tensor.index_fill_(2, blocks, 0)
