"""Triton kernels of what is memory-bound in a layer: each reads its inputs once and writes its output once.

`fused.py` beside this file launches them and says what they equal.
Suffixes: E elements of a program, H the width of a token.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def norm_kernel(
    hidden, added, weight, total, output,
    width, eps, scale,
    SIZE_H: tl.constexpr, ADDED: tl.constexpr,
):  # fmt: skip
    """One token: hidden + scale * added into `total`, and its RMS norm in the weight's precision into `output`."""
    row = tl.program_id(0).to(tl.int64) * width
    h_H = tl.arange(0, SIZE_H)
    inside_H = h_H < width
    value_H = tl.load(hidden + row + h_H, inside_H, 0.0)
    if ADDED:
        sum_H = value_H.to(tl.float32) + scale * tl.load(added + row + h_H, inside_H, 0.0).to(tl.float32)
        # What is normalised is what the next layer will read.
        value_H = sum_H.to(total.dtype.element_ty)
        tl.store(total + row + h_H, value_H, inside_H)
    value_H = value_H.to(tl.float32)
    factor = tl.rsqrt(tl.sum(value_H * value_H, 0) / width + eps)
    found_H = value_H * factor * tl.load(weight + h_H, inside_H, 0.0).to(tl.float32)
    tl.store(output + row + h_H, found_H.to(output.dtype.element_ty), inside_H)


@triton.jit
def gate_kernel(
    gate_up, output,
    width,
    SIZE_E: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """Part of one token: activation(gate) * up. `ACTIVATION` 0: SiLU, 1: GELU, 2: GELU by tanh."""
    token = tl.program_id(0).to(tl.int64)
    e_E = tl.program_id(1) * SIZE_E + tl.arange(0, SIZE_E)
    inside_E = e_E < width
    gate_E = tl.load(gate_up + token * 2 * width + e_E, inside_E, 0.0).to(tl.float32)
    up_E = tl.load(gate_up + token * 2 * width + width + e_E, inside_E, 0.0).to(tl.float32)
    if ACTIVATION == 0:
        active_E = gate_E * tl.sigmoid(gate_E)
    elif ACTIVATION == 1:
        active_E = 0.5 * gate_E * (1 + tl.erf(gate_E * 0.7071067811865476))
    else:
        # tanh(x) = 2 sigmoid(2 x) - 1
        inner_E = 0.7978845608028654 * (gate_E + 0.044715 * gate_E * gate_E * gate_E)
        active_E = gate_E * tl.sigmoid(2 * inner_E)
    tl.store(output + token * width + e_E, (active_E * up_E).to(output.dtype.element_ty), inside_E)


@triton.jit
def normalise_kernel(
    pixels, scales, shifts, output,
    count,
    SIZE_E: tl.constexpr,
):  # fmt: skip
    """Bytes of RGB to numbers: pixel * scale + shift, three channels one beside the other."""
    e_E = tl.program_id(0).to(tl.int64) * SIZE_E + tl.arange(0, SIZE_E)
    inside_E = e_E < count
    value_E = tl.load(pixels + e_E, inside_E, 0).to(tl.float32)
    channel_E = e_E % 3
    found_E = value_E * tl.load(scales + channel_E, inside_E, 0.0) + tl.load(shifts + channel_E, inside_E, 0.0)
    tl.store(output + e_E, found_E.to(output.dtype.element_ty), inside_E)
