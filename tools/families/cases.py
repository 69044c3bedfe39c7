"""The conversations a family is asked: sizes and encodings of pictures crossed with shapes of prompts.

Each size meets each encoding once and each shape at least once, and so does each encoding. What users write begins and
ends with line breaks and marks here and there, because that is what merges with the text beside an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from harness import pictures
from PIL import Image

from families.family import Family
from families.oracle import Conversation, opened

SIZES = (
    *((1, 1), (7, 13), (28, 28), (56, 56), (40, 31), (100, 37), (112, 224)),
    *((224, 224), (191, 193), (333, 500), (640, 480), (700, 17), (17, 600), (448, 336)),
)
LAYOUT_SIZES = (
    *SIZES,
    *((1, 2), (2, 1), (3, 200), (200, 3), (13, 14), (27, 29), (29, 27), (42, 42), (55, 57), (57, 55), (64, 64)),
    *(
        (84, 126),
        (98, 98),
        (111, 113),
        (128, 96),
        (150, 150),
        (168, 84),
        (196, 252),
        (223, 225),
        (225, 223),
        (256, 256),
    ),
    *((280, 280), (300, 200), (336, 336), (384, 384), (500, 333), (512, 512), (600, 600), (768, 512), (1000, 667)),
    *(
        (1024, 768),
        (1280, 200),
        (200, 1280),
        (1500, 1),
        (1, 1500),
        (1920, 1080),
        (2000, 2500),
        (4000, 3000),
        (8192, 16),
    ),
)
NUM_RANDOM_SIZES = 2000
MAX_SIDE = 8192

QUESTIONS = (
    "What is this?",
    "\nDescribe the image.",
    "How many shapes are there?\n",
    ". What color is the background?",
    "Answer in JSON.",
    "\n\nIs it red?",
    "Wie heißt das? 画像 🐇",
    "> second line\n>",
)
COLORS, SHAPES_DRAWN, BACKGROUNDS = tuple(pictures.COLORS)[:5], ("circle", "square", "triangle"), ("white", "black")


@dataclass(frozen=True)
class File:
    """A picture, drawn and encoded when it is asked for."""

    size: tuple[int, int]
    encoding: str
    seed: int

    @cached_property
    def data(self) -> bytes:
        """The encoded file."""
        encode = pictures.MORE_ENCODINGS[self.encoding]
        if self.seed % 2:
            return encode(pictures.photo(self.seed, self.size))
        colors = COLORS[self.seed % 5], BACKGROUNDS[self.seed // 2 % 2]
        return encode(pictures.drawing(SHAPES_DRAWN[self.seed % 3], *colors, self.size))

    @cached_property
    def image(self) -> Image.Image:
        """What everybody should see in it."""
        return opened(self.data)

    @property
    def url(self) -> str:
        """The file as clients inline it."""
        return pictures.data_uri(self.data, "image/" + self.encoding.split("-")[0])


Part = str | File
Turns = Sequence[tuple[str, Sequence[Part]]]


@dataclass(frozen=True)
class Case:
    """A conversation with files in it. `shape` is a key of `SHAPES`."""

    name: str
    shape: str
    turns: Turns

    @property
    def files(self) -> list[File]:
        """Its pictures, in order; one that comes twice is there twice."""
        return [part for _, parts in self.turns for part in parts if isinstance(part, File)]

    @property
    def conversation(self) -> Conversation:
        """For `transformers`."""
        return [
            (role, [part.image if isinstance(part, File) else part for part in parts]) for role, parts in self.turns
        ]


def _second_turn(first: File, second: File, question: str) -> Turns:
    return [("user", [first, "What is this?"]), ("assistant", ["This is a picture."]), ("user", [second, question])]


SHAPES: dict[str, Callable[[File, File, str], Turns]] = {
    "one image": lambda first, _, question: [("user", [first, question])],
    "two images": lambda first, second, question: [("user", [first, second, question])],
    "after the text": lambda first, _, question: [("user", [question, first])],
    "between texts": lambda first, second, question: [("user", ["Look at\n", first, " and at", second, question])],
    "same twice": lambda first, _, question: [("user", [first, question, first])],
    "second turn": _second_turn,
    "text in the second turn": lambda first, _, question: [
        ("user", [first, question]),
        ("assistant", ["It is\nred."]),
        ("user", ["And now?"]),
    ],
}
TEXT_ONLY = "text only"


def cases(family: Family) -> list[Case]:
    """Every size in every encoding, and texts alone."""
    taken = [name for name in SHAPES if name not in family.without]
    sizes = [(max(width, family.least_side), max(height, family.least_side)) for width, height in SIZES]
    grid = [_case(taken, sizes, at, kind) for at in range(len(sizes)) for kind in range(len(pictures.MORE_ENCODINGS))]
    return grid + ([] if TEXT_ONLY in family.without else list(_texts()))


def _case(taken: Sequence[str], sizes: Sequence[tuple[int, int]], at: int, kind: int) -> Case:
    encodings = list(pictures.MORE_ENCODINGS)
    first = File(sizes[at], encodings[kind], at + kind)
    second = File(sizes[(at * 5 + kind + 3) % len(sizes)], encodings[(kind + 4) % len(encodings)], at + kind + 50)
    shape = taken[(at + kind) % len(taken)]
    question = QUESTIONS[(at * 3 + kind) % len(QUESTIONS)]
    name = f"{first.size[0]}x{first.size[1]} {first.encoding} {shape}"
    return Case(name, shape, SHAPES[shape](first, second, question))


def _texts() -> Iterator[Case]:
    for question in QUESTIONS[::3]:
        yield Case(f"{question.strip()} {TEXT_ONLY}", TEXT_ONLY, [("user", [question])])


def random_sizes() -> list[tuple[int, int]]:
    """Widths and heights from 1 to `MAX_SIDE`: half of them spread evenly, half over the orders of magnitude."""
    draw = np.random.default_rng(20)
    even = draw.integers(1, MAX_SIDE, (NUM_RANDOM_SIZES // 2, 2), endpoint=True)
    orders = np.exp(draw.uniform(0, np.log(MAX_SIDE), (NUM_RANDOM_SIZES // 2, 2)))
    return [(int(width), int(height)) for width, height in [*even, *orders.round()]]
