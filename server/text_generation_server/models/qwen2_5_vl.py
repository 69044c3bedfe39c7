"""Qwen 2.5 VL: Qwen 2 VL with another encoder, most of whose blocks look no further than a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from text_generation_server.distributed import Ranks
from text_generation_server.layers.packed import bounds
from text_generation_server.models.qwen2_vl import Qwen2Vl
from text_generation_server.weights import Weights


class Qwen25Vl(Qwen2Vl):
    """See the module."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        super().__init__(config, weights, ranks)
        vision = config["vision_config"]
        self._merge = int(vision["spatial_merge_size"])
        self._token = self._merge * int(vision["patch_size"])
        self._window = int(vision["window_size"]) // self._token

    @staticmethod
    def make_encoder(vision: Mapping[str, Any]) -> nn.Module:
        """See `Qwen2Vl`."""
        from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

        return Qwen2_5_VisionTransformerPretrainedModel(Qwen2_5_VLVisionConfig(**vision))

    def encoder_options(self, pixel_values_NCHW: Tensor) -> dict[str, Tensor]:
        """The windows, which the encoder would find out view by view."""
        count, _, height, width = pixel_values_NCHW.shape
        order, lengths = windows(height // self._token, width // self._token, self._window)
        orders = order + len(order) * torch.arange(count)[:, None]
        return {
            "window_index": orders.flatten().to(pixel_values_NCHW.device),
            "cu_window_seqlens": bounds(lengths.repeat(count) * self._merge**2),
        }


def windows(rows: int, columns: int, side: int) -> tuple[Tensor, Tensor]:
    """The tokens of a view window by window, and how many each window has; those at the right and below have fewer."""
    of_row, of_column = torch.arange(rows) // side, torch.arange(columns) // side
    window_of_token = (of_row[:, None] * -(-columns // side) + of_column).flatten()
    return window_of_token.argsort(stable=True), window_of_token.bincount()
