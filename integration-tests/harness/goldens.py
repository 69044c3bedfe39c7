"""The cases whose answers `transformers` gave, and the file that holds those answers.

The cases are here because two programs need them: the test, which sends them, and `goldens/make.py`, which asks
`transformers`. The file records the hash of every picture and of the model: a picture that is drawn differently or
another embedded model is an error with a name, not a wrong token.
"""

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from harness import pictures
from harness.calls import image_part, text_part
from harness.types import Json

FILE = Path(__file__).parents[1] / "goldens" / "answers.json"
MAX_NEW_TOKENS = 24
SIZES = [
    (1, 1),
    (7, 13),
    (28, 28),
    (40, 31),
    (64, 64),
    (100, 37),
    (192, 192),
    (191, 193),
    (224, 224),
    (333, 500),
    (640, 480),
    (1024, 17),
    (17, 600),
    (1000, 700),
]
QUESTIONS = [
    "What is this?",
    "Describe the image.",
    "What color is the background?",
    "How many shapes are there?",
    "Answer in JSON.",
]
SHAPES = ("circle", "square", "triangle")
COLORS = ("red", "green", "blue", "yellow", "purple")
BACKGROUNDS = ("white", "black")


@dataclass(frozen=True)
class PictureCase:
    """One picture, asked about in one user turn. The question is recorded with the answer."""

    size: tuple[int, int]
    encoding: str
    seed: int

    @property
    def name(self) -> str:
        """Its key in the goldens."""
        return f"{self.size[0]}x{self.size[1]}-{self.encoding}"

    @property
    def file(self) -> bytes:
        """Drawn when it is asked for: a photo of a million pixels takes a while."""
        return _file(self)

    @property
    def url(self) -> str:
        """The file as clients inline it."""
        return pictures.data_uri(self.file, "image/" + self.encoding.split("-")[0])


def picture_cases() -> list[PictureCase]:
    """Every size in every encoding."""
    kinds = list(enumerate(pictures.ENCODINGS))
    return [PictureCase(size, kind, number + i) for number, size in enumerate(SIZES) for i, kind in kinds]


@cache
def _file(case: PictureCase) -> bytes:
    """Drawings and photo-like pictures in turn."""
    encode = pictures.ENCODINGS[case.encoding]
    if case.seed % 2:
        return encode(pictures.photo(case.seed, case.size))
    colors = COLORS[case.seed % 5], BACKGROUNDS[case.seed // 2 % 2]
    return encode(pictures.drawing(SHAPES[case.seed % 3], *colors, case.size))


@dataclass(frozen=True)
class ChatCase:
    """A conversation. A part that is bytes is a picture."""

    name: str
    messages: list[tuple[str, list[bytes | str]]]

    def openai(self) -> list[Json]:
        """As chat clients send it."""
        return [{"role": role, "content": [_part(part) for part in parts]} for role, parts in self.messages]

    def pictures(self) -> list[bytes]:
        """In order of appearance."""
        return [part for _, parts in self.messages for part in parts if isinstance(part, bytes)]


def _part(part: bytes | str) -> Json:
    return image_part(pictures.data_uri(part)) if isinstance(part, bytes) else text_part(part)


def chat_cases() -> list[ChatCase]:
    """One image, two, none, and a second turn."""
    square = pictures.png(pictures.drawing("square", "red", "white"))
    circle = pictures.jpeg(pictures.drawing("circle", "blue", "yellow", (320, 200)))
    photo = pictures.jpeg(pictures.photo(7, (480, 360)))
    first_turn: list[tuple[str, list[bytes | str]]] = [
        ("user", [square, "What is this?"]),
        ("assistant", ["This is a picture of a red square."]),
    ]
    return [
        ChatCase("one image", [("user", [square, "What is this a picture of?"])]),
        ChatCase("image after the text", [("user", ["What is this?", circle])]),
        ChatCase("photo", [("user", [photo, "Describe the image."])]),
        ChatCase("two images", [("user", [square, circle, "Describe the images."])]),
        ChatCase("two images, text between", [("user", [circle, "Do the two images show the same thing?", square])]),
        ChatCase("text only", [("user", ["What can you do?"])]),
        ChatCase("non-ASCII text", [("user", [square, "Wie heißt das? 画像 🐇"])]),
        ChatCase("second turn", [*first_turn, ("user", ["What color is the background?"])]),
        ChatCase("image in the second turn", [*first_turn, ("user", [circle, "What color is the circle?"])]),
        ChatCase("system message", [("system", ["Answer shortly."]), ("user", [square, "What is this?"])]),
    ]


@dataclass(frozen=True)
class Goldens:
    """The recorded answers."""

    model_sha256: str
    pictures: dict[str, Json]
    chats: dict[str, Json]

    @classmethod
    def read(cls) -> Self:
        """Reads the file and makes sure that it is about the embedded model.

        Raises:
            AssertionError: it is about another one.
        """
        recorded = json.loads(FILE.read_text())
        installed = model_sha256(embedded_model())
        assert recorded["model_sha256"] == installed, "the embedded model changed: run goldens/make.py"
        return cls(recorded["model_sha256"], recorded["pictures"], recorded["chats"])


def embedded_model() -> Path:
    """Folder of the model inside the installed package."""
    spec = importlib.util.find_spec("text_generation_server")
    assert spec and spec.origin, "text_generation_server is not installed"
    found = sorted(Path(spec.origin).parent.glob("embedded/**/model.safetensors"))
    assert len(found) == 1, f"expected one embedded model, found {found}"
    return found[0].parent


def model_sha256(folder: Path) -> str:
    """Names the weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
