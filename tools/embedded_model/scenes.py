"""Plans of pictures: what lies where, in which style and colour. No pixel is touched here.

A scene is a pure function of a random generator, so that a picture can be drawn, asked about and supervised from its
number alone. All lengths are in units of the picture's side.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from embedded_model.concepts import CLOSE, COLOURS, PLACES, SHAPES, concepts, countable, photo_names

# How often which scene is drawn while training; photographs are a share of all of these.
SHARES = {"single": 0.42, "icon": 0.08, "pair": 0.16, "many": 0.13, "shapes": 0.13, "text": 0.06, "empty": 0.02}
PHOTO_SHARE = 0.2
UNCLEAR_SHARE = 0.02
# How far from the border between two places a thing stays: nobody could say on which side it lies.
DOUBT = 0.035


class Kind(StrEnum):
    """What a thing in a picture is."""

    DRAWING = "drawing"
    SHAPE = "shape"
    TEXT = "text"


class Arrangement(StrEnum):
    """How the things of a scene lie."""

    SINGLE = "single"
    ROW = "row"
    COLUMN = "column"
    MANY = "many"
    TEXT = "text"
    EMPTY = "empty"
    UNCLEAR = "unclear"
    PHOTO = "photo"


class Look(StrEnum):
    """What is done to a drawing, so that a style is not taken for a thing."""

    PLAIN = "plain"
    HUE = "hue"
    GRAY = "gray"
    OUTLINED = "outlined"


@dataclass(frozen=True)
class Thing:
    """`style` and `number` find a drawing, `content` is what a text says."""

    name: str
    kind: Kind
    x: float
    y: float
    size: float
    colour: str | None = None
    style: str = ""
    number: int = 0
    turn: float = 0.0
    flip: bool = False
    aspect: float = 1.0
    look: Look = Look.PLAIN
    content: str = ""


@dataclass(frozen=True)
class Scene:
    """`background` is a colour's name; nothing where a picture has no one colour."""

    arrangement: Arrangement
    things: tuple[Thing, ...] = ()
    background: str | None = None
    texture: str = "plain"
    photo_class: int | None = None

    @property
    def count(self) -> int:
        return len(self.things)


@dataclass(frozen=True)
class Stock:
    """What scenes are planned with. `drawings` counts them by style and concept."""

    drawings: Mapping[str, Mapping[str, int]]
    fonts: int
    placing: Sequence[str] = ("grid", "row", "scatter")


def scene(stock: Stock, random: Random) -> Scene:
    """Any scene that is trained on."""
    chance = random.random()
    if chance < PHOTO_SHARE:
        return photo(random)
    if chance < PHOTO_SHARE + UNCLEAR_SHARE:
        return Scene(Arrangement.UNCLEAR, texture=random.choice(("static", "blobs")))
    (kind,) = random.choices(list(SHARES), list(SHARES.values()))
    return PLANS[kind](stock, random)


def photo(random: Random) -> Scene:
    """A photograph, of which there are no pixels: `photographs` makes up what the encoder would see."""
    names = photo_names()
    name = random.choice(sorted(set(names)))
    chosen = random.choice([index for index, other in enumerate(names) if other == name])
    return Scene(Arrangement.PHOTO, (Thing(name, Kind.DRAWING, 0.5, 0.5, 1.0),), photo_class=chosen)


def single(stock: Stock, random: Random, name: str | None = None) -> Scene:
    """One drawing, of any size, anywhere."""
    size = random.uniform(0.6, 0.97) if random.random() < 0.5 else random.uniform(0.3, 0.6)
    x, y = spot(random, size)
    thing = drawing(stock, random, (x, y, size), name)
    return Scene(Arrangement.SINGLE, (thing,), background(random), texture(random))


def icon(stock: Stock, random: Random) -> Scene:
    """A drawing as icon sets show it: upright, large, mostly on white."""
    name, style, number = _pick(stock, random, None)
    size = random.uniform(0.85, 1.0)
    thing = Thing(name, Kind.DRAWING, 0.5, 0.5, size, style=style, number=number)
    colour = "white" if random.random() < 0.7 else background(random)
    return Scene(Arrangement.SINGLE, (thing,), colour)


