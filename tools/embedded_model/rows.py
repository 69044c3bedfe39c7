"""Training rows: one or several pictures and many conversations about them, which see the pictures but not each other.

A row begins with what all its conversations share; then branches follow, each with positions that go on from the shared
part, as if it stood there alone. So pictures are read once for a dozen questions, and no token is padding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

import numpy as np
from tokenizers import Tokenizer

from embedded_model import chat
from embedded_model.questions import Exchange, exchanges
from embedded_model.scenes import Scene
from embedded_model.several import about_several
from embedded_model.supervision import CELLS
from embedded_model.tokenizer import END, IMAGE, PAD, START

LENGTH = 304
IGNORED = -100
TEXT_ONLY, SEVERAL = 0.05, 0.12
FOLLOW_UP, SYSTEM_TURN, EARLIER_TURN = 0.25, 0.12, 0.35
SceneOf = Callable[[int], Scene]


@dataclass
class Row:
    """Token ids, what each should predict next, its position, and its branch; branch 0 is shared by all."""

    pictures: list[int]
    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)

    def add(self, ids: list[int], labels: list[int], branch: int, start: int) -> None:
        self.ids += ids
        self.labels += labels
        self.positions += range(start, start + len(ids))
        self.branches += [branch] * len(ids)


@dataclass(frozen=True)
class Batch:
    """Rows as arrays [rows, LENGTH], and the pictures of all of them in order."""

    ids: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    branches: np.ndarray
    pictures: list[int]


class RowWriter:
    """Writes rows about pictures with these numbers."""

    def __init__(self, tokenizer: Tokenizer, scene_of: SceneOf) -> None:
        self._tokenizer = tokenizer
        self._scene_of = scene_of
        self._end = self._ids(END)
        self._image = self._ids(IMAGE) * CELLS
        (self._pad,) = self._ids(PAD)

    def batch(self, pictures: range, count: int, random: Random) -> Batch:
        """That many rows about any of these pictures."""
        rows = [self._padded(self._row(pictures, random)) for _ in range(count)]
        ids, labels, positions, branches = (
            np.array([getattr(row, name) for row in rows], dtype=np.int64)
            for name in ("ids", "labels", "positions", "branches")
        )
        return Batch(ids, labels, positions, branches, [number for row in rows for number in row.pictures])

    def _row(self, pictures: range, random: Random) -> Row:
        kind = random.random()
        if kind < TEXT_ONLY:
            return self._filled([], iter(lambda: chat.without_picture(random), None), random)
        if kind < TEXT_ONLY + SEVERAL:
            return self._several(random.sample(pictures, 2 if random.random() < 0.75 else 3), random)
        number = random.choice(pictures)
        return self._filled([number], _endless(lambda: exchanges(self._scene_of(number), random)), random)

    def _several(self, numbers: list[int], random: Random) -> Row:
        """Pictures in one message, or each in a turn of its own."""
        scenes = [self._scene_of(number) for number in numbers]
        if random.random() > EARLIER_TURN:
            return self._filled(numbers, _endless(lambda: about_several(scenes, random)), random)
        latest = _endless(lambda: exchanges(scenes[-1], random))
        earlier = [exchanges(scene, random)[0] for scene in scenes[:-1]]
        return self._filled(numbers, latest, random, earlier)

    def _filled(
        self, numbers: list[int], source: Iterator[Exchange], random: Random, earlier: list[Exchange] | None = None
    ) -> Row:
        """A row of questions from `source`, until one does not fit."""
        row = Row(numbers)
        shared = self._shared(len(numbers), random, earlier or [])
        row.add(shared, [IGNORED] * len(shared), 0, 0)
        branch = 0
        while True:
            ids, labels = self._branch(source, random)
            if len(row.ids) + len(ids) > LENGTH:
                return row
            branch += 1
            row.add(ids, labels, branch, len(shared))

    def _shared(self, count: int, random: Random, earlier: list[Exchange]) -> list[int]:
        system = ""
        if random.random() < SYSTEM_TURN:
            system = f"{START}system\n{random.choice(chat.SYSTEM_TURNS)}{END}\n"
        ids = self._ids(f"{system}{START}user\n")
        for exchange in earlier:
            turn = f"{exchange.question}{END}\n{START}assistant\n{exchange.answer}{END}\n{START}user\n"
            ids += self._image + self._ids(turn)
        return ids + self._image * (count - len(earlier))

    def _branch(self, source: Iterator[Exchange], random: Random) -> tuple[list[int], list[int]]:
        """One conversation of one or more turns: ids, and the ids of answers where they are to be learned."""
        ids: list[int] = []
        labels: list[int] = []
        while True:
            exchange = next(source)
            asked = self._ids(f"{exchange.question}{END}\n{START}assistant\n")
            answer = self._ids(exchange.answer) + self._end
            ids += asked + answer
            labels += [IGNORED] * len(asked) + answer
            if random.random() > FOLLOW_UP:
                return ids, labels
            between = self._ids(f"\n{START}user\n")
            ids += between
            labels += [IGNORED] * len(between)

    def _padded(self, row: Row) -> Row:
        """Padding is a branch that nothing else sees."""
        missing = LENGTH - len(row.ids)
        row.add([self._pad] * missing, [IGNORED] * missing, -1, 0)
        return row

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _endless(make: Callable[[], list[Exchange]]) -> Iterator[Exchange]:
    while True:
        yield from make()
