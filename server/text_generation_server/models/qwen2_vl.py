"""Qwen 2 VL: an encoder of any resolution, and a Qwen 2 decoder whose positions are time, row and column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from text_generation_server.distributed import Ranks
from text_generation_server.layers.decoder import DecoderSpec
from text_generation_server.layers.packed import PackedEncoder
from text_generation_server.models.text_only import Qwen2
from text_generation_server.models.vision_language import VisionLanguageModel
from text_generation_server.weights import Weights

OLD_NAMES = {
    "visual.": "model.visual.",
    "model.": "model.language_model.",
    "model.visual.": "model.visual.",
    "model.language_model.": "model.language_model.",
}
"""What the hub has, and transformers before 4.52. Names of today stand here because an old one begins them."""

MROPE_SECTION = [16, 24, 24]


class Qwen2Vl(VisionLanguageModel):
    """See the module."""

    old_names: ClassVar[Mapping[str, str]] = OLD_NAMES

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        super().__init__(config, weights, ranks)
        vision = {key: value for key, value in config["vision_config"].items() if key != "model_type"}
        self.encoder = PackedEncoder(vision, weights, "model.visual", lambda: self.make_encoder(vision))

    @staticmethod
    def make_encoder(vision: Mapping[str, Any]) -> nn.Module:
        """The encoder these settings describe, as transformers has it."""
        from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
        from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

        return Qwen2VisionTransformerPretrainedModel(Qwen2VLVisionConfig(**vision))

    @staticmethod
    def decoder_spec(config: Mapping[str, Any], *, tied_head: bool) -> DecoderSpec:
        """See `VisionLanguageModel`."""
        spec = Qwen2.spec(dict(config["text_config"]) | {"tie_word_embeddings": tied_head})
        return replace(spec, ropes=(spec.ropes[0].with_axes(MROPE_SECTION, interleaved=False),))

    def encode_views(self, pixel_values_NCHW: Tensor) -> Tensor:
        """See `Model`. A token is a square of neighbouring patches."""
        output = self.encoder(pixel_values_NCHW, **self.encoder_options(pixel_values_NCHW))
        features = self.features(output)
        return features.view(len(pixel_values_NCHW), -1, features.shape[1])

    def encoder_options(self, pixel_values_NCHW: Tensor) -> dict[str, Tensor]:
        """What else the encoder is told about the views."""
        return {}

    def features(self, output: Any) -> Tensor:  # noqa: ANN401 (each encoder has an output class of its own)
        """A row for each token of the encoder's output."""
        merged: Tensor = output.pooler_output
        return merged
