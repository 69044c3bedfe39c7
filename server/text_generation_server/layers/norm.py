"""Root-mean-square normalisation over the last axis."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


class RmsNorm:
    """x / rms(x) * weight, in the weight's precision."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._weight = weight
        self._shape = (weight.shape[0],)
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.to(self._weight.dtype), self._shape, self._weight, self._eps).to(x.dtype)
