"""What a part says: rows of a table, and why it could not run.

Rows are written to a file one by one, so that a part that is ended early loses nothing that it had said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


class NotHere(Exception):
    """A part cannot run on this machine. The text says what is missing."""


@dataclass(frozen=True)
class Row:
    """One thing that was tried or measured. `reached` is None where nothing was asked for.

    A `goal` that was missed is said and fails nothing: the number is what the run was for.
    """

    what: str
    measured: str
    reached: bool | None = None
    bound: str = ""
    note: str = ""
    goal: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a part: its rows, and why it failed or could not run, if so."""

    part: str
    rows: list[Row]
    seconds: float
    failure: str = ""
    missing: str = ""

    @property
    def failed(self) -> bool:
        """Whether anything went wrong, goals aside."""
        return bool(self.failure) or any(row.reached is False and not row.goal for row in self.rows)

    @property
    def verdict(self) -> str:
        """One word."""
        return "not run" if self.missing else "FAILED" if self.failed else "ok"


def append(file: Path, row: Row) -> None:
    """Keeps a row."""
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(asdict(row)) + "\n")


def read(file: Path) -> Iterator[Row]:
    """The rows kept so far; a line cut short by a kill is none."""
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []:
        if line.endswith("\n"):
            yield Row(**json.loads(line))
