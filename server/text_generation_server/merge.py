"""Puts image embeddings where the router reserved room for them. Computes no count of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from text_generation_server.layers.decoder import Added


class ImageTokenMismatch(Exception):
    """The router reserved one number of tokens and the encoder made another."""

    def __init__(self, reserved: int, encoded: int) -> None:
        super().__init__(f"the image was given {reserved} tokens and has {encoded}")


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `start..start + length` of the step take rows of `image_NW` from `image_offset` on."""

    start: int
    length: int
    image_NW: Tensor
    image_offset: int


def merge(hidden_TH: Tensor, spans: Sequence[Span]) -> tuple[Tensor, list[Added]]:
    """Overwrites the placeholders' embeddings, in place.

    An embedding wider than the decoder goes on with what its token adds to the first layers' outputs.
    """
    width = hidden_TH.shape[1]
    added: list[Added] = []
    for span in spans:
        image_NW = span.image_NW[span.image_offset : span.image_offset + span.length]
        if len(image_NW) != span.length:
            raise ImageTokenMismatch(reserved=span.length, encoded=len(image_NW))
        hidden_TH[span.start : span.start + span.length] = image_NW[:, :width]
        if image_NW.shape[1] > width:
            added.append(Added(span.start, image_NW.view(span.length, -1, width)[:, 1:]))
    return hidden_TH, added
