"""Models without images: the shared decoder under each model's own spec."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from text_generation_server.attention.base import Attention
from text_generation_server.distributed import Ranks
from text_generation_server.layers.decoder import Decoder, DecoderSpec
from text_generation_server.models import ModelShape
from text_generation_server.plan import ImageHeader
from text_generation_server.weights import Weights


class TextModel(ABC):
    """A decoder alone. Subclasses say how their config differs."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        spec = self.spec(config)
        self._decoder = Decoder(spec, weights, ranks, body="model", head="lm_head")
        self.shape = ModelShape(
            vocab_size=spec.vocab_size,
            max_positions=spec.max_positions,
            embedding_width=0,
            attention=self._decoder.shape,
        )
        self.embed = self._decoder.embed
        self.logits = self._decoder.logits

    @staticmethod
    @abstractmethod
    def spec(config: Mapping[str, Any]) -> DecoderSpec:
        """The decoder this config describes."""

    def encode_views(self, pixel_values_NCHW: Tensor) -> Tensor:
        """There is no vision encoder; the shard refuses images before it gets here."""
        raise TypeError("this model takes no images")

    def join_views(self, views: Sequence[Tensor], header: ImageHeader) -> Tensor:
        """See `encode_views`."""
        raise TypeError("this model takes no images")

    def forward(self, hidden_TH: Tensor, positions_AT: Tensor, attention: Attention) -> Tensor:
        """See `Model`."""
        return self._decoder.forward(hidden_TH, positions_AT, attention)


class Llama(TextModel):
    """Llama 2 and 3."""

    @staticmethod
    def spec(config: Mapping[str, Any]) -> DecoderSpec:
        bias = bool(config.get("attention_bias", False))
        return DecoderSpec.from_config(config, qkv_bias=bias, output_bias=bias)


class Mistral(TextModel):
    """Mistral; early ones slide a window over every layer."""

    @staticmethod
    def spec(config: Mapping[str, Any]) -> DecoderSpec:
        windows = (config.get("sliding_window"),) * int(config["num_hidden_layers"])
        return DecoderSpec.from_config(config, windows=windows)


class Qwen2(TextModel):
    """Qwen 2 and 2.5."""

    @staticmethod
    def spec(config: Mapping[str, Any]) -> DecoderSpec:
        return DecoderSpec.from_config(config, qkv_bias=True, windows=layer_windows(config))


class Qwen3(TextModel):
    """Qwen 3, dense."""

    @staticmethod
    def spec(config: Mapping[str, Any]) -> DecoderSpec:
        bias = bool(config.get("attention_bias", False))
        windows = layer_windows(config)
        return DecoderSpec.from_config(config, qkv_bias=bias, output_bias=bias, qk_norm=True, windows=windows)


def layer_windows(config: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Qwen's rule: the upper layers slide, if the config says so at all."""
    window = config.get("sliding_window") if config.get("use_sliding_window") else None
    num_layers = int(config["num_hidden_layers"])
    first_sliding = int(config.get("max_window_layers", num_layers))
    kinds = config.get("layer_types") or [
        "sliding_attention" if layer >= first_sliding else "full_attention" for layer in range(num_layers)
    ]
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
