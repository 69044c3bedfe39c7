"""A shard of the product over random weights, and a driver for it: the router in miniature of `server/tests`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from driver import GREEDY, Driver, Prompt, Row
from driver import Run as ImageRun

from gpu_check import shapes
from gpu_check.place import Place
from gpu_check.random_weights import RandomWeights
from text_generation_server import shard as shard_module
from text_generation_server.config import PreparedModel, ShardConfig
from text_generation_server.images import Image
from text_generation_server.plan import ImageHeader, Sampling, StepResult, ViewSize, WarmupRequest
from text_generation_server.shard import Shard

BLOCK_SIZE = 16
IMAGE_TOKEN = 7


@dataclass
class Loaded:
    """A shard that is warmed up, what its weights take, and what it was promised."""

    place: Place
    shard: Shard
    driver: Driver
    weight_bytes: dict[str, int]
    request: WarmupRequest
    num_blocks: int
    """What the warm-up promised."""
    running: dict[int, int] = field(default_factory=dict)
    """Sequences that decode, and the tokens each has."""

    @property
    def text_parameters(self) -> int:
        """Weights that every token is multiplied with; the token embedding is looked up."""
        return self._text_bytes // self.place.dtype.itemsize

    @property
    def _text_bytes(self) -> int:
        names = [name for name in self.weight_bytes if ".visual." not in name and "embed_tokens" not in name]
        return sum(self.weight_bytes[name] for name in names)

    def step_bytes(self, rows: int, context: int) -> int:
        """Bytes that a decode step has to read: every weight once, and the keys and values of its rows."""
        shape = self.shard.model.shape.attention
        a_token = shape.num_layers * 2 * shape.num_kv_heads * shape.head_dim * self.place.dtype.itemsize
        return self._text_bytes + rows * context * a_token

    def prefill(
        self, prompts: dict[int, Prompt], *, together: int = 1, sampling: Sampling = GREEDY
    ) -> list[StepResult]:
        """Computes whole prompts, so many in a step, and lets them decode from then on."""
        results = []
        names = list(prompts)
        for name in names:
            self.driver.learn(name, prompts[name], sampling)
        for first in range(0, len(names), together):
            group = names[first : first + together]
            rows = [self.driver.chunk(name, prompts[name], 0, len(prompts[name].token_ids)) for name in group]
            results.append(checked(self.driver.step(rows)))
            self.running |= {name: len(prompts[name].token_ids) for name in group}
        return results

    def decode(self, more: Sequence[Row] = (), **parts: list[Any]) -> StepResult:
        """One token more for each running sequence, and whatever else the step is to do."""
        rows = [self.driver.decode(name, length) for name, length in self.running.items()]
        result = checked(self.driver.step([*rows, *more], **parts))
        self.running = {name: length + 1 for name, length in self.running.items()}
        return result

    def forget(self) -> None:
        """Ends what runs; blocks are handed out anew."""
        images = list(self.shard.images._encoded)
        self.driver.step([], forget_sequences=list(self.running), forget_images=images)
        self.driver.free = list(range(self.num_blocks))
        self.running.clear()


def load(place: Place, **changes: Any) -> Loaded:
    """Qwen2.5-VL-7B of random numbers, warmed up. `changes` are flags of the shard."""
    settings: dict[str, Any] = {
        "prepared": Path("none"),
        "socket": Path("none"),
        "device": place.device.type,
        "dtype": str(place.dtype).removeprefix("torch."),
        "num_threads": 1 if place.tiny else 0,
    }
    prepared = PreparedModel(
        model_dir=Path("none"),
        model_type=shapes.MODEL_TYPE,
        config=shapes.config(tiny=place.tiny),
        processor=shapes.PROCESSOR,
    )
    with mock.patch.object(shard_module, "Weights", _Kept):
        shard = Shard(ShardConfig(**(settings | changes)), prepared)
    request = largest_step(place)
    num_blocks = shard.warm_up(request).num_blocks
    return Loaded(place, shard, Driver(shard, num_blocks, BLOCK_SIZE), _Kept.last.num_bytes, request, num_blocks)


class _Kept(RandomWeights):
    """Remembers the newest, whose bytes are asked for."""

    last: RandomWeights

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        _Kept.last = self


def largest_step(place: Place) -> WarmupRequest:
    """What a router would ask to be warmed up with."""
    picture = image(place, 0)
    return WarmupRequest(
        block_size=BLOCK_SIZE,
        max_step_tokens=place.pick(8192, 256),
        max_rows=place.pick(128, 8),
        max_sequence_tokens=place.pick(8192, 256),
        max_step_image_tokens=place.pick(4096, 32),
        largest_image=picture.header,
        max_blocks=place.pick(0, 256),
        embedding_cache_tokens=place.pick(65536, 256),
    )


def text(length: int, seed: int, vocabulary: int = 300) -> Prompt:
    """Random tokens."""
    return Prompt(np.random.default_rng(seed).integers(10, vocabulary, length).tolist())


def image(place: Place, seed: int) -> Image:
    """Random pixels: 1,024 tokens on a GPU."""
    side = place.pick(32, 4)
    size = ViewSize(side * shapes.TOKEN_SIDE, side * shapes.TOKEN_SIDE)
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size.height, size.width, 3), dtype=torch.uint8, generator=generator)
    header = ImageHeader(seed.to_bytes(32, "little"), size, (size,), side * side)
    return Image(header, [pixels])


def picture_prompt(place: Place, seed: int, before: int = 10, behind: int = 20) -> Prompt:
    """Text, a picture, text."""
    picture = image(place, seed)
    tokens = [IMAGE_TOKEN] * picture.header.num_tokens
    run = ImageRun(before, len(tokens), 0, picture)
    return Prompt(text(before, seed).token_ids + tokens + text(behind, seed + 1).token_ids, [run])


def checked(result: StepResult) -> StepResult:
    """A result without failures.

    Raises:
        AssertionError: it has some.
    """
    assert not result.failures, f"{len(result.failures)} sequences failed: {result.failures[0][1].message}"
    return result
