"""The Pixtral vision encoder: images of any size that is a multiple of the patch, positions by row and column.

transformers puts all images into one sequence and keeps them apart with a mask over the square of all their patches.
Views of one size need no mask: each is a sequence of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from text_generation_server.layers.vision import FeatureEncoder
from text_generation_server.weights import Weights


class PixtralEncoder(FeatureEncoder):
    """See the module. It has no class token and no norm behind its layers."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, name: str, layers: int | list[int]) -> None:
        super().__init__(config, weights, name, layers)
        self.patch_size = int(config["patch_size"])

    def hidden_states(self, pixel_values_NCHW: Tensor) -> list[Tensor]:
        """See `FeatureEncoder`."""
        module: Any = self.module
        patches = module.patch_conv(pixel_values_NCHW)
        x = module.ln_pre(patches.flatten(2).transpose(1, 2))
        rows, columns = (torch.arange(side, device=x.device) for side in patches.shape[-2:])
        rotary = module.patch_positional_embedding(x, torch.cartesian_prod(rows, columns))
        states = [x]
        for layer in module.transformer.layers:
            states.append(layer(states[-1], attention_mask=None, position_embeddings=rotary))
        return states