def pair(stock: Stock, random: Random) -> Scene:
    """Two different drawings, beside or above each other."""
    in_row = random.random() < 0.6
    first, second = (
        drawing(stock, random, (0.0, 0.0, random.uniform(0.38, 0.5)), name)
        for name in random.sample(sorted(_concepts(stock)), 2)
    )
    placed = []
    for thing, along in ((first, 0.26), (second, 0.74)):
        across = random.uniform(thing.size / 2, 1 - thing.size / 2)
        along += random.uniform(-0.02, 0.02)
        placed.append(moved(thing, *((along, across) if in_row else (across, along))))
    arrangement = Arrangement.ROW if in_row else Arrangement.COLUMN
    return Scene(arrangement, tuple(placed), background(random), texture(random))


def many(stock: Stock, random: Random, count: int | None = None) -> Scene:
    """The same drawing one to six times."""
    name = random.choice([name for name in sorted(_concepts(stock)) if countable(name)])
    count = count or random.randint(1, 6)
    model = drawing(stock, random, (0.5, 0.5, 0.3), name)
    spots = places(random, count, random.choice(stock.placing))
    things = tuple(_varied(random, model, *where) for where in spots)
    return Scene(Arrangement.MANY, things, background(random), texture(random))


def shapes(stock: Stock, random: Random) -> Scene:
    """One shape, two different ones, or one to six alike."""
    ground = background(random)
    how = random.random()
    if how < 0.45:
        spots = places(random, random.randint(1, 6), random.choice(stock.placing))
        name, colour = random.choice(SHAPES), seen_on(random, ground)
        things = [shape(random, name, colour, where) for where in spots]
        return Scene(Arrangement.MANY, tuple(things), ground, texture(random))
    if how < 0.72:
        size = random.uniform(0.3, 0.7)
        x, y = spot(random, size)
        only = shape(random, random.choice(SHAPES), seen_on(random, ground), (x, y, size))
        return Scene(Arrangement.SINGLE, (only,), ground, texture(random))
    in_row = random.random() < 0.6
    things = []
    for name, along in zip(random.sample(SHAPES, 2), (0.27, 0.73), strict=True):
        size, across = random.uniform(0.32, 0.45), random.uniform(0.3, 0.7)
        where = (along, across, size) if in_row else (across, along, size)
        things.append(shape(random, name, seen_on(random, ground), where))
    return Scene(Arrangement.ROW if in_row else Arrangement.COLUMN, tuple(things), ground, texture(random))


def text(stock: Stock, random: Random) -> Scene:
    """A printed word or number. The model need not read it, only know it for what it is."""
    ground = background(random)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if random.random() < 0.5 else "abcdefghijklmnopqrstuvwxyz"
    if random.random() < 0.25:
        letters = "0123456789"
    content = "".join(random.choice(letters) for _ in range(random.randint(2, 8)))
    if letters[0] == "a" and random.random() < 0.5:
        content = content.capitalize()
    size = random.uniform(0.45, 0.9)
    where = random.uniform(size / 2, 1 - size / 2), random.uniform(0.2, 0.8)
    colour = seen_on(random, ground)
    number = random.randrange(max(1, stock.fonts))
    thing = Thing("text", Kind.TEXT, *where, size, colour=colour, number=number, content=content)
    return Scene(Arrangement.TEXT, (thing,), ground, texture(random))


def empty(stock: Stock, random: Random) -> Scene:
    """A background and nothing on it."""
    del stock
    return Scene(Arrangement.EMPTY, (), background(random), texture(random))


PLANS: dict[str, Callable[[Stock, Random], Scene]] = {
    "single": single,
    "icon": icon,
    "pair": pair,
    "many": many,
    "shapes": shapes,
    "text": text,
    "empty": empty,
}


def drawing(stock: Stock, random: Random, where: tuple[float, float, float], name: str | None = None) -> Thing:
    """A drawing of any style, turned, flipped and recoloured a little. `where` is its centre and size."""
    name, style, number = _pick(stock, random, name)
    (look,) = random.choices(list(Look), (0.66, 0.14, 0.08, 0.12))
    turn = random.uniform(-20, 20) if random.random() < 0.6 else 0.0
    aspect = random.uniform(0.8, 1.0) if random.random() < 0.3 else 1.0
    flip = random.random() < 0.5
    return Thing(
        name,
        Kind.DRAWING,
        *where,
        style=style,
        number=number,
        turn=turn,
        flip=flip,
        aspect=aspect,
        look=look,
    )


def shape(random: Random, name: str, colour: str, where: tuple[float, float, float]) -> Thing:
    return Thing(name, Kind.SHAPE, *where, colour=colour, turn=random.uniform(-8, 8))


def moved(thing: Thing, x: float, y: float) -> Thing:
    return Thing(**{**vars(thing), "x": x, "y": y})


def background(random: Random) -> str:
    return random.choice(tuple(COLOURS))


