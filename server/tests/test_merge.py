"""Image embeddings take their tokens' places, and what is deeper in them is added to layers."""

from __future__ import annotations

import pytest
import torch

from text_generation_server.merge import ImageTokenMismatch, Span, merge


def embedding(tokens: int, width: int) -> torch.Tensor:
    """Tenths count columns, whole numbers rows."""
    return torch.arange(1, tokens + 1)[:, None] + torch.arange(width) / 10


def test_an_embedding_of_the_decoders_width_adds_nothing() -> None:
    hidden_TH, added = merge(torch.zeros(6, 2), [Span(1, 2, embedding(4, 2), 1), Span(4, 1, embedding(4, 2), 3)])
    assert added == []
    assert hidden_TH[:, 0].tolist() == [0, 2, 3, 0, 4, 0]


def test_what_is_wider_is_added_where_its_tokens_are() -> None:
    """Cut with the span: a chunk that begins inside an image gets the deeper features of its own tokens."""
    image = embedding(4, 6)
    hidden_TH, added = merge(torch.zeros(5, 2), [Span(2, 3, image, 1)])
    assert torch.equal(hidden_TH[2:], image[1:, :2])
    for layer, features in enumerate((image[1:, 2:4], image[1:, 4:6], torch.zeros(3, 2))):
        ones_TH = torch.ones(5, 2)
        added[0].add(ones_TH, layer)
        assert torch.equal(ones_TH[:2], torch.ones(2, 2))
        assert torch.equal(ones_TH[2:], 1 + features)


def test_a_span_beyond_the_image_is_refused() -> None:
    with pytest.raises(ImageTokenMismatch, match="given 3 tokens and has 2"):
        merge(torch.zeros(5, 2), [Span(0, 3, embedding(4, 2), 2)])
