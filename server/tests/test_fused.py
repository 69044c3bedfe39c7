"""Kernels of memory-bound parts against their PyTorch twins: compiled on a GPU, interpreted on a CPU."""

from __future__ import annotations

import pytest
import torch
from device import DEVICE

from text_generation_server.layers import fused

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@pytest.fixture(params=TOLERANCES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    return chosen


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    tolerance = TOLERANCES[wanted.dtype]
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


def numbers(*shape: int, dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(device=DEVICE, dtype=dtype)


@pytest.mark.parametrize("width", [16, 80, 1000])
@pytest.mark.parametrize("wide_weight", [False, True])
def test_norm(dtype: torch.dtype, width: int, wide_weight: bool) -> None:
    x = numbers(5, width, dtype=dtype)
    weight = numbers(width, dtype=torch.float32 if wide_weight else dtype, seed=2)
    close(fused._norm(x, None, 1.0, weight, 1e-6)[1], fused.rms_norm(x.cpu(), weight.cpu(), 1e-6).to(DEVICE))


def test_norm_of_heads_that_are_a_part(dtype: torch.dtype) -> None:
    heads = numbers(3, 6, 64, dtype=dtype)[:, 1:4]
    weight = numbers(64, dtype=dtype, seed=2)
    close(fused._norm(heads, None, 1.0, weight, 1e-6)[1], fused.rms_norm(heads.cpu(), weight.cpu(), 1e-6).to(DEVICE))


@pytest.mark.parametrize("scale", [1.0, 0.22])
def test_norm_behind_a_sum(dtype: torch.dtype, scale: float) -> None:
    hidden, added = numbers(5, 96, dtype=dtype), numbers(5, 96, dtype=dtype, seed=3)
    weight = numbers(96, dtype=dtype, seed=2)
    found = fused._norm(hidden.clone(), added, scale, weight, 1e-6)
    wanted = fused.add_rms_norm(hidden.cpu(), added.cpu(), scale, weight.cpu(), 1e-6)
    for one, other in zip(found, wanted, strict=True):
        close(one, other.to(DEVICE))


@pytest.mark.parametrize("activation", fused.ACTIVATIONS)
@pytest.mark.parametrize("width", [24, 1500])
def test_gate(dtype: torch.dtype, activation: str, width: int) -> None:
    gate_up = numbers(4, 2 * width, dtype=dtype) * 3
    number = list(fused.ACTIVATIONS).index(activation)
    close(fused._gated(gate_up, number), fused.Gate(activation)(gate_up.cpu()).to(DEVICE))


def test_pixels(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 19, 23, 3), dtype=torch.uint8, generator=generator).to(DEVICE)
    scale, shift = numbers(3, dtype=torch.float32) / 255, numbers(3, dtype=torch.float32, seed=2)
    wanted = fused.normalised(pixels.cpu(), scale.cpu(), shift.cpu(), dtype)
    close(fused._normalised(pixels, scale, shift, dtype), wanted.to(DEVICE))
