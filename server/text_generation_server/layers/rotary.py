"""Rotary position embedding: a table made once, looked up once a step, applied in every layer that shares it.

Kinds are rows of `FREQUENCIES`; each turns the config's `rope_parameters` into inverse frequencies. Models whose images
have rows and columns give every token three positions (time, row, column) and turn a part of each head by each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RopeSpec:
    """`parameters` is the checkpoint's own `rope_parameters`, with `rope_type` and `rope_theta` filled in.

    `mrope_section` among them says how many pairs of a head each axis turns.
    """

    head_dim: int
    max_positions: int
    parameters: Mapping[str, Any]

    @property
    def num_axes(self) -> int:
        """Position axes that turn a head."""
        return len(self.parameters.get("mrope_section") or [0])

    def with_axes(self, sections: list[int], *, interleaved: bool) -> RopeSpec:
        """The same, turned by several axes: as the checkpoint divides a head among them, or else by `sections`."""
        divided = self.parameters.get("mrope_section") or sections
        return replace(self, parameters={**self.parameters, "mrope_section": divided, "mrope_interleaved": interleaved})


class Rotary:
    """Cosines and sines for every position the model was made for."""

    def __init__(self, spec: RopeSpec, device: torch.device, dtype: torch.dtype) -> None:
        frequencies, scale = _frequencies(spec)
        angles_PD = torch.outer(torch.arange(spec.max_positions, dtype=torch.float32), frequencies).repeat(1, 2)
        half = spec.head_dim // 2
        cosines_PD, sines_PD = angles_PD.cos() * scale, angles_PD.sin() * scale
        # What heads are multiplied with is rolled by half, and its first half negated: the sign lives in the table.
        sines_PD[:, :half].neg_()
        self._table_P2D = torch.stack((cosines_PD, sines_PD), dim=1).to(device=device, dtype=dtype)
        self._axis_D = None if spec.num_axes == 1 else _axes(spec).repeat(2).to(device)

    def at(self, positions_AT: Tensor) -> Tensor:
        """Cosines and sines of each token: [T, 2, 1, D]; the third axis is broadcast over heads."""
        if self._axis_D is None:
            return self._table_P2D.index_select(0, positions_AT[0]).unsqueeze(2)
        table_AT2D = self._table_P2D[positions_AT]
        index = self._axis_D.expand(1, *table_AT2D.shape[1:])
        return table_AT2D.gather(0, index)[0].unsqueeze(2)


def _axes(spec: RopeSpec) -> Tensor:
    """Which axis turns each pair of a head."""
    sections = [int(section) for section in spec.parameters["mrope_section"]]
    if sum(sections) != spec.head_dim // 2:
        raise ValueError(f"mrope_section {sections} does not make up half of head_dim {spec.head_dim}")
    if not spec.parameters.get("mrope_interleaved", False):
        return torch.repeat_interleave(torch.arange(len(sections)), torch.tensor(sections))
    axes = torch.zeros(spec.head_dim // 2, dtype=torch.int64)
    for axis, section in enumerate(sections[1:], start=1):
        axes[axis : section * len(sections) : len(sections)] = axis
    return axes


def _frequencies(spec: RopeSpec) -> tuple[Tensor, float]:
    kind = spec.parameters["rope_type"]
    if kind not in FREQUENCIES:
        raise ValueError(f"rope_type {kind} is not supported; known: {', '.join(FREQUENCIES)}")
    return FREQUENCIES[kind](_default(spec), spec)


def _default(spec: RopeSpec) -> Tensor:
    exponents = torch.arange(0, spec.head_dim, 2, dtype=torch.float32) / spec.head_dim
    return 1.0 / float(spec.parameters["rope_theta"]) ** exponents


def _linear(frequencies: Tensor, spec: RopeSpec) -> tuple[Tensor, float]:
    return frequencies / float(spec.parameters["factor"]), 1.0


def _llama3(frequencies: Tensor, spec: RopeSpec) -> tuple[Tensor, float]:
    # Long waves are stretched, short ones kept, those between blended.
    parameters = spec.parameters
    factor, low, high = (float(parameters[k]) for k in ("factor", "low_freq_factor", "high_freq_factor"))
    turns = float(parameters["original_max_position_embeddings"]) * frequencies / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - smooth) * frequencies / factor + smooth * frequencies, 1.0


def _yarn(frequencies: Tensor, spec: RopeSpec) -> tuple[Tensor, float]:
    """Peng et al. 2023, https://arxiv.org/abs/2309.00071: pairs that turn often are kept, slow ones stretched."""
    parameters, pairs = spec.parameters, spec.head_dim // 2
    factor, original = float(parameters["factor"]), float(parameters["original_max_position_embeddings"])

    def pair_of(turns: float) -> float:
        return pairs * math.log(original / (turns * 2 * math.pi)) / math.log(float(parameters["rope_theta"]))

    first, last = pair_of(float(parameters.get("beta_fast") or 32)), pair_of(float(parameters.get("beta_slow") or 1))
    if parameters.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, spec.head_dim - 1)
    stretched = ((torch.arange(pairs, dtype=torch.float32) - first) / max(last - first, 0.001)).clamp(0, 1)
    return frequencies * (1 - stretched) + frequencies / factor * stretched, _yarn_scale(factor, parameters)


def _yarn_scale(factor: float, parameters: Mapping[str, Any]) -> float:
    """What cosines and sines are multiplied with, so that attention stays as sharp."""

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if parameters.get("attention_factor") is not None:
        return float(parameters["attention_factor"])
    if parameters.get("mscale") and parameters.get("mscale_all_dim"):
        return scale(float(parameters["mscale"])) / scale(float(parameters["mscale_all_dim"]))
    return scale(1.0)


Kind = Callable[[Tensor, RopeSpec], tuple[Tensor, float]]

FREQUENCIES: dict[str, Kind] = {
    "default": lambda frequencies, _: (frequencies, 1.0),
    # What Qwen 2 VL calls the default with three axes.
    "mrope": lambda frequencies, _: (frequencies, 1.0),
    # Grows with a sequence that is longer than the model's positions, and no sequence is.
    "dynamic": lambda frequencies, _: (frequencies, 1.0),
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}
