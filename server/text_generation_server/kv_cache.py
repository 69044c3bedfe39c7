"""The KV blocks of one rank: the tensor that holds them. `memory` counts them, the router says who owns which."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from text_generation_server.attention.base import AttentionShape


def block_bytes(shape: AttentionShape, block_size: int, dtype: torch.dtype) -> int:
    """Bytes of one block over all layers."""
    return shape.num_layers * 2 * block_size * shape.num_kv_heads * shape.head_dim * dtype.itemsize


class KvCache:
    """Keys and values of every layer, plus one block of zeros behind the numbered ones for padding."""

    def __init__(self, shape: AttentionShape, num_blocks: int, block_size: int, like: Tensor) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        size = (shape.num_layers, 2, num_blocks + 1, block_size, shape.num_kv_heads, shape.head_dim)
        self.tensor = _zeros(size, like)

    def clear(self, blocks: Tensor) -> None:
        """Zeroes blocks that change hands: a NaN left by one sequence must not reach the padding of another."""
        self.tensor.index_fill_(2, blocks, 0)


def _zeros(size: tuple[int, ...], like: Tensor) -> Tensor:
    if like.device.type != "cpu":
        return torch.zeros(size, dtype=like.dtype, device=like.device)
    # numpy takes zeroed pages from the system, which cost neither time nor memory before they are used.
    pages = np.zeros(math.prod(size) * like.itemsize, dtype=np.uint8)
    return torch.from_numpy(pages).view(like.dtype).view(size)
