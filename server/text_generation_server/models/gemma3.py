"""Gemma 3: SigLIP, whose grid of patches is averaged down to a coarser one, and Gemma's text half. One size of view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from text_generation_server.distributed import Ranks
from text_generation_server.layers.decoder import DecoderSpec
from text_generation_server.layers.norm import RmsNorm
from text_generation_server.layers.vision import encoder
from text_generation_server.models.vision_language import VisionLanguageModel
from text_generation_server.weights import Weights


class Gemma3(VisionLanguageModel):
    """See the module."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        super().__init__(config, weights, ranks)
        vision, name = config["vision_config"], "model.multi_modal_projector"
        # The head makes one vector of an image, for other uses of the encoder.
        self._encoder = encoder(vision, weights, "model.vision_tower", vision_use_head=False)
        width = int(vision["hidden_size"])
        norm_W = weights.exact(f"{name}.mm_soft_emb_norm.weight", (width,))
        self._norm = RmsNorm(1.0 + norm_W, float(vision["layer_norm_eps"]))
        self._projection_WH = weights.whole(f"{name}.mm_input_projection_weight", (width, self.spec.hidden_size))
        self._side = int(vision["image_size"]) // int(vision["patch_size"])
        self._kernel = self._side // int(int(config["mm_tokens_per_image"]) ** 0.5)

    @staticmethod
    def decoder_spec(config: Mapping[str, Any], *, tied_head: bool) -> DecoderSpec:
        """The decoder of `text_config`. The tokens of an image see each other."""
        return replace(VisionLanguageModel.decoder_spec(config, tied_head=tied_head), has_ranges=True)

    def encode_views(self, pixel_values_NCHW: Tensor) -> Tensor:
        """See `Model`."""
        patches_NPW = self._encoder(pixel_values_NCHW).last_hidden_state
        grid_NWYX = patches_NPW.transpose(1, 2).unflatten(2, (self._side, self._side))
        pooled_NTW = F.avg_pool2d(grid_NWYX, self._kernel).flatten(2).transpose(1, 2)
        return self._norm(pooled_NTW) @ self._projection_WH
