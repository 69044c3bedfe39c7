"""LLaVA-OneVision: as LLaVA-NeXT, with a limit to the patches of a canvas; one image of several is not tiled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from text_generation_server.distributed import Ranks
from text_generation_server.models.llava_next import LlavaNext
from text_generation_server.weights import Weights

TOLERANCE = 1.1
"""A canvas is left as it is up to this many times the side that the limit allows."""


class LlavaOnevision(LlavaNext):
    """See the module."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        super().__init__(config, weights, ranks)
        max_views = int(config["vision_aspect_ratio"].removeprefix("anyres_max_"))
        self._max_patches = max_views * self.side**2

    def reduced(self, patches_RCH: Tensor) -> Tensor:
        """See `LlavaNext`."""
        rows, columns, _ = patches_RCH.shape
        ratio = math.sqrt(rows * columns / self._max_patches)
        if ratio <= TOLERANCE:
            return patches_RCH
        size = [int(rows // ratio), int(columns // ratio)]
        shrunk_HRC = F.interpolate(patches_RCH.permute(2, 0, 1)[None], size, mode="bilinear")[0]
        return shrunk_HRC.permute(1, 2, 0)
