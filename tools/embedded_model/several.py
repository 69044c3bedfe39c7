"""Questions about two or three pictures in one message."""

from collections.abc import Iterator
from random import Random

from embedded_model import phrases
from embedded_model.concepts import NUMBERS, article
from embedded_model.questions import Exchange
from embedded_model.scenes import Arrangement, Scene

ORDINALS = ("first", "second", "third")
NOUNS = ("picture", "image")


def about_several(scenes: list[Scene], random: Random) -> list[Exchange]:
    found = [*_each(scenes, random), *_backgrounds(scenes, random), *_together(scenes, random)]
    random.shuffle(found)
    return found


def shown(scene: Scene) -> str:
    """What a picture shows, as the end of a sentence."""
    if scene.arrangement is Arrangement.UNCLEAR:
        return "something I cannot name"
    if scene.arrangement is Arrangement.EMPTY:
        return f"nothing but {article(scene.background or '')} background"
    return phrases.subject(scene)


def _each(scenes: list[Scene], random: Random) -> Iterator[Exchange]:
    for index, scene in enumerate(scenes):
        noun = random.choice(NOUNS)
        ordinal = "last" if index == len(scenes) - 1 and random.random() < 0.2 else ORDINALS[index]
        questions = (
            f"What is in the {ordinal} {noun}?",
            f"What does the {ordinal} {noun} show?",
            f"Describe the {ordinal} {noun}.",
        )
        yield Exchange("of several", random.choice(questions), f"The {ordinal} {noun} shows {shown(scene)}.")


def _backgrounds(scenes: list[Scene], random: Random) -> Iterator[Exchange]:
    for index, scene in enumerate(scenes):
        if scene.background is not None and random.random() < 0.6:
            noun = random.choice(NOUNS)
            question = f"What color is the background of the {ORDINALS[index]} {noun}?"
            answer = f"The background of the {ORDINALS[index]} {noun} is {scene.background}."
            yield Exchange("background of several", question, answer)


def _together(scenes: list[Scene], random: Random) -> Iterator[Exchange]:
    noun = random.choice(NOUNS)
    count = f"There are {NUMBERS[len(scenes)]} {noun}s."
    yield Exchange("how many pictures", f"How many {noun}s are there?", count)
    each = " ".join(f"The {ORDINALS[index]} {noun} shows {shown(scene)}." for index, scene in enumerate(scenes))
    questions = (f"Describe the {noun}s.", f"What is in the {noun}s?", f"What do you see in these {noun}s?")
    yield Exchange("all of several", random.choice(questions), each)
    said = [shown(scene) for scene in scenes]
    if len(scenes) == 2:
        same = said[0] == said[1]
        answer = f"Yes, both show {said[0]}." if same else f"No. {each}"
        yield Exchange("same", f"Do the two {noun}s show the same thing?", answer)
    if len(set(said)) == len(said):
        index = random.randrange(len(scenes))
        yield Exchange("which", f"Which {noun} shows {said[index]}?", f"The {ORDINALS[index]} {noun} does.")
