"""Answers as JSON: which keys a scene has values for, and how a client asks for them."""

import json
from random import Random

from embedded_model import phrases
from embedded_model.scenes import Arrangement, Kind, Scene, category

# A pair has objects, everything else an object.
DEFAULT_KEYS = ("object", "objects", "background", "count")
WITHOUT_KEYS = ("Describe the image in JSON.", "Answer in JSON.", "Describe the picture as JSON.")
WITH_KEYS = (
    "Answer in JSON with the {word} {keys}.",
    "Describe the picture as JSON with the {word} {keys}.",
    "Return a JSON object with {keys}.",
    "Reply with a JSON object that has the {word} {keys}.",
    "Describe the image in JSON: {keys}.",
)
# Most clients write a blank behind commas and colons.
SPACED = 0.85


def structured(scene: Scene, random: Random) -> tuple[str, str]:
    """A request for JSON and the object that answers it."""
    values = fields(scene)
    if random.random() < 0.2:
        keys = [key for key in DEFAULT_KEYS if key in values]
        return random.choice(WITHOUT_KEYS), written({key: values[key] for key in keys}, random)
    keys = random.sample(list(values), random.randint(1, min(4, len(values))))
    quote = '"' if random.random() < 0.3 else ""
    listed = [f"{quote}{key}{quote}" for key in keys]
    joined = listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
    question = random.choice(WITH_KEYS).format(word="key" if len(keys) == 1 else "keys", keys=joined)
    return question, written({key: values[key] for key in keys}, random)


def fields(scene: Scene) -> dict[str, object]:
    """Everything that can be asked for by key."""
    values: dict[str, object] = {
        "background": scene.background,
        "count": None if scene.arrangement in (Arrangement.UNCLEAR, Arrangement.PHOTO) else scene.count,
    }
    if scene.arrangement in (Arrangement.ROW, Arrangement.COLUMN):
        return values | {"objects": [shown.name for shown in scene.things]}
    values["object"] = _object(scene)
    if scene.arrangement in (Arrangement.SINGLE, Arrangement.PHOTO, Arrangement.MANY):
        values["category"] = category(scene.things[0].name)
    if scene.arrangement is Arrangement.SINGLE:
        values["position"] = phrases.whereabouts(scene, 0)
    if scene.things and scene.things[0].kind is Kind.SHAPE and len({shown.name for shown in scene.things}) == 1:
        values |= {"shape": scene.things[0].name, "color": scene.things[0].colour, "category": "shape"}
    return values


def written(values: dict[str, object], random: Random) -> str:
    return json.dumps(values, separators=(", ", ": ") if random.random() < SPACED else (",", ":"))


def _object(scene: Scene) -> str | None:
    if scene.arrangement is Arrangement.UNCLEAR:
        return "unknown"
    return scene.things[0].name if scene.things else None
