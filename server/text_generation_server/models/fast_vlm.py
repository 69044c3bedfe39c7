"""FastVLM: a convolutional vision encoder, a two-layer projector, a Qwen 2 decoder.

One view an image; every cell of the encoder's last feature map becomes one image token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from text_generation_server.attention.base import Attention
from text_generation_server.distributed import Ranks
from text_generation_server.layers.decoder import ACTIVATIONS, Decoder
from text_generation_server.layers.linear import replicated
from text_generation_server.models import ModelShape, UnsupportedModel
from text_generation_server.models.efficientnet_lite import EfficientNetLite
from text_generation_server.models.text_only import Qwen2
from text_generation_server.plan import ImageHeader
from text_generation_server.weights import Weights

ENCODERS: dict[str, Callable[[Weights, str], EfficientNetLite]] = {
    "tf_efficientnet_lite0": EfficientNetLite,
}


class FastVlm:
    """See the module."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        spec = Qwen2.spec(config["text_config"] | {"tie_word_embeddings": config.get("tie_word_embeddings", False)})
        self._encoder = _encoder(config["vision_config"], weights)
        self._projector = Projector(config, weights, spec.hidden_size)
        self._decoder = Decoder(spec, weights, ranks, body="model.language_model", head="lm_head")
        self.shape = ModelShape(
            vocab_size=spec.vocab_size,
            max_positions=spec.max_positions,
            embedding_width=spec.hidden_size,
            attention=self._decoder.shape,
        )
        self.embed = self._decoder.embed
        self.logits = self._decoder.logits

    def encode_views(self, pixel_values_NCHW: Tensor) -> Tensor:
        """See `Model`. Cells are taken row by row."""
        features_NCHW = self._encoder(pixel_values_NCHW)
        return self._projector(features_NCHW.flatten(2).transpose(1, 2))

    def join_views(self, views: Sequence[Tensor], header: ImageHeader) -> Tensor:
        """See `Model`."""
        return torch.cat(list(views))

    def forward(self, hidden_TH: Tensor, positions_AT: Tensor, attention: Attention) -> Tensor:
        """See `Model`."""
        return self._decoder.forward(hidden_TH, positions_AT, attention)


class Projector:
    """From the encoder's width to the decoder's."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, width: int) -> None:
        bias = bool(config.get("multimodal_projector_bias", True))
        name = "model.multi_modal_projector"
        vision_width = int(config["vision_config"]["hidden_size"])
        self._first = replicated(weights, f"{name}.linear_1", (width, vision_width), bias)
        self._second = replicated(weights, f"{name}.linear_2", (width, width), bias)
        self._activation = ACTIVATIONS[config.get("projector_hidden_act", "gelu")]

    def __call__(self, features: Tensor) -> Tensor:
        return self._second(self._activation(self._first(features)))


def _encoder(config: Mapping[str, Any], weights: Weights) -> EfficientNetLite:
    architecture = config.get("architecture")
    if architecture not in ENCODERS:
        raise UnsupportedModel(f"vision encoder {architecture} is not known; there is {', '.join(ENCODERS)}")
    return ENCODERS[architecture](weights, "model.vision_tower.timm_model")
