"""Which picture has which number: scenes, their pixels and the conversations about them, all from one seed.

Picture n is always the same, so only what the encoder sees in it has to be kept.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np

from embedded_model import fonts, tokenizer
from embedded_model.art import Art
from embedded_model.pictures import SIDE, Painter
from embedded_model.rows import Batch, RowWriter
from embedded_model.scenes import Scene, Stock, scene
from embedded_model.sources import TRAINING_STYLES

AHEAD = 2


@dataclass(frozen=True)
class Plan:
    """What one step needs: new pictures, and rows about those with numbers in `known`."""

    step: int
    fresh: range
    known: range
    rows: int


@dataclass(frozen=True)
class Prepared:
    """`pixels` are those of the drawn ones among the new pictures, in order."""

    plan: Plan
    pixels: np.ndarray
    batch: Batch | None


class Corpus:
    """Made in every process that draws or asks."""

    def __init__(self, folder: Path, seed: int) -> None:
        art = Art(folder / "art", TRAINING_STYLES)
        faces = fonts.training_fonts()
        self._seed = seed
        self._stock = Stock(art.counts(), len(faces))
        self._painter = Painter(art, faces)
        self._writer = RowWriter(tokenizer.load(folder / "tokenizer.json"), self.scene)
        # Bounded, and per object: scenes are small, but there are as many as pictures.
        self.scene = lru_cache(4096)(self.scene)  # type: ignore[method-assign]

    def scene(self, number: int) -> Scene:
        return scene(self._stock, Random(f"{self._seed}/scene/{number}"))

    def pixels(self, number: int) -> np.ndarray:
        """uint8 [SIDE, SIDE, 3]."""
        return np.asarray(self._painter.draw(self.scene(number), Random(f"{self._seed}/pixels/{number}")))

    def prepare(self, plan: Plan) -> Prepared:
        drawn = [number for number in plan.fresh if self.scene(number).photo_class is None]
        pixels = [self.pixels(number) for number in drawn]
        stacked = np.stack(pixels) if pixels else np.zeros((0, SIDE, SIDE, 3), dtype=np.uint8)
        batch = None
        if plan.rows:
            batch = self._writer.batch(plan.known, plan.rows, Random(f"{self._seed}/rows/{plan.step}"))
        return Prepared(plan, stacked, batch)


class Preparation:
    """Prepares steps in processes of their own, a few ahead, in order."""

    def __init__(self, folder: Path, seed: int, workers: int) -> None:
        context = get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(folder, seed))
        self._ahead = AHEAD * workers

    def run(self, plans: Iterator[Plan]) -> Iterator[Prepared]:
        waiting: list[Future[Prepared]] = []
        for plan in plans:
            waiting.append(self._pool.submit(_prepare, plan))
            if len(waiting) > self._ahead:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


_CORPUS: list[Corpus] = []


def _start(folder: Path, seed: int) -> None:
    _CORPUS[:] = [Corpus(folder, seed)]


def _prepare(plan: Plan) -> Prepared:
    return _CORPUS[0].prepare(plan)
