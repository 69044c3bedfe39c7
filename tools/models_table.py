"""Writes the tables of `docs/models.md`: which models there are, from the registries, and what the goldens show.

    python tools/models_table.py

A test compares the file with what this would write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "models.md"
GOLDENS = ROOT / "integration-tests" / "goldens" / "families"
FAMILIES = ROOT / "router" / "src" / "families" / "mod.rs"
MODELS = ROOT / "server" / "text_generation_server" / "models" / "__init__.py"
EMBEDDED = "fast_vlm"
"""Has answers of its own, in `integration-tests/goldens/answers.json`: the model in the package."""

START, END = "<!-- {}: written by tools/models_table.py -->\n", "\n<!-- end of {} -->"
COLUMNS = ("model_type", "conversations", "ties", "views", "counts", "refused", "compared with")


@dataclass(frozen=True)
class Shown:
    """What the goldens of one family hold."""

    conversations: int
    tokens: int
    ties: int
    views: int
    counts: int
    refused: int
    reference: str

    @staticmethod
    def read(path: Path) -> Shown:
        """Counts what is in a goldens file."""
        golden: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        cases, versions = golden["cases"], golden["versions"]
        return Shown(
            conversations=len(cases),
            tokens=sum(len(case["tokens"]) for case in cases),
            ties=sum(len(case["ties"]) for case in cases),
            views=len(golden["layouts"]),
            counts=len(golden["counts"]),
            refused=sum(count is None for *_, count in golden["counts"]),
            reference=f"transformers {versions['transformers']}, Pillow {versions['pillow']}",
        )

    def cells(self) -> list[str]:
        """A row of the table without its name."""
        ties = f"{self.ties} of {self.tokens:,} tokens"
        return [*map(str, (self.conversations, ties, self.views, f"{self.counts:,}", self.refused)), self.reference]


def with_images(registry: str) -> list[str]:
    """Rows of the router's table of families."""
    table = re.search(r"const FAMILIES.*?= &\[(.*?)\];", registry, re.DOTALL)
    assert table, "families/mod.rs has no table of families"
    return sorted(re.findall(r'\("(\w+)"', table[1]))


def text_only(registry: str) -> list[str]:
    """Rows of the router's list of models without images."""
    table = re.search(r"const TEXT_ONLY.*?= &\[(.*?)\];", registry, re.DOTALL)
    assert table, "families/mod.rs has no list of text models"
    return sorted(re.findall(r'"(\w+)"', table[1]))


def document() -> str:
    """The whole file, its tables written anew.

    Raises:
        AssertionError: it has lost the marks around a table.
    """
    registry = FAMILIES.read_text(encoding="utf-8")
    rows = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    rows += [f"| {' | '.join(row)} |" for row in _rows(with_images(registry))]
    text = _between_marks(DOCUMENT.read_text(encoding="utf-8"), "families", "\n".join(rows))
    return _between_marks(text, "text models", ", ".join(f"`{name}`" for name in text_only(registry)))


def _between_marks(text: str, name: str, content: str) -> str:
    start, end = START.format(name), END.format(name)
    assert text.count(start) == text.count(end) == 1, f"docs/models.md has lost its marks around {name}"
    before, _, rest = text.partition(start)
    return before + start + content + end + rest.partition(end)[2]


def _rows(names: list[str]) -> Iterator[list[str]]:
    for name in names:
        path = GOLDENS / f"{name}.json"
        if path.is_file():
            yield [f"`{name}`", *Shown.read(path).cells()]
        elif name == EMBEDDED:
            yield [f"`{name}`", "see below", *[""] * 5]
        else:
            yield [f"`{name}`", "**unproven**", *[""] * 5]


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
