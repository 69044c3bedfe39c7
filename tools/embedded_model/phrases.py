"""How a scene is spoken of: the noun phrases that questions and answers are made of."""

from embedded_model.concepts import NUMBERS, article, is_are, plural
from embedded_model.scenes import Arrangement, Kind, Scene, Thing, place

UNSURE = "I am not sure what this is."
CANNOT_READ = "There is text in the picture, but I cannot read it."


def thing(shown: Thing) -> str:
    """ "an owl", "a red circle", "some text"."""
    if shown.kind is Kind.TEXT:
        return "some text"
    return article(f"{shown.colour} {shown.name}" if shown.kind is Kind.SHAPE else shown.name)


def things(shown: Thing, count: int) -> str:
    """That many of it: "three owls"."""
    if count == 1:
        return thing(shown)
    colour = f"{shown.colour} " if shown.kind is Kind.SHAPE else ""
    return f"{NUMBERS[count]} {colour}{plural(shown.name)}"


def subject(scene: Scene) -> str:
    """What the picture shows, without its background."""
    if scene.arrangement in (Arrangement.ROW, Arrangement.COLUMN):
        return " and ".join(thing(shown) for shown in scene.things)
    return things(scene.things[0], scene.count) if scene.things else "nothing"


def on_background(scene: Scene) -> str:
    return "" if scene.background is None else f" on {article(scene.background)} background"


def placed(where: str) -> str:
    """ "at the top left", "on the right", "in the center"."""
    if where == "center":
        return "in the center"
    return f"{'on' if where in ('left', 'right') else 'at'} the {where}"


def ends(scene: Scene) -> tuple[str, str]:
    """Where the two things of a pair lie."""
    return ("left", "right") if scene.arrangement is Arrangement.ROW else ("top", "bottom")


def whereabouts(scene: Scene, index: int) -> str:
    """Where one thing of a scene lies, in words."""
    if scene.count == 2:
        return ends(scene)[index]
    return place(scene.things[index])


def verb(scene: Scene) -> str:
    """ "is" or "are", for `subject`."""
    if scene.count > 1:
        return "are"
    return is_are(scene.things[0].name) if scene.things else "is"


def described(scene: Scene) -> str:
    """One full sentence about everything in the picture."""
    if scene.arrangement is Arrangement.UNCLEAR:
        return UNSURE
    if scene.arrangement is Arrangement.PHOTO:
        return f"This is a photo of {subject(scene)}."
    if not scene.things:
        return f"The picture is empty. It has {article(scene.background or '')} background."
    if scene.arrangement is Arrangement.TEXT:
        return f"The picture shows some {scene.things[0].colour} text{on_background(scene)}. I cannot read it."
    if scene.arrangement is Arrangement.SINGLE:
        shown = scene.things[0]
        return f"The picture shows {thing(shown)} {placed(place(shown))}{on_background(scene)}."
    if scene.arrangement is Arrangement.MANY:
        return f"The picture shows {subject(scene)}{on_background(scene)}."
    pair = " and ".join(f"{thing(shown)} {placed(end)}" for shown, end in zip(scene.things, ends(scene), strict=True))
    return f"The picture shows {pair}{on_background(scene)}."


def named(scene: Scene) -> str:
    """The usual answer to "What is this?"."""
    if scene.arrangement is Arrangement.UNCLEAR:
        return UNSURE
    if scene.arrangement is Arrangement.EMPTY:
        return f"There is nothing in the picture but {article(scene.background or '')} background."
    if scene.arrangement is Arrangement.TEXT:
        return "This is a picture of some text. I cannot read it."
    kind = "photo" if scene.arrangement is Arrangement.PHOTO else "picture"
    return f"This is a {kind} of {subject(scene)}."


def briefly(scene: Scene) -> str:
    """The name and nothing else."""
    if scene.arrangement is Arrangement.UNCLEAR:
        return "unknown"
    if not scene.things:
        return "nothing"
    unique = dict.fromkeys(shown.name for shown in scene.things)
    return ", ".join(unique)
