"""Idefics 2: a SigLIP encoder of any resolution, a resampler to a fixed number of tokens, Mistral as the decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from text_generation_server.distributed import Ranks
from text_generation_server.layers.vision import load_module
from text_generation_server.models.idefics3 import TEXT_NAMES
from text_generation_server.models.vision_language import VisionLanguageModel
from text_generation_server.weights import Weights

if TYPE_CHECKING:
    from transformers import Idefics2Config


class Idefics2(VisionLanguageModel):
    """Views come without the padding a batch has in transformers: what is masked there is not there here."""

    old_names = TEXT_NAMES

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        from transformers import Idefics2Config

        super().__init__(config, weights, ranks)
        # The class mends what old configs say of the resampler.
        known = Idefics2Config.from_dict(dict(config))
        self._encoder = load_module(lambda: _encoder(known), weights, "model.vision_model")
        self._connector = load_module(lambda: _connector(known), weights, "model.connector")

    def encode_views(self, pixel_values_NCHW: Tensor) -> Tensor:
        """See `Model`."""
        patches_NPD = self._encoder(pixel_values_NCHW).last_hidden_state
        everything = torch.ones(patches_NPD.shape[:2], dtype=torch.bool, device=patches_NPD.device)
        tokens: Tensor = self._connector(patches_NPD, everything)
        return tokens


def _encoder(config: Idefics2Config) -> nn.Module:
    from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer

    build: Callable[..., nn.Module] = Idefics2VisionTransformer._from_config
    return build(config.vision_config, attn_implementation="sdpa")


def _connector(config: Idefics2Config) -> nn.Module:
    from transformers.models.idefics2.modeling_idefics2 import Idefics2Connector

    build: Callable[..., nn.Module] = Idefics2Connector
    return build(config)
