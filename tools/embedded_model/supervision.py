"""What is known about each cell of a picture: targets for the heads that help training and are dropped at the end."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from embedded_model.concepts import COLOURS, names
from embedded_model.scenes import Arrangement, Kind, Scene, Thing

GRID = 7
CELLS = GRID * GRID
UNKNOWN = -100
COLOUR_NAMES = tuple(COLOURS)
# Classes of a cell beside the names of things.
BLANK, TEXT, UNCLEAR = "blank", "text", "unclear"
CLASSES = (*names(), BLANK, TEXT, UNCLEAR)
CLASS_OF = {name: index for index, name in enumerate(CLASSES)}
# Shares of a cell that a thing must cover to be what the cell shows, and may cover of a blank one.
COVERED, TOUCHED = 0.4, 0.04
# Where the thing in a photograph is this dense, the cell shows it.
DENSE = 1.0


@dataclass(frozen=True)
class Targets:
    """`classes` and `colours` of cells, UNKNOWN where nobody could say; `count` and `background` of the picture."""

    classes: np.ndarray
    colours: np.ndarray
    count: int
    background: int


def targets(scene: Scene, blob: Tensor | None = None) -> Targets:
    """`blob` [cells] is where a photograph's thing is."""
    background = UNKNOWN if scene.background is None else COLOUR_NAMES.index(scene.background)
    classes = np.full(CELLS, _ground(scene), dtype=np.int64)
    colours = np.full(CELLS, background, dtype=np.int64)
    if blob is not None:
        classes[:] = np.where(blob.numpy() >= DENSE, CLASS_OF[scene.things[0].name], UNKNOWN)
        return Targets(classes, colours, UNKNOWN, background)
    for thing in scene.things:
        share = coverage(thing)
        classes[share > TOUCHED] = UNKNOWN
        colours[share > TOUCHED] = UNKNOWN
        classes[share >= COVERED] = CLASS_OF[TEXT if thing.kind is Kind.TEXT else thing.name]
        if thing.kind is Kind.SHAPE and thing.colour is not None:
            colours[share >= 0.7] = COLOUR_NAMES.index(thing.colour)
    return Targets(classes, colours, scene.count, background)


def coverage(thing: Thing) -> np.ndarray:
    """Share of each cell that the thing's box covers, [cells]."""
    width, height = _extent(thing)
    edges = np.arange(GRID + 1) / GRID

    def along(centre: float, extent: float) -> np.ndarray:
        inside = np.minimum(edges[1:], centre + extent / 2) - np.maximum(edges[:-1], centre - extent / 2)
        shares: np.ndarray = inside.clip(0) * GRID
        return shares

    return np.outer(along(thing.y, height), along(thing.x, width)).reshape(-1)


def _extent(thing: Thing) -> tuple[float, float]:
    if thing.kind is Kind.TEXT:
        return thing.size, min(0.25, thing.size / 3)
    if thing.name == "rectangle":
        return thing.size, thing.size / 2
    return thing.size * thing.aspect, thing.size


def _ground(scene: Scene) -> int:
    return CLASS_OF[UNCLEAR if scene.arrangement is Arrangement.UNCLEAR else BLANK]
