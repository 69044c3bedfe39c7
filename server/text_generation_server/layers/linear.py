"""Matrix products over a tensor-parallel slice of a weight.

`Linear` is where the kernel is chosen; how a weight is cut among ranks is the three functions below it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.distributed import Ranks
from text_generation_server.weights import Weights

MIN_PREPACKED_ELEMENTS = 1 << 18
"""Smaller float32 matrices stay in cache, where a prepacked call costs more than it saves."""


class ShapeError(Exception):
    """A dimension cannot be divided among the ranks."""


class Linear:
    """y = x @ weight.T + bias."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        packed = _prepack(weight_OI)
        # Only one of the two is kept: the other one would double the model's memory.
        self._weight, self._is_packed = (weight_OI, False) if packed is None else (packed, True)
        self._bias_O = bias_O

    def __call__(self, x: Tensor) -> Tensor:
        if not self._is_packed:
            return F.linear(x, self._weight, self._bias_O)
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias_O, "none", [], "")  # type: ignore[no-any-return]


def onednn_runs(weight: Tensor) -> bool:
    """Whether oneDNN's own kernels take this weight on this machine."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def _prepack(weight_OI: Tensor) -> Tensor | None:
    # oneDNN's own layout: 2 x faster for bf16, 1.5-3 x for large float32 at small batches, never slower there.
    if weight_OI.numel() < MIN_PREPACKED_ELEMENTS or not onednn_runs(weight_OI):
        return None
    return torch.ops.mkldnn._reorder_linear_weight(weight_OI, None)  # type: ignore[no-any-return]


def divide(size: int, ranks: Ranks, what: str) -> int:
    """One rank's share, or a clear refusal."""
    if size % ranks.world_size:
        raise ShapeError(f"{what} ({size}) cannot be divided among {ranks.world_size} ranks")
    return size // ranks.world_size


def replicated(weights: Weights, name: str, shape: Sequence[int], bias: bool) -> Linear:
    """A small matrix every rank holds whole."""
    bias_O = weights.whole(f"{name}.bias", shape[:1]) if bias else None
    return Linear(weights.whole(f"{name}.weight", shape), bias_O)


def fused_rows(weights: Weights, parts: Sequence[RowPart], width: int, bias: bool) -> Linear:
    """Several matrices of one input, one after the other, each cut to this rank's output rows."""
    weight_OI = torch.cat([weights.rows(f"{p.name}.weight", (p.size, width), p.start, p.stop) for p in parts])
    if not bias:
        return Linear(weight_OI)
    return Linear(weight_OI, torch.cat([weights.rows(f"{p.name}.bias", (p.size,), p.start, p.stop) for p in parts]))


class RowPart:
    """Rows `start..stop` of the matrix `name`, which has `size` rows."""

    def __init__(self, name: str, size: int, start: int, stop: int) -> None:
        self.name, self.size, self.start, self.stop = name, size, start, stop

    @staticmethod
    def even(name: str, size: int, ranks: Ranks) -> RowPart:
        """This rank's equal share of the rows."""
        share = divide(size, ranks, f"rows of {name}")
        return RowPart(name, size, ranks.rank * share, (ranks.rank + 1) * share)


class SummedLinear:
    """A matrix cut along its input: every rank computes a partial product, and they are added up."""

    def __init__(self, weights: Weights, ranks: Ranks, name: str, shape: tuple[int, int], bias: bool = False) -> None:
        share = divide(shape[1], ranks, f"columns of {name}")
        start = ranks.rank * share
        weight_OI = weights.columns(f"{name}.weight", shape, start, start + share)
        # Only one rank adds the bias, or the sum would hold it once a rank.
        bias_O = weights.whole(f"{name}.bias", shape[:1]) if bias and ranks.rank == 0 else None
        self._linear = Linear(weight_OI.contiguous(), bias_O)
        self._ranks = ranks

    def __call__(self, x: Tensor) -> Tensor:
        return self._ranks.sum(self._linear(x))
