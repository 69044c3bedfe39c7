"""What a model may ask of attention, and what a backend must provide.

A backend knows layers, blocks and tokens. It does not know models, requests or images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from text_generation_server.transfers import Transfers

TokenIndex: TypeAlias = "slice | Tensor"

NO_GPU = "there is no GPU"
"""What keeps every backend but one from a CPU."""


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """One rank's heads, and how each layer limits what a token sees. `windows` has an entry a layer."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    windows: tuple[int | None, ...]
    softcap: float | None = None
    has_ranges: bool = False
    """Whether rows may have ranges whose tokens attend both ways. Not every backend can mask them."""
    ranges_ignore_windows: bool = False
    """Whether tokens that attend both ways see all of their range, however far behind (PaliGemma), or no further behind
    than the window (Gemma 3)."""

    @property
    def num_layers(self) -> int:
        """Layers that keep keys and values."""
        return len(self.windows)


@dataclass(frozen=True)
class Bounds:
    """The largest step that is captured. The same for all steps of a backend."""

    max_rows: int
    max_blocks: int
    """Blocks that a row may own."""


@dataclass(frozen=True, kw_only=True)
class StepLayout:
    """How the flat tokens of a step belong to sequences.

    Row r owns the next `num_tokens_R[r]` tokens; `starts_R[r]` earlier tokens of it are in the cache already.
    `blocks_RB` lists each row's blocks; entries past its last token may hold anything.
    """

    num_tokens_R: NDArray[np.int64]
    starts_R: NDArray[np.int64]
    blocks_RB: NDArray[np.int32]
    slots_T: Tensor
    """Where each token's key and value go, block * block_size + offset, on the device."""
    both_ways: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    """Offset and length of the ranges of each row that has some: their tokens see each other, those ahead too."""
    captured: Bounds | None = None
    """Set for a step of rows with one token each that is captured, or replayed: launches may depend on these bounds and
    on the number of rows alone, and what they read stays where it is. A row that fills up has slot -1 and owns the zero
    block: it attends to one zero, and nothing of it is kept."""


class Attention(Protocol):
    """The half of a backend that a model sees."""

    shape: AttentionShape

    def attend(self, q_TND: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int) -> Tensor:
        """Stores this step's keys and values, then returns what each query collects: [T, N, D].

        Keys are stored before attention, because a chunk must see its own tokens.
        """
        ...

    def rotate_and_attend(self, heads_TND: Tensor, table_T21D: Tensor, layer: int) -> Tensor:
        """`attend` for heads that were not rotated yet: queries, then keys, then values, one behind the other.

        `heads` is overwritten. `table` has each token's cosines and sines, the sign of the first half in the sines.
        """
        counts = [self.shape.num_heads, self.shape.num_kv_heads, self.shape.num_kv_heads]
        rotate(heads_TND[:, : counts[0] + counts[1]], table_T21D)
        q_TND, k_TKD, v_TKD = torch.split_with_sizes(heads_TND, counts, 1)
        return self.attend(q_TND, k_TKD, v_TKD, layer)


def rotate(heads_TND: Tensor, table_T21D: Tensor) -> Tensor:
    """Turns every head by its token's angle, in place: Su et al. 2021, https://arxiv.org/abs/2104.09864, in halves."""
    turned = heads_TND.roll(heads_TND.shape[-1] // 2, -1)
    return heads_TND.mul_(table_T21D[:, 0]).addcmul_(turned, table_T21D[:, 1])


def token_index(tokens: NDArray[np.int64], transfers: Transfers) -> TokenIndex:
    """What takes these tokens, in rising order, out of all of a step: without a copy where they are neighbours."""
    first, last = int(tokens[0]), int(tokens[-1])
    if last - first + 1 == len(tokens):
        return slice(first, last + 1)
    return transfers.one(tokens)


class AttentionBackend(Attention):
    """A paged attention. One class a file, one row in `BACKENDS`."""

    supported_block_sizes: ClassVar[tuple[int, ...]]
    """Best first."""
    can_be_captured: ClassVar[bool] = False
    """Whether `begin_step` takes layouts with `captured`, and `attend` then launches without asking the device."""

    def __init__(self, shape: AttentionShape, cache_L2BSKD: Tensor) -> None:
        """`cache` is [layers, 2, blocks, block_size, kv_heads, head_dim]; its last block is zero and never written."""
        self.shape = shape
        self.cache_L2BSKD = cache_L2BSKD

    @abstractmethod
    def begin_step(self, layout: StepLayout) -> None:
        """Prepares what every layer of the coming step shares."""

    @abstractmethod
    def attend(self, q_TND: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int) -> Tensor:
        """See `Attention`."""