def texture(random: Random) -> str:
    (chosen,) = random.choices(("plain", "gradient", "noise"), (0.6, 0.2, 0.2))
    return chosen


def seen_on(random: Random, ground: str) -> str:
    """A colour that stands out from this background."""
    return random.choice([colour for colour in COLOURS if colour != ground and colour not in CLOSE[ground]])


def place(thing: Thing) -> str:
    """Which of the nine places of a picture it lies in."""
    return PLACES[3 * _third(thing.y) + _third(thing.x)]


def spot(random: Random, size: float) -> tuple[float, float]:
    """A centre for something of this size that is clearly in one of the nine places."""
    while True:
        x, y = (random.uniform(size / 2 * 0.95, 1 - size / 2 * 0.95) for _ in range(2))
        if all(abs(value - border) > DOUBT for value in (x, y) for border in BORDERS):
            return x, y


# Where left ends and right begins, and likewise top and bottom.
BORDERS = (0.4, 0.6)


def _third(value: float) -> int:
    return sum(value > border for border in BORDERS)


def places(random: Random, count: int, how: str) -> list[tuple[float, float, float]]:
    """Centres and sizes for that many things that do not touch."""
    return PLACINGS[how](random, count)


def _in_grid(random: Random, count: int) -> list[tuple[float, float, float]]:
    columns = 2 if count <= 4 else 3
    cell = 1 / columns
    cells = random.sample([(i, j) for i in range(columns) for j in range(columns)], count)
    shifted = [((i + 0.5 + random.uniform(-0.06, 0.06)) * cell, (j + 0.5) * cell) for i, j in cells]
    return [(x, y, cell * random.uniform(0.74, 0.9)) for x, y in shifted]


def _in_row(random: Random, count: int) -> list[tuple[float, float, float]]:
    cell = 1 / max(count, 2)
    start, across = (1 - cell * count) / 2, random.uniform(0.3, 0.7)
    size = min(cell * random.uniform(0.8, 0.92), 0.4)
    return [(start + (index + 0.5) * cell, across, size) for index in range(count)]


def _scattered(random: Random, count: int) -> list[tuple[float, float, float]]:
    size = {1: 0.45, 2: 0.38, 3: 0.33, 4: 0.3, 5: 0.27, 6: 0.25}[count] * random.uniform(0.85, 1.0)
    spots: list[tuple[float, float, float]] = []
    for _ in range(400):
        x, y = (random.uniform(size / 2, 1 - size / 2) for _ in range(2))
        if all(math.hypot(x - a, y - b) > size * 1.12 for a, b, _ in spots):
            spots.append((x, y, size))
        if len(spots) == count:
            return spots
    return _in_grid(random, count)


def _in_ring(random: Random, count: int) -> list[tuple[float, float, float]]:
    start = random.uniform(0, 2 * math.pi)
    angles = [start + 2 * math.pi * index / count for index in range(count)]
    return [(0.5 + 0.34 * math.cos(angle), 0.5 + 0.34 * math.sin(angle), 0.27) for angle in angles]


def _in_diagonal(random: Random, count: int) -> list[tuple[float, float, float]]:
    step = 0.8 / count
    falling = random.random() < 0.5
    along = [0.1 + step * (index + 0.5) for index in range(count)]
    return [(value, value if falling else 1 - value, min(step * 1.2, 0.35)) for value in along]


# Ring and diagonal are for evaluation only.
PLACINGS = {
    "grid": _in_grid,
    "row": _in_row,
    "scatter": _scattered,
    "ring": _in_ring,
    "diagonal": _in_diagonal,
}
UNSEEN_PLACINGS = ("ring", "diagonal")


def _varied(random: Random, model: Thing, x: float, y: float, size: float) -> Thing:
    turned = model.turn + random.uniform(-8, 8)
    return Thing(**{**vars(model), "x": x, "y": y, "size": size, "turn": turned})


def _concepts(stock: Stock) -> set[str]:
    return {name for by_concept in stock.drawings.values() for name in by_concept}


def _pick(stock: Stock, random: Random, name: str | None) -> tuple[str, str, int]:
    """Concept, style and number of a drawing; every concept alike often, however many styles have it."""
    name = name or random.choice(sorted(_concepts(stock)))
    styles = [style for style, by_concept in stock.drawings.items() if name in by_concept]
    chosen = random.choice(styles)
    return name, chosen, random.randrange(stock.drawings[chosen][name])


def category(name: str) -> str | None:
    """The kind of thing a concept is, where we have one."""
    return concepts()[name].category if name in concepts() else None
