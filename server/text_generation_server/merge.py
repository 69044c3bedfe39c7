"""Puts image embeddings where the router reserved room for them. Computes no count of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


class ImageTokenMismatch(Exception):
    """The router reserved one number of tokens and the encoder made another."""

    def __init__(self, reserved: int, encoded: int) -> None:
        super().__init__(f"the image was given {reserved} tokens and has {encoded}")


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `start..start + length` of the step take rows of `image_ND` from `image_offset` on."""

    start: int
    length: int
    image_ND: Tensor
    image_offset: int


def merge(hidden_TD: Tensor, spans: Sequence[Span]) -> Tensor:
    """Overwrites the placeholders' embeddings, in place."""
    for span in spans:
        image_ND = span.image_ND[span.image_offset : span.image_offset + span.length]
        if len(image_ND) != span.length:
            raise ImageTokenMismatch(reserved=span.length, encoded=len(image_ND))
        hidden_TD[span.start : span.start + span.length] = image_ND
    return hidden_TD
