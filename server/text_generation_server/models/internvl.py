"""InternVL as transformers has it: a ViT over tiles, squares of patches side by side in one embedding, a projector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from text_generation_server.distributed import Ranks
from text_generation_server.layers.vision import FeatureEncoder
from text_generation_server.models.vision_language import Projector, VisionLanguageModel
from text_generation_server.weights import Weights


class InternVl(VisionLanguageModel):
    """See the module."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        super().__init__(config, weights, ranks)
        vision, layer = config["vision_config"], int(config["vision_feature_layer"])
        self._encoder = FeatureEncoder(vision, weights, "model.vision_tower", layer)
        # Some encoders have a norm behind their last layer; a projector that looks at another one does not see it.
        has_norm = layer == -1 and not vision["use_mean_pooling"]
        self._last_norm: Any = self._encoder.module.layernorm if has_norm else nn.Identity()
        self._first_patch = 1 if config["vision_feature_select_strategy"] == "default" else 0
        self._side = int(1 / float(config["downsample_ratio"]))
        width, name = int(vision["hidden_size"]) * self._side**2, "model.multi_modal_projector.layer_norm"
        self._norm = (weights.whole(f"{name}.weight", (width,)), weights.whole(f"{name}.bias", (width,)))
        self._projector = Projector(config, weights, (width, self.spec.hidden_size))

    def encode_views(self, pixel_values_NCHW: Tensor) -> Tensor:
        """See `Model`."""
        features_NPW = self._last_norm(self._encoder(pixel_values_NCHW))
        squares = _squares(features_NPW[:, self._first_patch :], self._side)
        return self._projector(F.layer_norm(squares, squares.shape[-1:], *self._norm))


def _squares(patches_NPW: Tensor, side: int) -> Tensor:
    """Patches of a square grid, `side` x `side` of them in each row of the result, row by row."""
    num_views, num_patches, width = patches_NPW.shape
    squares = int(num_patches**0.5) // side
    grid = patches_NPW.view(num_views, squares, side, squares, side, width)
    return grid.transpose(2, 3).reshape(num_views, squares**2, side**2 * width)
