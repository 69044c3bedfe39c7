"""Qwen 3 VL: its encoder's middle features go into the decoder's first layers (DeepStack)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from text_generation_server.distributed import Ranks
from text_generation_server.layers.decoder import DecoderSpec
from text_generation_server.models.qwen2_vl import Qwen2Vl
from text_generation_server.models.text_only import Qwen3
from text_generation_server.weights import Weights

MROPE_SECTION = [24, 20, 20]


class Qwen3Vl(Qwen2Vl):
    """See the module."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        super().__init__(config, weights, ranks)
        depths = 1 + len(config["vision_config"]["deepstack_visual_indexes"])
        self.shape = replace(self.shape, embedding_width=depths * self.spec.hidden_size)

    @staticmethod
    def make_encoder(vision: Mapping[str, Any]) -> nn.Module:
        """See `Qwen2Vl`."""
        from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
        from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

        return Qwen3VLVisionModel(Qwen3VLVisionConfig(**vision))

    @staticmethod
    def decoder_spec(config: Mapping[str, Any], *, tied_head: bool) -> DecoderSpec:
        """See `VisionLanguageModel`."""
        spec = Qwen3.spec(dict(config["text_config"]) | {"tie_word_embeddings": tied_head})
        return replace(spec, ropes=(spec.ropes[0].with_axes(MROPE_SECTION, interleaved=True),))

    def features(self, output: Any) -> Tensor:  # noqa: ANN401 (see `Qwen2Vl`)
        """A token's embedding, then what it adds to each of the first layers."""
        return torch.cat([output.pooler_output, *output.deepstack_features], dim=-1)
