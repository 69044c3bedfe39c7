"""Rotary position embedding: a table made once, looked up once a step, applied in every layer.

Kinds are rows of `FREQUENCIES`; each turns the config's `rope_parameters` into inverse frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RopeSpec:
    """`parameters` is the checkpoint's own `rope_parameters`, with `rope_type` and `rope_theta` filled in."""

    head_dim: int
    max_positions: int
    parameters: Mapping[str, Any]


class Rotary:
    """Cosines and sines for every position the model was made for."""

    def __init__(self, spec: RopeSpec, device: torch.device, dtype: torch.dtype) -> None:
        frequencies = _frequencies(spec)
        angles_PD = torch.outer(torch.arange(spec.max_positions, dtype=torch.float32), frequencies).repeat(1, 2)
        half = spec.head_dim // 2
        sines_PD = angles_PD.sin()
        # rotate_half(x) is roll(x) with the first half negated; the sign lives in the table.
        sines_PD[:, :half].neg_()
        table_P2D = torch.stack((angles_PD.cos(), sines_PD), dim=1)
        self._table_P2D = table_P2D.to(device=device, dtype=dtype)
        self._half = half

    def at(self, positions_AT: Tensor) -> Tensor:
        """Cosines and sines of each token: [T, 2, 1, D]. One axis; the last axis is broadcast over heads."""
        return self._table_P2D.index_select(0, positions_AT[0]).unsqueeze(2)

    def rotate(self, heads_TND: Tensor, table_T21D: Tensor) -> Tensor:
        """Turns every head by its token's angle, in place."""
        turned = heads_TND.roll(self._half, -1)
        return heads_TND.mul_(table_T21D[:, 0]).addcmul_(turned, table_T21D[:, 1])


def _frequencies(spec: RopeSpec) -> Tensor:
    kind = spec.parameters["rope_type"]
    if kind not in FREQUENCIES:
        raise ValueError(f"rope_type {kind} is not supported; known: {', '.join(FREQUENCIES)}")
    return FREQUENCIES[kind](_default(spec), spec.parameters)


def _default(spec: RopeSpec) -> Tensor:
    exponents = torch.arange(0, spec.head_dim, 2, dtype=torch.float32) / spec.head_dim
    return 1.0 / float(spec.parameters["rope_theta"]) ** exponents


def _linear(frequencies: Tensor, parameters: Mapping[str, Any]) -> Tensor:
    return frequencies / float(parameters["factor"])


def _llama3(frequencies: Tensor, parameters: Mapping[str, Any]) -> Tensor:
    # Long waves are stretched, short ones kept, those between blended.
    factor, low, high = (float(parameters[k]) for k in ("factor", "low_freq_factor", "high_freq_factor"))
    turns = float(parameters["original_max_position_embeddings"]) * frequencies / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - smooth) * frequencies / factor + smooth * frequencies


FREQUENCIES: dict[str, Callable[[Tensor, Mapping[str, Any]], Tensor]] = {
    "default": lambda frequencies, _: frequencies,
    "linear": _linear,
    "llama3": _llama3,
}
