"""The prepacked product against the plain one, on both sides of the size where packing begins."""

from __future__ import annotations

import pytest
import torch

from text_generation_server.layers.linear import MIN_PREPACKED_ELEMENTS, Linear


@pytest.mark.parametrize("rows", [64, MIN_PREPACKED_ELEMENTS // 128])
@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.2), (torch.float16, 0.1)])
def test_equals_a_plain_product(rows: int, batch: int, biased: bool, dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(rows + batch)
    x, weight = torch.randn(batch, 128, generator=generator), torch.randn(rows, 128, generator=generator)
    bias = torch.randn(rows, generator=generator)
    with torch.inference_mode():
        y = Linear(weight.to(dtype), bias.to(dtype) if biased else None)(x.to(dtype))
    assert y.dtype is dtype
    torch.testing.assert_close(y.float(), x @ weight.T + bias * biased, atol=tolerance, rtol=0.05)
