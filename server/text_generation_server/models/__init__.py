"""Models by `model_type`, exactly as config.json spells it. A new family is a file and a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Protocol

from torch import Tensor

from text_generation_server.attention.base import Attention, AttentionShape
from text_generation_server.distributed import Ranks
from text_generation_server.layers.decoder import Added
from text_generation_server.plan import ImageHeader
from text_generation_server.weights import Weights

MODELS = {
    "fast_vlm": "text_generation_server.models.fast_vlm:FastVlm",
    "gemma": "text_generation_server.models.text_only:Gemma",
    "gemma2": "text_generation_server.models.text_only:Gemma2",
    "gemma3_text": "text_generation_server.models.text_only:Gemma3",
    "llama": "text_generation_server.models.text_only:Llama",
    "llava": "text_generation_server.models.llava:Llava",
    "mistral": "text_generation_server.models.text_only:Mistral",
    "qwen2": "text_generation_server.models.text_only:Qwen2",
    "qwen2_5_vl": "text_generation_server.models.qwen2_5_vl:Qwen25Vl",
    "qwen2_vl": "text_generation_server.models.qwen2_vl:Qwen2Vl",
    "qwen3": "text_generation_server.models.text_only:Qwen3",
    "qwen3_vl": "text_generation_server.models.qwen3_vl:Qwen3Vl",
}


class UnsupportedModel(Exception):
    """No row of `MODELS`, or a variant its file does not cover."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What the rest of the shard needs to know of a model.

    `embedding_width` is 0 without images, and a multiple of the hidden width where image tokens add to layers as well.
    """

    vocab_size: int
    max_positions: int
    embedding_width: int
    attention: AttentionShape
    position_axes: int = 1


class Model(Protocol):
    """One rank of a model: token ids and pixels in, logits out. It never branches on a backend."""

    shape: ModelShape
    old_names: ClassVar[Mapping[str, str]]
    """Prefixes of tensor names in checkpoints of other times, and what they are here."""

    def encode_views(self, pixel_values_NCHW: Tensor) -> Tensor:
        """Embeddings of equally sized, normalised views: [N, tokens, width]."""

    def join_views(self, views: Sequence[Tensor], header: ImageHeader) -> Tensor:
        """The embeddings of one image from those of its views, in encoder order: [tokens, width].

        `header` knows the image's original size, which tells what of a view is padding.
        """

    def embed(self, token_ids_T: Tensor) -> Tensor:
        """Token embeddings: [T, hidden]."""

    def forward(
        self, hidden_TH: Tensor, positions_AT: Tensor, attention: Attention, added: Sequence[Added] = ()
    ) -> Tensor:
        """The decoder without its head: [T, hidden]. Image tokens may add to what the first layers make."""

    def logits(self, hidden_RH: Tensor) -> Tensor:
        """Scores for the given tokens: [R, vocabulary], float32."""


def build(model_type: str, config: dict[str, Any], weights: Weights, ranks: Ranks) -> Model:
    """Loads the model of this type."""
    row = MODELS.get(model_type)
    if row is None:
        raise UnsupportedModel(f"model_type {model_type} is not known; there is {', '.join(MODELS)}")
    module, _, member = row.partition(":")
    family = getattr(import_module(module), member)
    weights.rename(family.old_names)
    model: Model = family(config, weights, ranks)
    return model
