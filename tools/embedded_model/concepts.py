"""What the model can name: concepts with drawings, groups of ImageNet classes, colours, shapes; and how to say them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
# Red, green and blue that a colour's name stands for; scenes vary them a little.
COLOURS = {
    "red": (220, 35, 35),
    "green": (35, 160, 60),
    "blue": (40, 80, 215),
    "yellow": (245, 215, 45),
    "orange": (250, 140, 20),
    "purple": (135, 50, 175),
    "pink": (250, 150, 195),
    "brown": (125, 75, 35),
    "black": (18, 18, 18),
    "white": (248, 248, 248),
    "gray": (130, 130, 130),
    "cyan": (60, 205, 220),
}
# Colours that people would mix up on one another.
CLOSE = {
    "red": {"orange", "brown", "pink"},
    "green": {"cyan"},
    "blue": {"purple", "black", "cyan"},
    "yellow": {"white", "orange"},
    "orange": {"yellow", "red", "brown"},
    "purple": {"blue", "black", "brown"},
    "pink": {"white", "red"},
    "brown": {"red", "orange", "black", "gray", "purple"},
    "black": {"brown", "blue", "purple"},
    "white": {"yellow", "cyan", "pink"},
    "gray": {"brown"},
    "cyan": {"white", "blue", "green"},
}
SHAPES = ("circle", "square", "triangle", "star", "rectangle", "hexagon", "cross")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
MASS = {"bread", "spaghetti", "sushi", "popcorn", "fire", "corn", "broccoli", "cheese"}
PAIRS = {"grapes", "cherries", "pancakes", "french fries", "glasses", "sunglasses", "jeans", "headphones", "scissors"}
PROPER = {"Santa Claus", "thumbs up"}
IRREGULAR = {
    "mouse": "mice",
    "fish": "fish",
    "deer": "deer",
    "wolf": "wolves",
    "shrimp": "shrimp",
    "tooth": "teeth",
    "Santa Claus": "Santa Clauses",
    "thumbs up": "thumbs up",
    "bowl of rice": "bowls of rice",
    "glass of milk": "glasses of milk",
    "cup of coffee": "cups of coffee",
    "glass of wine": "glasses of wine",
    "mug of beer": "mugs of beer",
    "bow and arrow": "bows and arrows",
}
ENDS_IN_OES = ("tomato", "potato", "volcano", "flamingo")


@dataclass(frozen=True)
class Concept:
    """Something with drawings. `labels` are names of Unicode CLDR, by which icon sets file them."""

    name: str
    category: str
    labels: tuple[str, ...]


@cache
def concepts() -> dict[str, Concept]:
    """All of them, by name, in the order of `concepts.tsv`."""
    rows = (line.split("\t") for line in _rows("concepts.tsv"))
    return {name: Concept(name, category, tuple(labels.split(", "))) for category, name, labels in rows}


@cache
def photo_names() -> tuple[str, ...]:
    """The name of each of the 1,000 classes of ImageNet-1k."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    names = [_lemma(info.index_to_description(index)) for index in range(1000)]
    for line in _rows("photo_names.tsv"):
        name, ranges = line.split("\t")
        for index in _indices(ranges):
            names[index] = name
    return tuple(names)


@cache
def names() -> tuple[str, ...]:
    """Everything an answer can call a thing: concepts, then what only photographs show, then shapes."""
    return tuple(dict.fromkeys([*concepts(), *sorted(set(photo_names())), *SHAPES]))


def article(name: str) -> str:
    """The name as it stands in a sentence: "an owl", "grapes"."""
    if name in MASS or name in PAIRS or name in PROPER:
        return name
    vowel = name[0].lower() in "aeiou" and not name.startswith(("uni", "eu"))
    return f"{'an' if vowel else 'a'} {name}"


def plural(name: str) -> str:
    """More than one of it."""
    if name in MASS or name in PAIRS:
        return name
    if name in IRREGULAR:
        return IRREGULAR[name]
    if name in ENDS_IN_OES or name.endswith(("s", "x", "ch", "sh")):
        return f"{name}es"
    if re.search(r"[^aeiou]y$", name):
        return f"{name[:-1]}ies"
    return f"{name}s"


def countable(name: str) -> bool:
    """Whether "two of them" can be said."""
    return name not in MASS and name not in PAIRS and name not in PROPER


def is_are(name: str) -> str:
    return "are" if name in PAIRS else "is"


def _rows(file: str) -> list[str]:
    """Lines of a table without its heading."""
    return (FOLDER / file).read_text(encoding="utf-8").splitlines()[1:]


def _lemma(description: str) -> str:
    """The first of a synset's words: "tabby" of "tabby, tabby cat"."""
    word = re.sub(r"\s*\(.*?\)", "", description.split(",")[0]).strip()
    return word.lower() if word.isupper() else word


def _indices(ranges: str) -> Iterator[int]:
    for part in ranges.split(", "):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
