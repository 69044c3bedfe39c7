"""Mistral 3: a Pixtral encoder whose patches are merged square by square, a two-layer projector, a Mistral decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from text_generation_server.distributed import Ranks
from text_generation_server.layers.linear import replicated
from text_generation_server.layers.norm import RmsNorm
from text_generation_server.layers.pixtral import PixtralEncoder
from text_generation_server.models.vision_language import Projector, VisionLanguageModel
from text_generation_server.weights import Weights


class Mistral3(VisionLanguageModel):
    """See the module."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        super().__init__(config, weights, ranks)
        vision, name = config["vision_config"], "model.multi_modal_projector"
        width, self._side = int(vision["hidden_size"]), int(config["spatial_merge_size"])
        self._encoder = PixtralEncoder(vision, weights, "model.vision_tower", config["vision_feature_layer"])
        self._norm = RmsNorm(
            weights.whole(f"{name}.norm.weight", (width,)), float(config["text_config"]["rms_norm_eps"])
        )
        self._merge = replicated(
            weights, f"{name}.patch_merger.merging_layer", (width, width * self._side**2), bias=False
        )
        self._projector = Projector(config, weights, (width, self.spec.hidden_size))

    def encode_views(self, pixel_values_NCHW: Tensor) -> Tensor:
        """See `Model`."""
        features_NPW = self._norm(self._encoder(pixel_values_NCHW))
        height, width = (side // self._encoder.patch_size for side in pixel_values_NCHW.shape[-2:])
        grid_NWhw = features_NPW.transpose(1, 2).view(len(features_NPW), -1, height, width)
        # Each column is a square of patches: all of its first channel, then all of the second.
        squares = F.unfold(grid_NWhw, self._side, stride=self._side)
        return self._projector(self._merge(squares.transpose(1, 2)))
