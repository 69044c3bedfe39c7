"""The dated table, in the form of `docs/gpu-status.md`, and one line a row while it grows."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

from gpu_check.rows import Outcome, Row
from gpu_check.table import PARTS

REPOSITORY = Path(__file__).resolve().parents[2]
DRY_RUN = "**A dry run on a CPU with tiny shapes: its numbers mean nothing.**"
PACKAGES = ("torch", "triton", "transformers")


def lines(outcome: Outcome) -> list[str]:
    """What a terminal is told of a part."""
    part = next(part for part in PARTS if part.letter == outcome.part)
    why = outcome.missing or outcome.failure
    head = f"{outcome.part}  {outcome.verdict:8} {part.title} ({outcome.seconds:.0f} s){': ' + why if why else ''}"
    return [head, *(f"     {row.what}: {row.measured}{verdict(row)}" for row in outcome.rows)]


def verdict(row: Row) -> str:
    """Whether a bound was reached, and what stands behind the number."""
    kind = "goal " if row.goal else ""
    bound = f" [{kind}{row.bound}: {'reached' if row.reached else 'NOT REACHED'}]" if row.reached is not None else ""
    return bound + (f" ({row.note})" if row.note else "")


def markdown(outcomes: Sequence[Outcome], *, tiny: bool) -> str:
    """The table that belongs into the documents, if it is no dry run."""
    device = facts(tiny=tiny)
    head = [f"## {date.today().isoformat()}", ""] + ([DRY_RUN, ""] if tiny else [])
    head += [f"- {name}: {value}" for name, value in device.items()]
    head += ["", "| what | measured | asked for | reached | note |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(line for outcome in outcomes for line in table_rows(outcome))]) + "\n"


def table_rows(outcome: Outcome) -> list[str]:
    """A line a row, and one for a part that did not run to its end."""
    found = [cells(row) for row in outcome.rows]
    why = outcome.missing or outcome.failure
    if why:
        title = next(part.title for part in PARTS if part.letter == outcome.part)
        found.append((f"{outcome.part}: {title}", outcome.verdict, "", "no" if outcome.failed else "", why))
    return ["| " + " | ".join(cell.replace("|", "/").replace("\n", " / ") for cell in row) + " |" for row in found]


def cells(row: Row) -> tuple[str, str, str, str, str]:
    """Of one row."""
    reached = {True: "yes", False: "**no**", None: ""}[row.reached]
    return row.what, row.measured, f"goal: {row.bound}" if row.goal else row.bound, reached, row.note


def facts(*, tiny: bool) -> dict[str, str]:
    """Commit, device and versions."""
    versions = [f"{name} {version(name)}" for name in PACKAGES]
    return {
        "commit": commit(),
        "device": platform.machine() + " CPU, dry" if tiny else torch.cuda.get_device_name(0),
        "driver": "none" if tiny else driver(),
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
    }


def version(name: str) -> str:
    """Of a package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def driver() -> str:
    """Of the GPU."""
    return said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "unknown"


def commit() -> str:
    """Short, with a mark when the tree differs from it; a copy without history has none."""
    short = said("git", "rev-parse", "--short", "HEAD")
    changes = said("git", "status", "--porcelain", "--untracked-files=no")
    return short + ("+changes" if changes else "") if short else "unknown"


def said(*command: str) -> str:
    """The first line that a program prints; nothing where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(done.stdout.splitlines()), "").strip()
