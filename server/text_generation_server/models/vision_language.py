"""What vision-language models share: a decoder of the line, and image embeddings that take tokens' places in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from text_generation_server.attention.base import Attention
from text_generation_server.distributed import Ranks
from text_generation_server.layers.decoder import Added, Decoder, DecoderSpec
from text_generation_server.layers.fused import ACTIVATIONS
from text_generation_server.layers.linear import replicated
from text_generation_server.models import ModelShape
from text_generation_server.models.text_only import decoder_spec
from text_generation_server.plan import ImageHeader
from text_generation_server.weights import Weights

OLD_NAMES = {
    "language_model.model.": "model.language_model.",
    "language_model.lm_head.": "lm_head.",
    "vision_tower.": "model.vision_tower.",
    "vision_tower.vision_model.": "model.vision_tower.",
    "model.vision_tower.vision_model.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
    "image_newline": "model.image_newline",
}
"""Most families' layout before transformers 4.52, and the level that its version 5 leaves out."""


class VisionLanguageModel(ABC):
    """One rank. A family adds its encoder and projector, and how views become one image's embeddings."""

    old_names: ClassVar[Mapping[str, str]] = OLD_NAMES

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        self.spec = self.decoder_spec(config, tied_head=_is_tied(config, weights))
        self._decoder = Decoder(self.spec, weights, ranks, body="model.language_model", head="lm_head")
        self.shape = ModelShape(
            vocab_size=self.spec.vocab_size,
            max_positions=self.spec.max_positions,
            embedding_width=self.spec.hidden_size,
            attention=self._decoder.shape,
            position_axes=max(rope.num_axes for rope in self.spec.ropes),
        )
        self.embed = self._decoder.embed
        self.logits = self._decoder.logits

    @staticmethod
    def decoder_spec(config: Mapping[str, Any], *, tied_head: bool) -> DecoderSpec:
        """The decoder of `text_config`."""
        return decoder_spec(dict(config["text_config"]) | {"tie_word_embeddings": tied_head})

    @abstractmethod
    def encode_views(self, pixel_values_NCHW: Tensor) -> Tensor:
        """See `Model`."""

    def join_views(self, views: Sequence[Tensor], header: ImageHeader) -> Tensor:
        """See `Model`. One view after the other, unless a family says otherwise."""
        return torch.cat(list(views))

    def forward(
        self, hidden_TH: Tensor, positions_AT: Tensor, attention: Attention, added: Sequence[Added] = ()
    ) -> Tensor:
        """See `Model`."""
        return self._decoder.forward(hidden_TH, positions_AT, attention, added)


class Projector:
    """Two matrices with an activation between them: from the encoder's width to the decoder's."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, widths: tuple[int, int]) -> None:
        bias = bool(config.get("multimodal_projector_bias", True))
        name = "model.multi_modal_projector"
        self._first = replicated(weights, f"{name}.linear_1", (widths[1], widths[0]), bias)
        self._second = replicated(weights, f"{name}.linear_2", (widths[1], widths[1]), bias)
        self._activation = ACTIVATIONS[config.get("projector_hidden_act", "gelu")]

    def __call__(self, features: Tensor) -> Tensor:
        return self._second(self._activation(self._first(features)))


def _is_tied(config: Mapping[str, Any], weights: Weights) -> bool:
    """Whether the output head is the token embedding: if it is said so anywhere and no other head is there.

    Large Mistral 3 and InternVL checkpoints have a head and leave the setting to their class, whose default is to tie.
    """
    said = config.get("tie_word_embeddings", False) or config["text_config"].get("tie_word_embeddings", False)
    return bool(said) and not weights.has("lm_head.weight")
