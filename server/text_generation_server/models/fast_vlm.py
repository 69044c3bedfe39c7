"""FastVLM: a convolutional vision encoder, a two-layer projector, a Qwen 2 decoder.

One view an image; every cell of the encoder's last feature map becomes one image token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from text_generation_server.distributed import Ranks
from text_generation_server.models import UnsupportedModel
from text_generation_server.models.efficientnet_lite import EfficientNetLite
from text_generation_server.models.vision_language import Projector, VisionLanguageModel
from text_generation_server.weights import Weights

ENCODERS: dict[str, Callable[[Weights, str], EfficientNetLite]] = {
    "tf_efficientnet_lite0": EfficientNetLite,
}


class FastVlm(VisionLanguageModel):
    """See the module."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        super().__init__(config, weights, ranks)
        self._encoder = _encoder(config["vision_config"], weights)
        width = int(config["vision_config"]["hidden_size"])
        self._projector = Projector(config, weights, (width, self.spec.hidden_size))

    def encode_views(self, pixel_values_NCHW: Tensor) -> Tensor:
        """See `Model`. Cells are taken row by row."""
        features_NCHW = self._encoder(pixel_values_NCHW)
        return self._projector(features_NCHW.flatten(2).transpose(1, 2))


def _encoder(config: Mapping[str, Any], weights: Weights) -> EfficientNetLite:
    architecture = config.get("architecture")
    if architecture not in ENCODERS:
        raise UnsupportedModel(f"vision encoder {architecture} is not known; there is {', '.join(ENCODERS)}")
    return ENCODERS[architecture](weights, "model.vision_tower.timm_model")
