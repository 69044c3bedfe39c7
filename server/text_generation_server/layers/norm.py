"""Root-mean-square normalisation over the last axis."""

from __future__ import annotations

from torch import Tensor

from text_generation_server.layers.fused import add_rms_norm, rms_norm


class RmsNorm:
    """x / rms(x) * weight, in the weight's precision."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._weight = weight
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        return rms_norm(x, self._weight, self._eps)

    def after_adding(self, hidden: Tensor, added: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """hidden + scale * added, and its norm."""
        return add_rms_norm(hidden, added, scale, self._weight, self._eps)
