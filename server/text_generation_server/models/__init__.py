"""Models by `model_type`, exactly as config.json spells it. A new family is a file and a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

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
    "gemma3": "text_generation_server.models.gemma3:Gemma3",
    "gemma3_text": "text_generation_server.models.text_only:Gemma3",
    "granite": "text_generation_server.models.text_only:Granite",
    "idefics2": "text_generation_server.models.idefics2:Idefics2",
    "idefics3": "text_generation_server.models.idefics3:Idefics3",
    "internvl": "text_generation_server.models.internvl:InternVl",
    "llama": "text_generation_server.models.text_only:Llama",
    "llava": "text_generation_server.models.llava:Llava",
    "llava_next": "text_generation_server.models.llava_next:LlavaNext",
    "llava_onevision": "text_generation_server.models.llava_onevision:LlavaOnevision",
    "mistral": "text_generation_server.models.text_only:Mistral",
    "mistral3": "text_generation_server.models.mistral3:Mistral3",
    "paligemma": "text_generation_server.models.paligemma:PaliGemma",
    "qwen2": "text_generation_server.models.text_only:Qwen2",
    "qwen2_5_vl": "text_generation_server.models.qwen2_5_vl:Qwen25Vl",
    "qwen2_vl": "text_generation_server.models.qwen2_vl:Qwen2Vl",
    "qwen3": "text_generation_server.models.text_only:Qwen3",
    "qwen3_vl": "text_generation_server.models.qwen3_vl:Qwen3Vl",
    "smolvlm": "text_generation_server.models.idefics3:Idefics3",
}

FALLBACK = "text_generation_server.models.fallback.model:TransformersModel"
"""For types that have no row and that transformers knows."""

Piece: TypeAlias = "int | str"
"""A part of what stands for an image in a prompt: so many image tokens, or text."""


class UnsupportedModel(Exception):
    """No row of `MODELS`, or a variant its file does not cover."""


class CannotEncode(Exception):
    """The model cannot take this image. The text is meant for clients."""


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
    raw_views: bool = False
    """Whether `encode_views` takes uint8 pixels of [N, height, width, 3] on the CPU, and prepares them itself."""
    can_be_captured: bool = True
    """Whether `embed`, `forward` and `logits` launch the same for every step of so many tokens, and ask the device for
    nothing."""


class Model(Protocol):
    """One rank of a model: token ids and pixels in, logits out. It never branches on a backend."""

    shape: ModelShape
    old_names: ClassVar[Mapping[str, str]]
    """Prefixes of tensor names in checkpoints of other times, and what they are here."""

    def encode_views(self, pixel_values_NCHW: Tensor) -> Tensor:
        """Embeddings of equally sized, normalised views: [N, tokens, width].

        Raises:
            CannotEncode: the model does not take them.
        """

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


@runtime_checkable
class CountsImages(Protocol):
    """A model whose images are laid out by its own processor, because the router has no arithmetic for it."""

    def pieces(self, width: int, height: int) -> list[Piece]:
        """What stands for an image of this size.

        Raises:
            CannotEncode: the model does not take this size.
        """


def build(
    model_type: str, config: dict[str, Any], weights: Weights, ranks: Ranks, *, known_to_transformers: bool = False
) -> Model:
    """Loads the model of this type. One without a row is left to transformers, if that knows it."""
    row = MODELS.get(model_type, FALLBACK if known_to_transformers else None)
    if row is None:
        raise UnsupportedModel(f"model_type {model_type} is not known; there is {', '.join(MODELS)}")
    module, _, member = row.partition(":")
    family = getattr(import_module(module), member)
    weights.rename(family.old_names)
    model: Model = family(config, weights, ranks)
    return model
