"""What is measured: pictures that no run has seen, questions about them, and when an answer counts as right.

Judges look for words, not for sentences, so that models with other habits of speech are measured alike.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from PIL import Image

from embedded_model import fonts, phrases
from embedded_model.art import Art
from embedded_model.chat import CANNED, NO_PICTURE
from embedded_model.concepts import COLOURS, NUMBERS, PLACES, SHAPES, article, concepts, plural
from embedded_model.encoder import Encoder
from embedded_model.pictures import Painter
from embedded_model.questions import READ
from embedded_model.scenes import (
    UNSEEN_PLACINGS,
    Arrangement,
    Kind,
    Scene,
    Stock,
    Thing,
    many,
    moved,
    pair,
    place,
    seen_on,
    single,
    spot,
    text,
)
from embedded_model.scenes import background as any_background
from embedded_model.scenes import shape as any_shape
from embedded_model.snapshots import SURE, named, photographs
from embedded_model.sources import TRAINING_STYLES, UNSEEN_STYLES

SEED = "evaluation"
WHAT = "What is this a picture of?"
AS_JSON = "Answer in JSON with the keys object, background and category."
DIGITS = {word: str(number) for number, word in enumerate(NUMBERS)}
PLACE_WORDS = ("top", "bottom", "left", "right", "center")
Judge = Callable[[str], bool]


@dataclass(frozen=True)
class Case:
    """Pictures, a question, what is expected in words, and whether an answer is right."""

    pictures: tuple[Image.Image, ...]
    question: str
    expected: str
    right: Judge


@dataclass(frozen=True)
class Measure:
    """A row of the table. `reach` is the aim, where there is one."""

    name: str
    cases: Callable[[], Iterator[Case]]
    reach: float | None = None


class Studio:
    """Draws kept-out pictures. Styles and fonts are those of training unless told otherwise."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.known = Art(folder / "art", TRAINING_STYLES)
        self._unseen = {style: Art(folder / "art", (style,)) for style in UNSEEN_STYLES}
        faces = fonts.unseen_fonts()
        self.stock = Stock(self.known.counts(), len(faces), UNSEEN_PLACINGS)
        self._painter = Painter(self.known, faces)

    def measures(self) -> list[Measure]:
        rows = [
            Measure("name, known style, unseen augmentation", self.names, 0.95),
            Measure("name, plain icon on white", self.icons, 0.95),
            *(Measure(f"name, unseen style {style}", self._unseen_names(style), 0.70) for style in UNSEEN_STYLES),
            Measure("background colour", self.backgrounds, 0.95),
            Measure("shape and its colour", self.shapes, 0.90),
            Measure("count 1-6 of drawings, unseen layouts", self.counts, 0.90),
            Measure("yes/no", self.presences, 0.90),
            Measure("position (9 cells)", self.positions, 0.90),
            Measure("side of a pair", self.sides, 0.90),
            Measure("name of the second picture", self.second, None),
            Measure("JSON, all three values", self.json_values, 0.85),
            Measure("printed words, unseen fonts: read, or honest", self.words, 0.95),
            Measure("no picture: says so", self.nothing, None),
            Measure("photographs, as the encoder's own head names them", self.photographs, 1.0),
        ]
        return rows

    def drawn(self, scene: Scene, random: Random) -> Image.Image:
        """A scene of known styles."""
        return self._painter.draw(scene, random)

    def names(self) -> Iterator[Case]:
        return self._named("names", self.stock, self._painter)

    def icons(self) -> Iterator[Case]:
        """Every drawing upright on white; in random order, for those who want fewer."""
        counts = self.known.counts()
        drawings = [(s, c, n) for s, by in counts.items() for c, total in by.items() for n in range(total)]
        Random(f"{SEED}/icons").shuffle(drawings)
        for style, name, number in drawings:
            thing = Thing(name, Kind.DRAWING, 0.5, 0.5, 1.0, style=style, number=number)
            scene = Scene(Arrangement.SINGLE, (thing,), "white")
            picture = self._painter.draw_clean(scene, Random(0))
            yield Case((picture,), WHAT, name, says(name))

    def backgrounds(self) -> Iterator[Case]:
        for random in randoms("backgrounds"):
            scene = single(self.stock, random)
            yield self._case(scene, random, "What color is the background?", scene.background or "", last_colour)

    def shapes(self) -> Iterator[Case]:
        for random in randoms("shapes"):
            ground, size = any_background(random), random.uniform(0.3, 0.7)
            name, colour = random.choice(SHAPES), seen_on(random, ground)
            thing = any_shape(random, name, colour, (*spot(random, size), size))
            scene = Scene(Arrangement.SINGLE, (thing,), ground)
            yield self._case(scene, random, "What is in this picture?", f"{colour} {name}", says_each)

    def counts(self) -> Iterator[Case]:
        for random in randoms("counts"):
            scene = many(self.stock, random)
            question = f"How many {plural(scene.things[0].name)} are there?"
            yield self._case(scene, random, question, NUMBERS[scene.count], number)

    def presences(self) -> Iterator[Case]:
        """Half of the things asked for are there."""
        for random in randoms("presences"):
            scene = single(self.stock, random)
            name, there = scene.things[0].name, random.random() < 0.5
            asked = name if there else random.choice([other for other in concepts() if other != name])
            question = f"Is there {article(asked)} in the image?"
            yield self._case(scene, random, question, "Yes" if there else "No", starts)

    def positions(self) -> Iterator[Case]:
        """Every place alike often."""
        for random in randoms("positions"):
            wanted, size = random.choice(PLACES), random.uniform(0.3, 0.5)
            scene = single(self.stock, random)
            thing = scene.things[0]
            while place(thing) != wanted:
                thing = moved(thing, *spot(random, size))
            thing = Thing(**{**vars(thing), "size": size})
            scene = Scene(Arrangement.SINGLE, (thing,), scene.background, scene.texture)
            yield self._case(scene, random, f"Where is the {thing.name}?", wanted, placed)

    def sides(self) -> Iterator[Case]:
        for random in randoms("sides"):
            scene = pair(self.stock, random)
            index = random.randrange(2)
            question = f"What is {phrases.placed(phrases.ends(scene)[index])}?"
            other = scene.things[1 - index].name
            name = scene.things[index].name
            picture = self._painter.draw(scene, random)
            yield Case((picture,), question, name, says_only(name, other))

    def second(self) -> Iterator[Case]:
        for random in randoms("second"):
            scenes = [single(self.stock, random) for _ in range(2)]
            pictures = tuple(self._painter.draw(scene, random) for scene in scenes)
            name = scenes[1].things[0].name
            yield Case(pictures, "What is in the second image?", name, says(name))

    def json_values(self) -> Iterator[Case]:
        for random in randoms("json"):
            scene = single(self.stock, random)
            name = scene.things[0].name
            values = {"object": name, "background": scene.background, "category": concepts()[name].category}
            yield self._case(scene, random, AS_JSON, json.dumps(values), same_json)

    def words(self) -> Iterator[Case]:
        """Reading is right, and so is saying that one cannot."""
        for random in randoms("words"):
            scene = text(self.stock, random)
            content = scene.things[0].content
            yield self._case(scene, random, random.choice(READ), content, read_or_honest)

    def nothing(self) -> Iterator[Case]:
        """Questions about a picture that was not sent."""
        (questions,) = (questions for questions, answer in CANNED if answer == NO_PICTURE)
        for question in questions:
            yield Case((), question, NO_PICTURE, sees_nothing)

    def photographs(self) -> Iterator[Case]:
        """Those that the head is sure about."""
        encoder = Encoder.stored(self._folder / "encoder.safetensors", torch.device("cpu"))
        for file, picture in photographs(self._folder / "downloads"):
            name, share = named(encoder, picture)
            if share >= SURE:
                yield Case((picture,), WHAT, f"{name} ({file}, {share:.2f})", says(name))

    def _unseen_names(self, style: str) -> Callable[[], Iterator[Case]]:
        art = self._unseen[style]
        stock = Stock(art.counts(), self.stock.fonts)
        return lambda: self._named(style, stock, Painter(art, fonts.unseen_fonts()))

    def _named(self, key: str, stock: Stock, painter: Painter) -> Iterator[Case]:
        for random in randoms(key):
            scene = single(stock, random)
            name = scene.things[0].name
            yield Case((painter.draw(scene, random),), WHAT, name, says(name))

    def _case(self, scene: Scene, random: Random, question: str, expected: str, judge: Callable[[str], Judge]) -> Case:
        return Case((self._painter.draw(scene, random),), question, expected, judge(expected))


