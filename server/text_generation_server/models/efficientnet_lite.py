"""EfficientNet-Lite0 as a vision encoder: pixel values in, the last feature map out.

Batch norm is folded into the convolutions at load, ReLU6 into their kernel where oneDNN has one. Padding is
TensorFlow's "SAME": a stride of 2 pads more below and to the right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.layers.linear import onednn_runs
from text_generation_server.weights import Weights

STEM_WIDTH = 32
HEAD_WIDTH = 1280
BATCH_NORM_EPS = 1e-3


@dataclass(frozen=True)
class Stage:
    """Blocks of one resolution; the first one strides."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class EfficientNetLite:
    """[N, 3, H, W] to [N, 1280, H/32, W/32]."""

    def __init__(self, weights: Weights, name: str) -> None:
        load = ConvLoader(weights, name)
        self._stem = load.convolution("conv_stem", "bn1", (STEM_WIDTH, 3, 3), stride=2)
        self._blocks = list(_blocks(load))
        self._head = load.convolution("conv_head", "bn2", (HEAD_WIDTH, STAGES[-1].width, 1))

    def __call__(self, x: Tensor) -> Tensor:
        x = self._stem(x.contiguous(memory_format=torch.channels_last))
        for block in self._blocks:
            x = block(x)
        return self._head(x)


class Block:
    """Expand, filter each channel, project; added to its input where the shapes agree."""

    def __init__(self, convolutions: list[Convolution], residual: bool) -> None:
        self._convolutions = convolutions
        self._residual = residual

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for convolution in self._convolutions:
            y = convolution(y)
        return x + y if self._residual else y


class Convolution:
    """A convolution with folded batch norm, "SAME" padding and, unless `linear`, ReLU6."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, linear: bool) -> None:
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        self._bias = bias
        self._stride = stride
        self._groups = len(weight) if weight.shape[1] == 1 else 1
        self._linear = linear
        self._kernel = weight.shape[-1]
        self._fused = onednn_runs(weight)
        self._packed = False

    def __call__(self, x: Tensor) -> Tensor:
        x, padding = self._padded(x)
        if self._fused:
            return self._convolve_fused(x, padding)
        y = F.conv2d(x, self._weight, self._bias, self._stride, padding, groups=self._groups)
        return y if self._linear else y.clamp_(0.0, 6.0)

    def _convolve_fused(self, x: Tensor, padding: int) -> Tensor:
        """One pass over memory for convolution and ReLU6."""
        shape = ([padding] * 2, [self._stride] * 2, [1, 1], self._groups)
        if not self._packed:
            # The best layout depends on the size of the view, first known here. Other sizes still come out right.
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(self._weight, *shape, list(x.shape))
            self._packed = True
        activation = ("none", [], "") if self._linear else ("hardtanh", [0.0, 6.0], "")
        return torch.ops.mkldnn._convolution_pointwise(x, self._weight, self._bias, *shape, *activation)  # type: ignore[no-any-return]

    def _padded(self, x: Tensor) -> tuple[Tensor, int]:
        if self._stride == 1:
            return x, self._kernel // 2
        height, width = (self._missing(size) for size in x.shape[-2:])
        left, top = width // 2, height // 2
        return F.pad(x, (left, width - left, top, height - top)), 0

    def _missing(self, size: int) -> int:
        return max((-(-size // self._stride) - 1) * self._stride + self._kernel - size, 0)


class ConvLoader:
    """Reads a convolution and the batch norm behind it as one."""

    def __init__(self, weights: Weights, name: str) -> None:
        self._weights = weights
        self._name = name

    def convolution(
        self, conv: str, norm: str, shape: tuple[int, int, int], stride: int = 1, linear: bool = False
    ) -> Convolution:
        """`shape` is output channels, input channels (1: each channel is filtered alone), kernel size."""
        width, channels, kernel = shape
        weight = self._weights.exact(f"{self._name}.{conv}.weight", (width, channels, kernel, kernel))
        scale, mean, variance, shift = (
            self._weights.exact(f"{self._name}.{norm}.{part}", (width,))
            for part in ("weight", "running_mean", "running_var", "bias")
        )
        scale = scale * torch.rsqrt(variance + BATCH_NORM_EPS)
        folded, bias = weight * scale[:, None, None, None], shift - mean * scale
        dtype = self._weights.dtype
        return Convolution(folded.to(dtype), bias.to(dtype), stride, linear)


def _blocks(load: ConvLoader) -> Iterator[Block]:
    width = STEM_WIDTH
    for number, stage in enumerate(STAGES):
        for index in range(stage.blocks):
            yield _block(load, f"blocks.{number}.{index}", stage, width, stage.stride if index == 0 else 1)
            width = stage.width


def _block(load: ConvLoader, name: str, stage: Stage, width: int, stride: int) -> Block:
    wide = width * stage.expansion
    filtering = (wide, 1, stage.kernel)
    if stage.expansion == 1:
        convolutions = [
            load.convolution(f"{name}.conv_dw", f"{name}.bn1", filtering, stride),
            load.convolution(f"{name}.conv_pw", f"{name}.bn2", (stage.width, wide, 1), linear=True),
        ]
    else:
        convolutions = [
            load.convolution(f"{name}.conv_pw", f"{name}.bn1", (wide, width, 1)),
            load.convolution(f"{name}.conv_dw", f"{name}.bn2", filtering, stride),
            load.convolution(f"{name}.conv_pwl", f"{name}.bn3", (stage.width, wide, 1), linear=True),
        ]
    return Block(convolutions, residual=stride == 1 and width == stage.width)
