"""Questions about one picture, and the true answers.

Each topic is a generator over a scene: it yields nothing where it does not apply. A question about something that is
not there gets an answer that says so.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from embedded_model import phrases
from embedded_model.concepts import COLOURS, NUMBERS, SHAPES, article, concepts, countable, is_are, plural
from embedded_model.scenes import Arrangement, Kind, Scene, category
from embedded_model.structured import structured


@dataclass(frozen=True)
class Exchange:
    """A question and the answer to it."""

    topic: str
    question: str
    answer: str


Exchanges = Iterator[Exchange]
Topic = Callable[[Scene, Random], Exchanges]

WHAT = (
    "What is in this picture?",
    "What is this?",
    "What do you see?",
    "What is in this image?",
    "What is shown here?",
    "What is this a picture of?",
    "What does the picture show?",
    "What's in the image?",
    "What can you see in the picture?",
    "What is in the picture?",
    "What is in the image?",
    "What does this image show?",
)
DESCRIBE = (
    "Describe the picture.",
    "Describe this image.",
    "Describe this picture.",
    "Describe the image.",
    "Can you describe the picture?",
    "Write a caption.",
    "Write a caption for this image.",
    "Describe the image in one sentence.",
    "Describe the image in detail.",
    "Tell me about this picture.",
)
BRIEF = (
    "What is this? Answer with one word.",
    "What is this? Answer in one word.",
    "Name the object.",
    "Just the name, please: what is this?",
    "What is in the picture? Answer briefly.",
    "Name it in one word.",
)
SENTENCE = (
    "What is this? Answer in a full sentence.",
    "What is in the picture? Answer in a full sentence.",
    "Write a sentence about the picture.",
)
BACKGROUND = (
    "What color is the background?",
    "What colour is the background?",
    "What is the background color?",
    "Which color is the background?",
    "What color does the background have?",
)
READ = (
    "What is written in the picture?",
    "What is written in the image?",
    "Read the text.",
    "What does it say?",
    "What does the text say?",
    "What text is in the image?",
    "Can you read this?",
)
IS_THERE = ("Is there {} in the picture?", "Is there {} in the image?", "Do you see {}?", "Can you see {}?")


def exchanges(scene: Scene, random: Random) -> list[Exchange]:
    """Everything that can be asked, one phrasing of each, in random order."""
    found = [exchange for topic in TOPICS for exchange in topic(scene, random)]
    random.shuffle(found)
    return found


def what(scene: Scene, random: Random) -> Exchanges:
    yield Exchange("what", random.choice(WHAT), phrases.named(scene))
    yield Exchange("describe", random.choice(DESCRIBE), phrases.described(scene))


def briefly(scene: Scene, random: Random) -> Exchanges:
    if random.random() < 0.6:
        yield Exchange("brief", random.choice(BRIEF), phrases.briefly(scene))
    if random.random() < 0.3:
        yield Exchange("sentence", random.choice(SENTENCE), phrases.described(scene))


def background(scene: Scene, random: Random) -> Exchanges:
    if scene.background is None:
        if random.random() < 0.3:
            yield Exchange("background", random.choice(BACKGROUND), "The background is not of one color.")
        return
    yield Exchange("background", random.choice(BACKGROUND), f"The background is {scene.background}.")
    if random.random() < 0.3:
        yield Exchange("brief", "What color is the background? Answer with one word.", scene.background)
    if random.random() < 0.4:
        yield _is_background(scene.background, random)


def _is_background(colour: str, random: Random) -> Exchange:
    asked = colour if random.random() < 0.5 else random.choice([other for other in COLOURS if other != colour])
    start = f"Yes, the background is {colour}." if asked == colour else f"No, the background is {colour}."
    return Exchange("is background", f"Is the background {asked}?", start)


def is_there(scene: Scene, random: Random) -> Exchanges:
    """Whether something is in the picture, once yes and once no."""
    if scene.arrangement is Arrangement.UNCLEAR:
        return
    present = [shown.name for shown in scene.things if shown.kind is not Kind.TEXT]
    ask = random.choice(IS_THERE)
    if present and random.random() < 0.7:
        name = random.choice(present)
        said = phrases.things(scene.things[0], scene.count) if len(set(present)) == 1 else article(name)
        verb = "are" if len(set(present)) == 1 and scene.count > 1 else is_are(name)
        yield Exchange("is there", ask.format(article(name)), f"Yes, there {verb} {said}.")
    if random.random() < 0.7:
        absent = _absent(present, random)
        yield Exchange("is there", ask.format(article(absent)), f"No. {phrases.named(scene)}")


def where(scene: Scene, random: Random) -> Exchanges:
    """Where a thing is; of many alike nobody could say."""
    if scene.arrangement not in (Arrangement.SINGLE, Arrangement.ROW, Arrangement.COLUMN):
        return
    index = random.randrange(scene.count)
    name = scene.things[index].name
    answer = phrases.placed(phrases.whereabouts(scene, index))
    verb = is_are(name)
    question = random.choice((f"Where {verb} the {name}?", f"Where in the picture {verb} the {name}?"))
    yield Exchange("where", question, f"The {name} {verb} {answer}.")
    if scene.count == 1 and verb == "is" and random.random() < 0.4:
        yield Exchange("where", "Where is it?", f"It is {answer}.")
    if random.random() < 0.12:
        absent = _absent([shown.name for shown in scene.things], random)
        yield Exchange("where", f"Where {is_are(absent)} the {absent}?", f"I do not see {article(absent)}.")


def side(scene: Scene, random: Random) -> Exchanges:
    """What lies at one end of a pair, and beside which other thing."""
    if scene.arrangement not in (Arrangement.ROW, Arrangement.COLUMN):
        return
    for index in (0, 1):
        shown, other = scene.things[index], scene.things[1 - index]
        end = phrases.placed(phrases.ends(scene)[index])
        said = f"There {is_are(shown.name)} {phrases.thing(shown)}"
        yield Exchange("side", random.choice((f"What is {end}?", f"What do you see {end}?")), f"{said} {end}.")
        if random.random() < 0.4:
            relation = RELATIONS[phrases.ends(scene)[index]]
            yield Exchange("side", f"What is {relation} the {other.name}?", f"{said} {relation} the {other.name}.")


RELATIONS = {"left": "to the left of", "right": "to the right of", "top": "above", "bottom": "below"}


def count(scene: Scene, random: Random) -> Exchanges:
    if scene.arrangement is Arrangement.UNCLEAR or scene.arrangement is Arrangement.PHOTO:
        return
    names = {shown.name for shown in scene.things if shown.kind is not Kind.TEXT}
    if len(names) == 1 and countable(next(iter(names))):
        yield from _count_of(names.pop(), scene.count, random)
    if scene.arrangement is not Arrangement.TEXT and random.random() < 0.4:
        yield Exchange("count", "How many things are in the picture?", _there_are("thing", scene.count))
    if random.random() < 0.12:
        absent = _absent(list(names), random)
        if countable(absent):
            yield Exchange("count", f"How many {plural(absent)} are there?", f"There are no {plural(absent)}.")


def _count_of(name: str, number: int, random: Random) -> Exchanges:
    several = plural(name)
    questions = (f"How many {several} are there?", f"How many {several} are in the picture?", f"Count the {several}.")
    yield Exchange("count", random.choice(questions), _there_are(name, number))
    if random.random() < 0.3:
        yield Exchange("brief", f"How many {several} are there? Answer with a number.", str(number))


def _there_are(name: str, number: int) -> str:
    if number == 1:
        return f"There is one {name}."
    return f"There are {NUMBERS[number] if number else 'no'} {plural(name)}."


def colour(scene: Scene, random: Random) -> Exchanges:
    """Colours and shapes of what has them."""
    coloured = [shown for shown in scene.things if shown.colour is not None]
    if not coloured:
        if scene.things and random.random() < 0.1:
            absent = random.choice(SHAPES)
            yield Exchange("colour", f"What color is the {absent}?", f"I do not see {article(absent)}.")
        return
    alike = scene.arrangement is Arrangement.MANY and scene.count > 1
    for shown in coloured[:1] if alike else coloured:
        name, verb = (plural(shown.name), "are") if alike else (shown.name, "is")
        word = random.choice(("color", "color", "colour"))
        yield Exchange("colour", f"What {word} {verb} the {name}?", f"The {name} {verb} {shown.colour}.")
        if shown.kind is Kind.SHAPE and not alike and scene.count == 1:
            question = random.choice(("What shape is it?", "Which shape is this?", "What shape do you see?"))
            yield Exchange("shape", question, f"It is {phrases.thing(shown)}.")


def kind(scene: Scene, random: Random) -> Exchanges:
    if not scene.things or len({shown.name for shown in scene.things}) > 1 or scene.count > 1:
        return
    group = category(scene.things[0].name)
    if group is None or random.random() < 0.4:
        return
    questions = ("What kind of thing is it?", "What kind of thing is this?", "Is it an animal, a food or a vehicle?")
    said = group if group == "food" else article(group)
    yield Exchange("kind", random.choice(questions), f"It is {said}.")


def read(scene: Scene, random: Random) -> Exchanges:
    """Printed words, which this model does not read and says so."""
    if scene.arrangement is Arrangement.TEXT:
        yield Exchange("read", random.choice(READ), phrases.CANNOT_READ)
        yield Exchange("is text", "Is there any text in the picture?", "Yes, but I cannot read it.")
    elif random.random() < 0.2:
        yield Exchange("read", random.choice(READ), "There is no text in the picture.")


def json_form(scene: Scene, random: Random) -> Exchanges:
    question, answer = structured(scene, random)
    yield Exchange("json", question, answer)


TOPICS: tuple[Topic, ...] = (what, briefly, background, is_there, where, side, count, colour, kind, read, json_form)


def _absent(present: list[str], random: Random) -> str:
    """Something the picture does not show; often something alike, which is harder to deny."""
    pool = list(SHAPES) if present and present[0] in SHAPES and random.random() < 0.6 else list(concepts())
    return random.choice([name for name in pool if name not in present])
