"""Models without images: the shared decoder under each model's own spec."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from text_generation_server.attention.base import Attention
from text_generation_server.distributed import Ranks
from text_generation_server.layers.decoder import Added, Decoder, DecoderSpec, rope_parameters
from text_generation_server.layers.rotary import RopeSpec
from text_generation_server.models import ModelShape, UnsupportedModel
from text_generation_server.plan import ImageHeader
from text_generation_server.weights import Weights


class TextModel(ABC):
    """A decoder alone. Subclasses say how their config differs."""

    old_names: ClassVar[Mapping[str, str]] = {}

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

    def forward(
        self, hidden_TH: Tensor, positions_AT: Tensor, attention: Attention, added: Sequence[Added] = ()
    ) -> Tensor:
        """See `Model`."""
        return self._decoder.forward(hidden_TH, positions_AT, attention, added)


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


class Gemma(TextModel):
    """Gemma 1."""

    @staticmethod
    def spec(config: Mapping[str, Any]) -> DecoderSpec:
        return DecoderSpec.from_config(config, **_gemma(config))


class Gemma2(TextModel):
    """Gemma 2: a norm behind everything, scores bounded by a softcap, every other layer slides."""

    @staticmethod
    def spec(config: Mapping[str, Any]) -> DecoderSpec:
        return DecoderSpec.from_config(config, **_gemma(config), **_later_gemma(config, period=2))


class Gemma3(TextModel):
    """Gemma 3, text: five layers in six slide, under a rotary base of their own."""

    @staticmethod
    def spec(config: Mapping[str, Any]) -> DecoderSpec:
        period = int(config.get("sliding_window_pattern") or 6)
        spec = DecoderSpec.from_config(config, qk_norm=True, **_gemma(config), **_later_gemma(config, period))
        sliding = tuple(int(window is not None) for window in spec.windows)
        return replace(spec, ropes=tuple(_two_ropes(config, spec)), layer_ropes=sliding)


class Granite(TextModel):
    """Granite 3, dense: Llama with four factors."""

    @staticmethod
    def spec(config: Mapping[str, Any]) -> DecoderSpec:
        if config.get("mlp_bias"):
            raise UnsupportedModel("mlp_bias is not supported")
        return replace(
            Llama.spec(config),
            embedding_scale=float(config["embedding_multiplier"]),
            attention_scale=float(config["attention_multiplier"]),
            residual_scale=float(config["residual_multiplier"]),
            logit_scale=1.0 / float(config["logits_scaling"]),
        )


SPECS: dict[str, Callable[[Mapping[str, Any]], DecoderSpec]] = {
    "gemma": Gemma.spec,
    "gemma2": Gemma2.spec,
    "gemma3_text": Gemma3.spec,
    "granite": Granite.spec,
    "llama": Llama.spec,
    "mistral": Mistral.spec,
    "qwen2": Qwen2.spec,
    "qwen3": Qwen3.spec,
}


def decoder_spec(config: Mapping[str, Any]) -> DecoderSpec:
    """The decoder of a text config, by its own `model_type`.

    Raises:
        UnsupportedModel: no model of the line has this type.
    """
    model_type = config.get("model_type")
    if model_type not in SPECS:
        raise UnsupportedModel(f"text model {model_type} is not known; there is {', '.join(SPECS)}")
    return SPECS[model_type](config)


def _gemma(config: Mapping[str, Any]) -> dict[str, Any]:
    """What all of the line share. Their configs leave a tied head unsaid."""
    return {
        "unit_offset_norms": True,
        "embedding_scale": float(config["hidden_size"]) ** 0.5,
        "tied_head": bool(config.get("tie_word_embeddings", True)),
        "activation": config.get("hidden_activation") or "gelu_pytorch_tanh",
    }


def _later_gemma(config: Mapping[str, Any], period: int) -> dict[str, Any]:
    num_layers = int(config["num_hidden_layers"])
    # Every `period`-th layer sees everything.
    kinds = config.get("layer_types") or [
        "sliding_attention" if (layer + 1) % period else "full_attention" for layer in range(num_layers)
    ]
    window = config.get("sliding_window")
    return {
        "output_norms": True,
        "attention_scale": float(config["query_pre_attn_scalar"]) ** -0.5,
        "attention_softcap": config.get("attn_logit_softcapping"),
        "logit_softcap": config.get("final_logit_softcapping"),
        "windows": tuple(window if kind == "sliding_attention" else None for kind in kinds),
    }


def _two_ropes(config: Mapping[str, Any], spec: DecoderSpec) -> Iterator[RopeSpec]:
    """Of layers that see everything, and of those that slide."""
    named = config.get("rope_parameters") or {}
    old = rope_parameters(dict(config) | {"rope_parameters": None})
    local = {"rope_type": "default", "rope_theta": config.get("rope_local_base_freq", 10000.0)}
    for kind, parameters in (("full_attention", old), ("sliding_attention", local)):
        found = dict(parameters) | (named.get(kind) or {})
        yield RopeSpec(head_dim=spec.head_dim, max_positions=spec.max_positions, parameters=found)


def layer_windows(config: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Qwen's rule: the upper layers slide, if the config says so at all."""
    window = config.get("sliding_window") if config.get("use_sliding_window") else None
    num_layers = int(config["num_hidden_layers"])
    first_sliding = int(config.get("max_window_layers", num_layers))
    kinds = config.get("layer_types") or [
        "sliding_attention" if layer >= first_sliding else "full_attention" for layer in range(num_layers)
    ]
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
