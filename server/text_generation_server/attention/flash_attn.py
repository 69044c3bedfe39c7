"""Paged attention by the flash-attn package, version 2 or 3: https://github.com/Dao-AILab/flash-attention.

What is relied on, and where it stands. None of it was ever run by us: see `docs/gpu-status.md`.

flash-attn 2, module `flash_attn`; interface and C++ of 2.8:

- float16 and bfloat16, compute capability 8.0 and newer, head widths up to 256. A width that is no multiple of 8 makes
  it copy the whole cache, so such a model is refused.
- Keys and values are [blocks, block size, heads, width], block sizes multiples of 256; block tables and lengths are
  int32. Only the last dimension has to be contiguous.
- Causal masks are aligned to the bottom right corner since 2.1; windows count tokens behind and ahead since 2.3, the
  token itself not among them; softcap came with 2.6, and so nothing older is taken.
- `flash_attn_varlen_func` must not split keys that come in blocks (issue 1217, pull request 2812, both open). It does
  so only where no row has more than one token, and those rows go to `flash_attn_with_kvcache`.

flash-attn 3, module `flash_attn_interface`; `hopper/` of 3.0.0 (beta):

- Compute capability 9.0, the same types and widths, blocks of any size (issue 1627, a maintainer, 2025-04-28).
- `flash_attn_with_kvcache` takes rows of any length by `cu_seqlens_q`, with the lengths of the keys in `cache_seqlens`.
  Betas from before it had a `page_table` are not taken.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from text_generation_server.attention.base import (
    NO_GPU,
    AttentionBackend,
    AttentionShape,
    StepLayout,
    TokenIndex,
    token_index,
)
from text_generation_server.transfers import Transfers

MODULES = {2: "flash_attn", 3: "flash_attn_interface"}
DTYPES = (torch.float16, torch.bfloat16)
MAX_HEAD_DIM = 256
WIDTH_STEP = 8
OLDEST = (2, 6)

ALIGNMENT = 16
"""Numbers that an array is filled up to before the next begins, so that loads stay aligned."""


class NoRanges(RuntimeError):
    """A row has ranges that attend both ways, and its model was said to have none."""


def obstacle(version: int, device: torch.device, dtype: torch.dtype, shape: AttentionShape) -> str | None:
    """Why this version of the package cannot serve the model here; None if it can. Imports the package last."""
    if device.type == "cpu":
        return NO_GPU
    if torch.version.hip:
        return "flash-attn is used on NVIDIA's GPUs only"
    return (
        _unsuitable(dtype, shape) or _incapable(version, torch.cuda.get_device_capability(device)) or _absent(version)
    )


def _unsuitable(dtype: torch.dtype, shape: AttentionShape) -> str | None:
    if shape.has_ranges:
        return "flash-attn cannot mask ranges that attend both ways, which this model has"
    if dtype not in DTYPES:
        return f"flash-attn computes in float16 or bfloat16, not in {str(dtype).removeprefix('torch.')}"
    if shape.head_dim > MAX_HEAD_DIM or shape.head_dim % WIDTH_STEP:
        return f"flash-attn takes head widths up to {MAX_HEAD_DIM} in steps of {WIDTH_STEP}, not {shape.head_dim}"
    return None


def _incapable(version: int, capability: tuple[int, int]) -> str | None:
    if version == 2 and capability < (8, 0):
        return f"flash-attn 2 needs compute capability 8.0, not {capability[0]}.{capability[1]}"
    if version == 3 and capability != (9, 0):
        return f"flash-attn 3 is for compute capability 9.0, not {capability[0]}.{capability[1]}"
    return None


def _absent(version: int) -> str | None:
    name = MODULES[version]
    if find_spec(name) is None:
        return f"{name} is not installed"
    try:
        module = import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        # Built for another torch, usually.
        return f"{name} cannot be imported: {str(error).partition(chr(10))[0]}"
    call = getattr(module, "flash_attn_with_kvcache", None)
    if call is None:
        return f"{name} has no flash_attn_with_kvcache"
    if version == 2 and _release(module) < OLDEST:
        return f"{name} {module.__version__} is older than {OLDEST[0]}.{OLDEST[1]}"
    if version == 3 and "page_table" not in signature(call).parameters:
        return f"{name} is a beta whose flash_attn_with_kvcache has no page_table"
    return None


def _release(module: Any) -> tuple[int, ...]:  # noqa: ANN401 (an extension without types)
    return tuple(int(number) for number in re.findall(r"\d+", module.__version__)[:2])


@dataclass(frozen=True)
class Call:
    """Rows of a step that one call computes. The tensors are int32."""

    most_queries: int
    most_keys: int
    tokens: TokenIndex
    query_bounds: Tensor
    key_bounds: Tensor
    lengths_R: Tensor
    blocks_RB: Tensor


class FlashAttention(AttentionBackend):
    """What both versions share: PyTorch stores the keys, the package's kernels read them."""

    version: ClassVar[int]

    def __init__(self, shape: AttentionShape, cache_L2BSKD: Tensor) -> None:
        super().__init__(shape, cache_L2BSKD)
        self._block_size = cache_L2BSKD.shape[3]
        self._zero_block = cache_L2BSKD.shape[2] - 1
        self._transfers = Transfers(cache_L2BSKD.device)
        self._blocks = [(layer[0], layer[1]) for layer in cache_L2BSKD]
        self._slots = [(keys.flatten(0, 1), values.flatten(0, 1)) for keys, values in self._blocks]
        self._package: Any = import_module(MODULES[self.version])
        self._calls: list[Call] = []
        self._slots_T = torch.empty(0, dtype=torch.int64)

    def begin_step(self, layout: StepLayout) -> None:
        if layout.both_ways:
            raise NoRanges("flash-attn cannot mask ranges that attend both ways")
        self._slots_T = layout.slots_T
        self._calls = [self._call(layout, rows) for rows in self.cut(layout.num_tokens_R) if len(rows)]

    def attend(self, q_TND: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int) -> Tensor:
        keys_SKD, values_SKD = self._slots[layer]
        keys_SKD.index_copy_(0, self._slots_T, k_TKD)
        values_SKD.index_copy_(0, self._slots_T, v_TKD)
        if len(self._calls) == 1:
            return self.compute(self._calls[0], q_TND, layer)
        output_TND = torch.empty_like(q_TND, memory_format=torch.contiguous_format)
        for call in self._calls:
            output_TND[call.tokens] = self.compute(call, q_TND[call.tokens], layer)
        return output_TND

    @abstractmethod
    def cut(self, num_tokens_R: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
        """The rows of each call."""

    @abstractmethod
    def compute(self, call: Call, q_TND: Tensor, layer: int) -> Tensor:
        """What the queries of the call's rows collect from the cache."""

    def options(self, layer: int) -> dict[str, Any]:
        """What the package is told in every call of a layer."""
        window = self.shape.windows[layer]
        return {
            "softmax_scale": self.shape.scale,
            "causal": True,
            "window_size": (-1, -1) if window is None else (window - 1, 0),
            "softcap": self.shape.softcap or 0.0,
        }

    def _call(self, layout: StepLayout, rows: NDArray[np.int64]) -> Call:
        counts_R = layout.num_tokens_R[rows]
        lengths_R = layout.starts_R[rows] + counts_R
        width = -(-int(lengths_R.max()) // self._block_size)
        unused_RB = np.arange(width) * self._block_size >= lengths_R[:, None]
        # Entries behind a row's last token may hold anything, and nobody promises that they are not looked at.
        blocks_RB = np.where(unused_RB, self._zero_block, layout.blocks_RB[rows, :width])
        owners_T = np.repeat(np.arange(len(layout.num_tokens_R)), layout.num_tokens_R)
        tokens = token_index(np.flatnonzero(np.isin(owners_T, rows)), self._transfers)
        parts = (_bounds(counts_R), _bounds(lengths_R), lengths_R, blocks_RB)
        placed = self._transfers.place({str(index): part.astype(np.int32) for index, part in enumerate(parts)})
        return Call(int(counts_R.max()), int(lengths_R.max()), tokens, *placed.values())


class FlashAttention2(FlashAttention):
    """Rows that decode in one call, which splits their keys; rows that prefill in another."""

    supported_block_sizes = (256, 512, 1024)
    version = 2

    def cut(self, num_tokens_R: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
        return np.flatnonzero(num_tokens_R == 1), np.flatnonzero(num_tokens_R > 1)

    def compute(self, call: Call, q_TND: Tensor, layer: int) -> Tensor:
        keys, values = self._blocks[layer]
        options = self.options(layer) | {"block_table": call.blocks_RB}
        if call.most_queries == 1:
            decode: Callable[..., Tensor] = self._package.flash_attn_with_kvcache
            return decode(q_TND[:, None], keys, values, cache_seqlens=call.lengths_R, **options)[:, 0]
        prefill: Callable[..., Tensor] = self._package.flash_attn_varlen_func
        return prefill(
            q_TND,
            keys,
            values,
            cu_seqlens_q=call.query_bounds,
            cu_seqlens_k=call.key_bounds,
            max_seqlen_q=call.most_queries,
            max_seqlen_k=call.most_keys,
            **options,
        )


class FlashAttention3(FlashAttention):
    """All rows in one call."""

    supported_block_sizes = (16, 32, 64, 128, 256, 8, 1)
    version = 3

    def cut(self, num_tokens_R: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
        return (np.arange(len(num_tokens_R)),)

    def compute(self, call: Call, q_TND: Tensor, layer: int) -> Tensor:
        keys, values = self._blocks[layer]
        compute: Callable[..., Tensor] = self._package.flash_attn_with_kvcache
        return compute(
            q_TND,
            keys,
            values,
            cache_seqlens=call.lengths_R,
            page_table=call.blocks_RB,
            cu_seqlens_q=call.query_bounds,
            max_seqlen_q=call.most_queries,
            **self.options(layer),
        )


def _bounds(counts_R: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each row begins, and the end of the last."""
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts_R)))
