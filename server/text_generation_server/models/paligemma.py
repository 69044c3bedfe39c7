"""PaliGemma 1 and 2: SigLIP, one matrix, and the text half of Gemma 1 or 2. One size of view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from text_generation_server.distributed import Ranks
from text_generation_server.layers.decoder import DecoderSpec
from text_generation_server.layers.linear import replicated
from text_generation_server.layers.vision import encoder
from text_generation_server.models.vision_language import VisionLanguageModel
from text_generation_server.weights import Weights


class PaliGemma(VisionLanguageModel):
    """See the module."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        super().__init__(config, weights, ranks)
        vision = config["vision_config"]
        # The head makes one vector of an image, for other uses of the encoder.
        self._encoder = encoder(vision, weights, "model.vision_tower", vision_use_head=False)
        shape = (int(config["projection_dim"]), int(vision["hidden_size"]))
        self._projector = replicated(weights, "model.multi_modal_projector.linear", shape, bias=True)

    @staticmethod
    def decoder_spec(config: Mapping[str, Any], *, tied_head: bool) -> DecoderSpec:
        """The decoder of `text_config`. Its sliding layers too see all of a prompt."""
        spec = VisionLanguageModel.decoder_spec(config, tied_head=tied_head)
        return replace(spec, has_ranges=True, ranges_ignore_windows=True)

    def encode_views(self, pixel_values_NCHW: Tensor) -> Tensor:
        """See `Model`."""
        return self._projector(self._encoder(pixel_values_NCHW).last_hidden_state)
