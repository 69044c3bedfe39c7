"""LLaVA 1.5: a CLIP or SigLIP encoder, a two-layer projector, a decoder of the Llama line. One view an image.

The hub's Pixtral is one too, with an encoder of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from text_generation_server.distributed import Ranks
from text_generation_server.layers.pixtral import PixtralEncoder
from text_generation_server.layers.vision import FeatureEncoder
from text_generation_server.models import UnsupportedModel
from text_generation_server.models.vision_language import Projector, VisionLanguageModel
from text_generation_server.weights import Weights


class Llava(VisionLanguageModel):
    """See the module."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        super().__init__(config, weights, ranks)
        vision, layers = config["vision_config"], config["vision_feature_layer"]
        is_pixtral = vision["model_type"] == "pixtral"
        encode = PixtralEncoder if is_pixtral else FeatureEncoder
        self._encoder = encode(vision, weights, "model.vision_tower", layers)
        width = int(vision["hidden_size"]) * (1 if isinstance(layers, int) else len(layers))
        self._projector = Projector(config, weights, (width, self.spec.hidden_size))
        # Neither SigLIP nor Pixtral has a class token to drop; their checkpoints say "full".
        self._first_patch = 1 if config["vision_feature_select_strategy"] == "default" else 0
        if is_pixtral and self._first_patch:
            raise UnsupportedModel("vision_feature_select_strategy must be full for a Pixtral encoder")

    def encode_views(self, pixel_values_NCHW: Tensor) -> Tensor:
        """See `Model`."""
        return self._projector(self._encoder(pixel_values_NCHW)[:, self._first_patch :])
