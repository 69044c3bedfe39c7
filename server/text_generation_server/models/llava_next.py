"""LLaVA 1.6 and Granite Vision: the squeezed image, then the canvas it was fitted into: tiles put together, padding cut
away, a newline behind every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from text_generation_server.distributed import Ranks
from text_generation_server.models.llava import Llava
from text_generation_server.plan import ImageHeader, ViewSize
from text_generation_server.weights import Weights


class LlavaNext(Llava):
    """See the module. Suffixes: R rows and C columns of patches, H hidden width."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        super().__init__(config, weights, ranks)
        self._newline_H = weights.whole("model.image_newline", (self.spec.hidden_size,))
        self._canvases = [tuple(canvas) for canvas in config["image_grid_pinpoints"]]
        self._view = int(config["vision_config"]["image_size"])
        self.side = self._view // int(config["vision_config"]["patch_size"])

    def join_views(self, views: Sequence[Tensor], header: ImageHeader) -> Tensor:
        """See `Model`. An image that was not tiled has one newline at its end."""
        squeezed, *tiles = views
        if not tiles:
            return torch.cat([squeezed, self._newline_H[None]])
        rows_RCH = self.reduced(self._unpadded(tiles, header.original))
        newlines_R1H = self._newline_H.expand(len(rows_RCH), 1, -1)
        return torch.cat([squeezed, torch.cat([rows_RCH, newlines_R1H], 1).flatten(0, 1)])

    def reduced(self, patches_RCH: Tensor) -> Tensor:
        """The rows that go to the decoder."""
        return patches_RCH

    def _unpadded(self, tiles: Sequence[Tensor], original: ViewSize) -> Tensor:
        """The patches of a canvas that show the image."""
        # transformers decides what is padding, so that rounding is the same.
        from transformers.image_processing_utils import select_best_resolution
        from transformers.models.llava_next.modeling_llava_next import unpad_image

        size = (original.height, original.width)
        height, _ = select_best_resolution(size, self._canvases)
        grid = torch.stack(list(tiles)).view(height // self._view, -1, self.side, self.side, self.spec.hidden_size)
        canvas_HRC = grid.permute(4, 0, 2, 1, 3).flatten(1, 2).flatten(2, 3)
        unpad: Callable[..., Tensor] = unpad_image
        return unpad(canvas_HRC, size).permute(1, 2, 0)
