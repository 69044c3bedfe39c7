"""Part h: whether a shard stays within what its warm-up promised, and what happens where memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest import mock

import torch

from gpu_check.loaded import Loaded, image, load, text
from gpu_check.place import Place
from gpu_check.rows import Row
from text_generation_server import warmup
from text_generation_server.plan import FailureKind, Sampling

LEFT_BYTES = 64 << 20
"""What the hog leaves: less than any prefill of thousands of tokens takes."""


def parts(place: Place) -> Iterator[Row]:
    """A full load, then too much."""
    loaded = load(place)
    yield full_load(loaded)
    yield from out_of_memory(loaded)


def full_load(loaded: Loaded) -> Row:
    """The most that may come: the longest prefill, every row sampling, images encoded and all embeddings kept."""
    shard, request, place = loaded.shard, loaded.request, loaded.place
    shard._meter.start()
    tokens_an_image = image(place, 0).header.num_tokens
    for seed in range(request.embedding_cache_tokens // tokens_an_image):
        picture = image(place, seed)
        (embedding,) = embed(loaded, seed).values()
        assert isinstance(embedding, torch.Tensor), embedding
        shard.images.keep(picture.header.key, embedding)
    loaded.prefill({1: text(min(request.max_step_tokens, request.max_sequence_tokens) - 8, 1)})
    count = min(request.max_rows, place.pick(128, 8)) - 1
    costly = warmup.SAMPLING_ALL
    loaded.prefill({name: text(1, name) for name in range(2, count + 2)}, together=count, sampling=costly)
    for _ in range(3):
        loaded.decode()
    peak = shard._meter.peak()
    loaded.forget()
    if place.tiny:
        return Row("reserved at the peak of a full load", "unknown on a CPU", note="dry")
    total, others = shard._meter.total_and_others()
    promised = int(total * shard.config.cuda_memory_fraction) - others
    note = f"{loaded.num_blocks} KV blocks of {request.block_size} tokens"
    measured = f"{peak / 1e9:.2f} GB of {promised / 1e9:.2f} GB promised"
    return Row("reserved at the peak of a full load", measured, peak <= promised, "no more than promised", note)


@torch.inference_mode()
def embed(loaded: Loaded, seed: int) -> dict[bytes, object]:
    """One picture's embedding, not kept."""
    picture = image(loaded.place, seed)
    return dict(loaded.shard._encoder.embed({picture.header.key: picture}))


def out_of_memory(loaded: Loaded) -> Iterator[Row]:
    """The sequences of a step without memory fail as out of memory; the next step works."""
    length = loaded.place.pick(8000, 200)
    prompt = text(length, 7)
    loaded.driver.learn(7, prompt, Sampling())
    with no_memory(loaded):
        failures = loaded.driver.step([loaded.driver.chunk(7, prompt, 0, length)]).failures
    kinds = [failure.kind.name for _, failure in failures]
    said = kinds == [FailureKind.OUT_OF_MEMORY.name]
    yield Row("a step without memory", f"fails its sequence as {', '.join(kinds) or 'nothing'}", said, "OUT_OF_MEMORY")
    loaded.driver.step([], forget_sequences=[7])
    loaded.driver.free = list(range(loaded.num_blocks))
    loaded.driver.owned.pop(7, None)
    loaded.prefill({8: prompt})
    tokens = loaded.decode().sampled.token_ids
    yield Row("the same step afterwards", "works" if len(tokens) == 1 else "gives nothing", len(tokens) == 1, "works")


def no_memory(loaded: Loaded) -> AbstractContextManager[object]:
    """Inside, the device is full; a CPU says that it is."""
    if loaded.place.tiny:
        full = torch.OutOfMemoryError("full")
        return mock.patch.object(loaded.shard.model, "forward", side_effect=full)
    return hog(loaded)


@contextmanager
def hog(loaded: Loaded) -> Iterator[None]:
    """Takes nearly all that is free."""
    loaded.shard._meter.start()
    free, _ = torch.cuda.mem_get_info(loaded.place.device)
    taken = torch.empty(max(0, free - LEFT_BYTES), dtype=torch.uint8, device=loaded.place.device)
    try:
        yield
    finally:
        del taken
        loaded.shard._meter.start()