def randoms(key: str) -> Iterator[Random]:
    """One generator a case, so that case n is the same however many are asked."""
    number = 0
    while True:
        yield Random(f"{SEED}/{key}/{number}")
        number += 1


def says(word: str) -> Judge:
    """The word stands in the answer, by itself or in the plural."""
    pattern = re.compile(rf"(?<![a-z]){re.escape(word)}(?:e?s)?(?![a-z])", re.IGNORECASE)
    return lambda answer: pattern.search(answer) is not None


def says_each(words: str) -> Judge:
    """All of these words, wherever they stand."""
    judges = [says(word) for word in words.split()]
    return lambda answer: all(judge(answer) for judge in judges)


def says_only(word: str, other: str) -> Judge:
    return lambda answer: says(word)(answer) and not says(other)(answer)


def last_colour(expected: str) -> Judge:
    """The last colour named is the expected one."""
    return lambda answer: [word for word in _words(answer) if word in COLOURS][-1:] == [expected]


def number(expected: str) -> Judge:
    """The first number in the answer, in words or digits."""

    def judge(answer: str) -> bool:
        found = [DIGITS.get(word, word) for word in _words(answer)]
        return next((word for word in found if word.isdigit()), "") == DIGITS[expected]

    return judge


def starts(expected: str) -> Judge:
    return lambda answer: answer.strip().lower().startswith(expected.lower())


def placed(expected: str) -> Judge:
    """The place's words and no other place's."""
    return lambda answer: {word for word in _words(answer) if word in PLACE_WORDS} == set(expected.split())


def same_json(expected: str) -> Judge:
    def judge(answer: str) -> bool:
        try:
            return bool(json.loads(answer) == json.loads(expected))
        except json.JSONDecodeError:
            return False

    return judge


def sees_nothing(answer: str) -> bool:
    return re.search(r"do(?: not|n't) see", answer) is not None


def read_or_honest(expected: str) -> Judge:
    return lambda answer: says(expected)(answer) or re.search(r"can(?:not|'t) read", answer) is not None


def _words(answer: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", answer.lower())
