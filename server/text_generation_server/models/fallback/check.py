"""Whether a model does what we take every model to do: tried at load, because being refused beats being wrong."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from text_generation_server.models import CannotEncode, UnsupportedModel
from text_generation_server.models.fallback.processor import Pictures, Pixels

SIZES = ((64, 64), (224, 160), (336, 336))
"""Width and height of the picture that is tried: whichever of them takes the fewest tokens."""

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Of all logits together, relative. A wrong mask or position is off by far more than another summation order."""

BY_LENGTH = ("dynamic", "longrope")
"""Rotary bases that depend on the longest sequence of a batch: here sequences of all lengths share one."""


def example(pictures: Pictures) -> dict[str, Tensor]:
    """Tensors of a short prompt with a picture in it."""
    prompts = []
    for size in SIZES:
        with suppress(CannotEncode):
            prompts.append(pictures.process([picture(*size)]).tensors)
    if not prompts:
        raise UnsupportedModel(f"its processor takes no picture of {SIZES}")
    return dict(min(prompts, key=lambda tensors: tensors["input_ids"].shape[1]))


def picture(width: int, height: int) -> Pixels:
    """Something to see: two gradients and noise, the same every time."""
    noise = np.random.default_rng(0).integers(0, 64, (height, width, 3))
    across, down = np.linspace(0, 160, width)[None, :, None], np.linspace(0, 160, height)[:, None, None]
    gradients = np.concatenate([across + 0 * down, down + 0 * across, (across + down) / 2], axis=2)
    return np.asarray(noise + gradients, dtype=np.uint8)


def moved(tensors: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
    """Tensors on the device of `like`, numbers that are not whole in its type."""
    return {
        name: tensor.to(like.device, like.dtype if tensor.is_floating_point() else None)
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor)
    }


def native_logits(model: Any, tensors: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """What transformers makes of the prompt: [T, vocabulary]."""
    scores: Tensor = model(**moved(tensors, like), use_cache=False).logits[0]
    return scores.float()


def positions(body: Any, text: Any) -> None:
    """Refuses a decoder whose positions are not one number a token that means the same in every batch."""
    rope = getattr(text, "rope_parameters", None) or {}
    if hasattr(body, "get_rope_index") or "mrope_section" in rope:
        raise UnsupportedModel("its positions have several axes, which only a family of its own can compute")
    kinds = {rope.get("rope_type")} | {kind.get("rope_type") for kind in rope.values() if isinstance(kind, dict)}
    for kind in BY_LENGTH:
        if kind in kinds:
            raise UnsupportedModel(f"its rotary positions are {kind}: they depend on the longest text of a batch")


def compare(ours_TV: Tensor, theirs_TV: Tensor, dtype: torch.dtype) -> None:
    """Refuses a model whose logits we do not reproduce."""
    difference = float((ours_TV - theirs_TV).norm() / theirs_TV.norm())
    if not difference <= TOLERANCE[dtype]:
        raise UnsupportedModel(
            f"its answers are not reproduced (off by {difference:.2g}, {TOLERANCE[dtype]} is accepted): "
            "it does something that only a family of its own can serve"
        )
