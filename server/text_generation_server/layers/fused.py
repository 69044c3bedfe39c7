"""What is memory-bound in a layer, in one pass over memory where there is a GPU.

Each function is its PyTorch twin on a CPU, and a Triton kernel on a GPU. The kernels round once, at the end, where the
twins round after each operation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
ELEMENTS_A_PROGRAM = 1024


def rms_norm(x_TH: Tensor, weight_H: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight in the weight's precision, as x is typed. Zhang and Sennrich 2019, arXiv 1910.07467."""
    if not _on_gpu(x_TH):
        return F.rms_norm(x_TH.to(weight_H.dtype), weight_H.shape, weight_H, eps).to(x_TH.dtype)
    return _norm(x_TH, None, 1.0, weight_H, eps)[1]


def add_rms_norm(
    hidden_TH: Tensor, added_TH: Tensor, scale: float, weight_H: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """hidden + scale * added, and its `rms_norm`."""
    if not _on_gpu(hidden_TH):
        total_TH = torch.add(hidden_TH, added_TH, alpha=scale)
        return total_TH, rms_norm(total_TH, weight_H, eps)
    return _norm(hidden_TH, added_TH, scale, weight_H, eps)


class Gate:
    """activation(gate) * up of rows that hold gate, then up. Shazeer 2020, arXiv 2002.05202."""

    def __init__(self, activation: str) -> None:
        """Raises KeyError unless `activation` is one of `ACTIVATIONS`."""
        self._activate = ACTIVATIONS[activation]
        self._number = list(ACTIVATIONS).index(activation)

    def __call__(self, gate_up_TF: Tensor) -> Tensor:
        if _on_gpu(gate_up_TF):
            return _gated(gate_up_TF, self._number)
        gate, up = gate_up_TF.chunk(2, -1)
        return self._activate(gate).mul_(up)


def normalised(pixels_NHW3: Tensor, scale_3: Tensor, shift_3: Tensor, dtype: torch.dtype) -> Tensor:
    """pixel * scale + shift of uint8 pixels, computed in float32."""
    if not _on_gpu(pixels_NHW3):
        return torch.addcmul(shift_3, pixels_NHW3.to(torch.float32), scale_3).to(dtype)
    return _normalised(pixels_NHW3, scale_3, shift_3, dtype)


def _on_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _norm(hidden: Tensor, added: Tensor | None, scale: float, weight_H: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    import triton

    from text_generation_server.layers.kernels import norm_kernel

    hidden = hidden.contiguous()
    other = hidden if added is None else added.contiguous()
    width = hidden.shape[-1]
    total = hidden if added is None else torch.empty_like(hidden)
    output = torch.empty_like(hidden)
    size = triton.next_power_of_2(width)
    norm_kernel[(hidden.numel() // width,)](
        hidden, other, weight_H, total, output, width, eps, scale,
        SIZE_H=size, ADDED=added is not None, num_warps=min(16, max(4, size // 512)),
    )  # fmt: skip
    return total, output


def _gated(gate_up_TF: Tensor, activation: int) -> Tensor:
    import triton

    from text_generation_server.layers.kernels import gate_kernel

    rows, width = gate_up_TF.shape[0], gate_up_TF.shape[1] // 2
    output = torch.empty(rows, width, dtype=gate_up_TF.dtype, device=gate_up_TF.device)
    gate_kernel[(rows, triton.cdiv(width, ELEMENTS_A_PROGRAM))](
        gate_up_TF.contiguous(), output, width,
        SIZE_E=ELEMENTS_A_PROGRAM, ACTIVATION=activation,
    )  # fmt: skip
    return output


def _normalised(pixels_NHW3: Tensor, scale_3: Tensor, shift_3: Tensor, dtype: torch.dtype) -> Tensor:
    import triton

    from text_generation_server.layers.kernels import normalise_kernel

    output = torch.empty(pixels_NHW3.shape, dtype=dtype, device=pixels_NHW3.device)
    count = pixels_NHW3.numel()
    normalise_kernel[(triton.cdiv(count, ELEMENTS_A_PROGRAM),)](
        pixels_NHW3.contiguous(), scale_3, shift_3, output, count, SIZE_E=ELEMENTS_A_PROGRAM
    )
    return output
