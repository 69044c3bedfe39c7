"""Part e: how much of the device's arithmetic encoding and prefilling pictures of 1,024 tokens uses."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from gpu_check.loaded import Loaded, image, load, picture_prompt
from gpu_check.place import Place
from gpu_check.rows import Row
from gpu_check.speed import matmul_peak
from text_generation_server.images import Image

GOAL = 0.5
"""Of the peak of matrix products of this run."""


def parts(place: Place) -> Iterator[Row]:
    """The encoder alone, then whole prompts."""
    peak, loaded = matmul_peak(place), load(place)
    count = place.pick(4, 2)
    images = {bytes([seed]): image(place, seed) for seed in range(count)}
    flops = encoder_flops(loaded, images)
    seconds = place.seconds(lambda: encode(loaded, images))
    yield share(place, f"encoding {count} pictures at once", flops, seconds, peak)
    yield from prompts(loaded, flops / count, peak)


@torch.inference_mode()
def encode(loaded: Loaded, images: dict[bytes, Image]) -> None:
    """Through the shard's encoder."""
    for key, embedding in loaded.shard._encoder.embed(images).items():
        assert isinstance(embedding, torch.Tensor), f"{key!r}: {embedding}"


def encoder_flops(loaded: Loaded, images: dict[bytes, Image]) -> float:
    """Operations of its matrix products and attentions, counted while they are done."""
    with FlopCounterMode(display=False) as counter:
        encode(loaded, images)
    assert counter.get_total_flops() > 0, "nothing was counted"
    return float(counter.get_total_flops())


def prompts(loaded: Loaded, flops_a_picture: float, peak: float) -> Iterator[Row]:
    """Prompts with a picture each that nobody has seen, one at a time: encoding, prefill and the first token."""
    place, shape = loaded.place, loaded.shard.model.shape.attention
    names = iter(range(1000, 2000))

    def one() -> None:
        name = next(names)
        loaded.prefill({name: picture_prompt(place, name)})

    seconds = place.seconds(one, repeats=place.pick(8, 2))
    tokens = len(picture_prompt(place, 1).token_ids)
    # Every weight multiplies and adds once a token; attention does so twice for each pair that may see each other.
    attended = 2 * tokens * tokens * shape.num_heads * shape.head_dim * shape.num_layers
    flops = flops_a_picture + 2 * loaded.text_parameters * tokens + attended
    yield share(place, f"a prompt of {tokens} tokens with a picture, to its first token", flops, seconds, peak)


def share(place: Place, what: str, flops: float, seconds: float, peak: float) -> Row:
    """Operations a second against what matrix products reach."""
    used = flops / seconds / peak
    note = f"{seconds * 1e3:.3g} ms for {flops / 1e12:.3g} TFLOP; products reach {peak / 1e12:.3g} TFLOP/s"
    return Row(f"{what}: share of the peak", f"{used:.2f}", place.holds(used >= GOAL), f"≥ {GOAL}", note, goal=True)
