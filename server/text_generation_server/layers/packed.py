"""Vision encoders that take images as one row of patches: cut to size, packed, attended segment by segment.

Suffixes: P patches of all views, N heads, D head width, S segments of one length, L patches of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from text_generation_server.layers.vision import load_module
from text_generation_server.weights import Weights

MAX_CACHED_SEGMENTS = 16
"""Partitions into segments that are remembered; an encoder uses one or two at a time, in every block."""


class PackedEncoder:
    """An encoder of the Qwen VL line: `patch_embed`, `blocks` with an `attn` each, a merger of neighbouring patches."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, name: str, make: Callable[[], nn.Module]) -> None:
        self._patch, self._merge = int(config["patch_size"]), int(config["spatial_merge_size"])
        self._encoder = load_module(make, weights, name)
        parts: Any = self._encoder
        parts.patch_embed = PatchEmbedding(parts.patch_embed.proj)
        for block in parts.blocks:
            block.attn = SegmentAttention(block.attn)

    def __call__(self, pixel_values_NCHW: Tensor, **options: Tensor) -> Any:  # noqa: ANN401 (the encoder's own output)
        """The encoder's output for equally sized views. Its rows are views one after the other, each row by row."""
        count, _, height, width = pixel_values_NCHW.shape
        rows, columns = height // self._patch, width // self._patch
        patches = patchify(pixel_values_NCHW, self._patch, self._merge)
        grid = torch.tensor([[1, rows, columns]], device=patches.device).expand(count, -1)
        return self._encoder(patches, grid_thw=grid, cu_seqlens=bounds(torch.full((count,), rows * columns)), **options)


class PatchEmbedding(nn.Module):
    """The product with which an encoder for videos begins, for stills.

    A still is a video whose frames are all the same, so what belongs to them is added up once.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        weight = convolution.weight.float().sum(2).to(convolution.weight.dtype)
        self.weight, self.bias = nn.Parameter(weight.flatten(1), requires_grad=False), convolution.bias

    def forward(self, patches: Tensor) -> Tensor:
        """[P, channels x height x width] to [P, width]."""
        return F.linear(patches, self.weight, self.bias)


class SegmentAttention(nn.Module):
    """An encoder's attention module, with segments of one length computed at once and not one by one."""

    def __init__(self, attention: Any) -> None:  # noqa: ANN401 (each encoder has a class of its own)
        super().__init__()
        self._qkv, self._output, self._num_heads = attention.qkv, attention.proj, attention.num_heads

    def forward(
        self, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: object
    ) -> Tensor:
        """`cu_seqlens` holds where each segment begins, and the end of the last."""
        qkv_P3ND = self._qkv(hidden_states).view(len(hidden_states), 3, self._num_heads, -1)
        q_PND, k_PND = turned(qkv_P3ND[:, :2], *position_embeddings).unbind(1)
        attended_PND = torch.empty_like(q_PND)
        for rows_SL in segments(tuple(cu_seqlens.tolist()), q_PND.device):
            q_SNLD, k_SNLD, v_SNLD = (x[rows_SL].transpose(1, 2) for x in (q_PND, k_PND, qkv_P3ND[:, 2]))
            attended_PND[rows_SL] = F.scaled_dot_product_attention(q_SNLD, k_SNLD, v_SNLD).transpose(1, 2)
        return self._output(attended_PND.flatten(1))  # type: ignore[no-any-return]


def patchify(pixel_values_NCHW: Tensor, patch: int, merge: int) -> Tensor:
    """Patches as rows of channels x height x width; the `merge` x `merge` neighbours of a token follow each other."""
    count, channels, height, width = pixel_values_NCHW.shape
    block = merge * patch
    shape = (count, channels, height // block, merge, patch, width // block, merge, patch)
    # From view, channel, block row, row, y, block column, column, x.
    ordered = pixel_values_NCHW.reshape(shape).permute(0, 2, 5, 3, 6, 1, 4, 7)
    return ordered.reshape(-1, channels * patch * patch)


def bounds(lengths: Tensor) -> Tensor:
    """Where segments of these lengths begin, and the end of the last. On the CPU: every block asks for them."""
    return F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))


def turned(x_P2ND: Tensor, cosines_PD: Tensor, sines_PD: Tensor) -> Tensor:
    """Queries and keys turned by their patches' angles, in float32 as the encoders do it."""
    x = x_P2ND.float()
    first, second = x.chunk(2, -1)
    rotated = torch.cat((-second, first), -1)
    return (x * cosines_PD[:, None, None].float() + rotated * sines_PD[:, None, None].float()).to(x_P2ND.dtype)


@lru_cache(MAX_CACHED_SEGMENTS)
def segments(bounds: tuple[int, ...], device: torch.device) -> list[Tensor]:
    """The patches of each segment, as one [S, L] for every length there is."""
    starts, lengths = torch.tensor(bounds[:-1]), torch.tensor(bounds).diff()
    equal = {length: starts[lengths == length] for length in set(lengths.tolist())}
    return [(starts_S[:, None] + torch.arange(length)).to(device) for length, starts_S in equal.items()]
