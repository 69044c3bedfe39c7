"""Four pictures for the README, drawn like those of the evaluation, and what the shipped model says about each."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from harness.launched import running
from PIL import Image

from embedded_model.evaluate import ask
from embedded_model.measures import AS_JSON, Case, Studio
from embedded_model.report import REPOSITORY
from embedded_model.scenes import Arrangement, Scene, Stock, Thing, drawing, many

README = REPOSITORY / "README.md"
FOLDER = REPOSITORY / "docs" / "embedded"
BEGIN, END = "<!-- answers: written by make embedded-eval -->", "<!-- end of answers -->"
WIDTH = 160


@dataclass(frozen=True)
class Page:
    """A picture's file name, what it shows, and what is asked about it."""

    name: str
    scene: Callable[[Stock, Random], Scene]
    question: str


def alone(name: str, where: tuple[float, float, float], ground: str) -> Callable[[Stock, Random], Scene]:
    """One drawing of that name."""
    return lambda stock, random: Scene(Arrangement.SINGLE, (drawing(stock, random, where, name),), ground)


def beside(left: str, right: str, ground: str) -> Callable[[Stock, Random], Scene]:
    """Two drawings next to each other."""

    def scene(stock: Stock, random: Random) -> Scene:
        places = ((left, (0.26, 0.5, 0.44)), (right, (0.74, 0.5, 0.44)))
        things: tuple[Thing, ...] = tuple(drawing(stock, random, where, name) for name, where in places)
        return Scene(Arrangement.ROW, things, ground)

    return scene


PAGES = (
    Page("fox", alone("fox", (0.5, 0.52, 0.8), "blue"), "What is in this picture?"),
    Page("owl-and-banana", beside("owl", "banana", "green"), "Describe the picture."),
    Page("many", lambda stock, random: many(stock, random, 4), "How many things are in the picture?"),
    Page("bus", alone("bus", (0.32, 0.68, 0.5), "yellow"), AS_JSON),
)


def refresh(folder: Path) -> None:
    """Draws, asks the launched server, and writes pictures and answers down."""
    studio = Studio(folder)
    pictures = {page.name: picture(studio, page) for page in PAGES}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.save(FOLDER / f"{name}.png", optimize=True)
    with tempfile.TemporaryDirectory() as logs, running(Path(logs) / "server.log") as server:
        cases = (Case((pictures[page.name],), page.question, "", bool) for page in PAGES)
        answers = [ask(server, case) for case in cases]
    text = README.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    README.write_text(pattern.sub(lambda _: f"{BEGIN}\n\n{table(answers)}\n\n{END}", text), encoding="utf-8")


def picture(studio: Studio, page: Page) -> Image.Image:
    """Always the same one."""
    random = Random(f"album/{page.name}")
    return studio.drawn(page.scene(studio.stock, random), random)


def table(answers: list[str]) -> str:
    """Pictures in a row, each over its question and the answer, word for word."""
    seen = [f'<img src="docs/embedded/{page.name}.png" width="{WIDTH}" alt="{page.name}">' for page in PAGES]
    asked = [f"“{page.question}”" for page in PAGES]
    said = [f"`{answer}`" for answer in answers]
    rows = (seen, ["---"] * len(PAGES), asked, said)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
