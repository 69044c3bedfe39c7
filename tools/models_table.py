"""Writes the tables of `docs/models.md`: which models there are, from the registries, and what the goldens show.

    python tools/models_table.py

A test compares the file with what this would write.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "models.md"
GOLDENS = ROOT / "integration-tests" / "goldens" / "families"
FALLBACK = GOLDENS.with_name("fallback")
FAMILIES = ROOT / "router" / "src" / "families" / "mod.rs"
MODELS = ROOT / "server" / "text_generation_server" / "models" / "__init__.py"
START, END = "<!-- {}: written by tools/models_table.py -->\n", "\n<!-- end of {} -->"
COLUMNS = ("model_type", "encoder → decoder", "conversations", "ties", "views", "counts", "refused", "compared with")


@dataclass(frozen=True)
class Shown:
    """What the goldens of one family hold."""

    model_type: str
    inside: str
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
        # Of a model that transformers runs nothing is computed in the router, so its settings are not recorded.
        config: dict[str, Any] = golden.get("config", {"model_type": golden["family"]})
        parts = [config[part]["model_type"] for part in ("vision_config", "text_config") if part in config]
        return Shown(
            model_type=config["model_type"],
            inside=" → ".join(parts),
            conversations=len(cases),
            tokens=sum(len(case["tokens"]) for case in cases),
            ties=sum(len(case["ties"]) for case in cases),
            views=len(golden.get("layouts", [])),
            counts=len(golden.get("counts", [])),
            refused=sum(count is None for *_, count in golden.get("counts", [])),
            reference=f"transformers {versions['transformers']}, Pillow {versions['pillow']}",
        )

    def cells(self) -> list[str]:
        """A row of the table."""
        ties = f"{self.ties} of {self.tokens:,} tokens"
        numbers = map(str, (self.conversations, ties, self.views, f"{self.counts:,}", self.refused))
        return [f"`{self.model_type}`", self.inside, *numbers, self.reference]


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
    text = DOCUMENT.read_text(encoding="utf-8")
    text = _between_marks(text, "families", _table(GOLDENS, with_images(registry)))
    text = _between_marks(text, "other models", _table(FALLBACK, []))
    return _between_marks(text, "text models", ", ".join(f"`{name}`" for name in text_only(registry)))


def _between_marks(text: str, name: str, content: str) -> str:
    start, end = START.format(name), END.format(name)
    assert text.count(start) == text.count(end) == 1, f"docs/models.md has lost its marks around {name}"
    before, _, rest = text.partition(start)
    return before + start + content + end + rest.partition(end)[2]


def _table(goldens: Path, model_types: list[str]) -> str:
    shown = [Shown.read(path) for path in sorted(goldens.glob("*.json"))]
    unproven = set(model_types) - {one.model_type for one in shown}
    cells = [one.cells() for one in shown] + [[f"`{name}`", "**unproven**", *[""] * 6] for name in sorted(unproven)]
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
