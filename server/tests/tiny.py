"""A family's tiny checkpoint, as a shard of ours and as `transformers`, and prompts for both. No test lives here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from driver import Driver, Prompt, Run, load
from families import cases, checkpoint
from families.family import Model as Stock
from families.oracle import Conversation, Oracle, images_of
from families.oracle import Picture as Seen
from torch import Tensor
from transformers import AutoModelForImageTextToText

from text_generation_server import models
from text_generation_server.distributed import Ranks
from text_generation_server.images import Image
from text_generation_server.model_facts import filled_config
from text_generation_server.models import Model
from text_generation_server.plan import ImageHeader, ViewSize
from text_generation_server.prepare import prepare
from text_generation_server.weights import Weights

MIN_CASES = 8
"""So many requests at once are a crowd."""


@dataclass
class Tiny:
    """One family in one folder. Everything is made when it is asked for, once."""

    name: str
    folder: Path

    @cached_property
    def model_dir(self) -> Path:
        """The checkpoint as `transformers` would write it today."""
        return checkpoint.build(self.name, self.folder / "new")

    @cached_property
    def oracle(self) -> Oracle:
        """Its answers are the truth."""
        return Oracle(self.model_dir)

    @cached_property
    def prepared(self) -> Path:
        """The file that ranks start from."""
        return self.prepared_as(self.model_dir)

    @cached_property
    def driver(self) -> Driver:
        """A shard in float32."""
        return self.driver_of(self.prepared)

    def prepared_as(self, model_dir: Path) -> Path:
        """The prepared file of any of its checkpoints."""
        return prepare(str(model_dir), None, self.folder / "prepared")

    @staticmethod
    def driver_of(prepared: Path, **choices: Any) -> Driver:
        """A shard with room for the longest prompts. `choices` are those of `load`."""
        return Driver(load(prepared=prepared, **choices), num_blocks=4096)

    @cached_property
    def cases(self) -> list[cases.Case]:
        """One conversation of each shape or more, with pictures of different sizes and encodings."""
        by_shape: dict[str, list[cases.Case]] = {}
        for case in cases.cases(self.oracle.family):
            by_shape.setdefault(case.shape, []).append(case)
        # Families without turns have few shapes, which then come twice.
        shapes = list(by_shape.values()) * 2
        taken = enumerate(shapes[: max(MIN_CASES, len(by_shape))])
        return [of_shape[(5 * number + 3) % len(of_shape)] for number, of_shape in taken]

    def prompt(self, conversation: Conversation) -> Prompt:
        """What our router would send, taken from `transformers`."""
        asked = self.oracle.ask(conversation, num_tokens=1)
        images = images_of(conversation)
        uploads = [upload(self.oracle.picture(image, several=len(images) > 1)) for image in images]
        runs = list(placed(asked.runs, uploads))
        return Prompt(asked.token_ids, runs, asked.positions, asked.both_ways)


def upload(seen: Seen) -> Image:
    """A picture as the shard receives it."""
    views = [torch.from_numpy(view) for view in seen.views]
    sizes = tuple(ViewSize(view.shape[1], view.shape[0]) for view in seen.views)
    key = hashlib.sha256(repr((seen.size, sizes)).encode() + b"".join(view.tobytes() for view in seen.views)).digest()
    return Image(ImageHeader(key, ViewSize(*seen.size), sizes, len(seen.embedding)), views)


def placed(runs: Sequence[tuple[int, int]], images: Sequence[Image]) -> Iterator[Run]:
    """Gives the tokens of runs to the images in order; a run may hold the end of one and the start of the next."""
    waiting = [(image, offset) for image in images for offset in range(image.header.num_tokens)]
    tokens = [index for offset, length in runs for index in range(offset, offset + length)]
    assert len(tokens) == len(waiting), f"{len(tokens)} image tokens, {len(waiting)} embeddings"
    open_run: Run | None = None
    for index, (image, image_offset) in zip(tokens, waiting, strict=True):
        if open_run is not None and _continues(open_run, index, image_offset):
            open_run = open_run._replace(length=open_run.length + 1)
            continue
        if open_run is not None:
            yield open_run
        open_run = Run(index, 1, image_offset, image)
    if open_run is not None:
        yield open_run


def _continues(run: Run, index: int, image_offset: int) -> bool:
    return index == run.offset + run.length and image_offset == run.image_offset + run.length


def shares_no_range(prompt: Prompt, cut: int) -> bool:
    """Whether a prompt may be cut here."""
    return not any(offset < cut < offset + length for offset, length in prompt.both_ways)


def stock_and_ours(folder: Path, config: Any) -> tuple[Stock, Model]:  # noqa: ANN401 (a config of transformers)
    """A random model of this config, as transformers has it and as a rank of ours."""
    torch.manual_seed(3)
    auto: Any = AutoModelForImageTextToText
    stock: Stock = auto.from_config(config, dtype=torch.float32).eval()
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    stock.save_pretrained(folder)
    found = filled_config(folder)
    with Weights(folder, torch.float32, torch.device("cpu")) as weights:
        return stock, models.build(str(found["model_type"]), found, weights, Ranks())


def cosine(left: Tensor, right: Tensor) -> float:
    """Of rows of logits, the worst one, around their mean: what softmax sees has no mean."""
    left, right = (rows.float() - rows.float().mean(-1, keepdim=True) for rows in (left, right))
    return float(torch.nn.functional.cosine_similarity(left, right, dim=-1).min())
