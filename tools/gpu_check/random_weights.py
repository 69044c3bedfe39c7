"""Stands in for `Weights`: tensors of any name and shape, made on the device. The same name gives the same tensor."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor


class RandomWeights:
    """What models ask of a checkpoint, answered without one. Products keep the size of what goes in."""

    num_bytes: dict[str, int]
    """Of what was asked for, by name."""

    def __init__(self, model_dir: Path, dtype: torch.dtype, device: torch.device) -> None:
        self.model_dir, self.dtype, self.device = model_dir, dtype, device
        self.num_bytes = {}

    def __enter__(self) -> RandomWeights:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def total_bytes(self) -> int:
        """As `Weights` has it: of the files."""
        return sum(self.num_bytes.values())

    def rename(self, prefixes: Mapping[str, str]) -> None:
        """Names are those of today."""

    def has(self, name: str) -> bool:
        """Everything is there."""
        return True

    def whole(self, name: str, shape: Sequence[int]) -> Tensor:
        """See `Weights`."""
        tensor = self._make(name, shape)
        self.num_bytes[name] = tensor.nbytes
        return tensor

    def exact(self, name: str, shape: Sequence[int]) -> Tensor:
        """See `Weights`."""
        return self.whole(name, shape).float()

    def rows(self, name: str, shape: Sequence[int], start: int, stop: int) -> Tensor:
        """See `Weights`."""
        return self.whole(name, shape)[start:stop]

    def columns(self, name: str, shape: Sequence[int], start: int, stop: int) -> Tensor:
        """See `Weights`."""
        return self.whole(name, shape)[:, start:stop]

    def _make(self, name: str, shape: Sequence[int]) -> Tensor:
        if len(shape) == 1:
            value = 0.0 if name.endswith("bias") else 1.0
            return torch.full(list(shape), value, dtype=self.dtype, device=self.device)
        generator = torch.Generator(self.device).manual_seed(zlib.crc32(name.encode()))
        made = torch.randn(list(shape), generator=generator, dtype=self.dtype, device=self.device)
        return made.mul_(math.prod(shape[1:]) ** -0.5)
