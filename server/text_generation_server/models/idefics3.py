"""Idefics 3 and SmolVLM: a SigLIP encoder, squares of its patches side by side in one token, a Llama decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from text_generation_server.distributed import Ranks
from text_generation_server.layers.linear import replicated
from text_generation_server.layers.vision import encoder
from text_generation_server.models.vision_language import VisionLanguageModel
from text_generation_server.weights import Weights

TEXT_NAMES = {"model.text_model.": "model.language_model."}
"""Their name for the decoder."""


class Idefics3(VisionLanguageModel):
    """See the module."""

    old_names = TEXT_NAMES

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        super().__init__(config, weights, ranks)
        # The two families' encoders are one; some checkpoints give theirs the type of the whole model.
        vision = dict(config["vision_config"]) | {"model_type": "idefics3_vision"}
        self._encoder = encoder(vision, weights, "model.vision_model")
        self._scale = int(config["scale_factor"])
        width = int(vision["hidden_size"]) * self._scale**2
        shape = (self.spec.hidden_size, width)
        self._projection = replicated(weights, "model.connector.modality_projection.proj", shape, bias=False)

    def encode_views(self, pixel_values_NCHW: Tensor) -> Tensor:
        """See `Model`."""
        return self._projection(side_by_side(self._encoder(pixel_values_NCHW).last_hidden_state, self._scale))


def side_by_side(patches_NPD: Tensor, scale: int) -> Tensor:
    """Each square of `scale` x `scale` neighbours of a square grid as one vector, its rows one after the other."""
    views, patches, width = patches_NPD.shape
    side = int(patches**0.5) // scale
    grid = patches_NPD.reshape(views, side, scale, side, scale, width)
    return grid.transpose(2, 3).reshape(views, side * side, scale * scale * width)
