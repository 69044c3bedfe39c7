"""Flags in, exit status out: `python -m gpu_check`, which `tools/gpu_check.sh` calls.

The only module that reads the environment.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from gpu_check import absent

TOTAL_S = 590
"""All parts together. What is left of it bounds the part that runs."""
DRY_FACTOR = 3
"""Dry runs have time: machines that test beside other work are slow, and nothing is measured."""


def main() -> int:
    """1 when anything failed, 2 when there is no GPU to check."""
    flags = parser().parse_args()
    import torch

    from gpu_check import run
    from gpu_check.place import Place

    if not flags.tiny and not torch.cuda.is_available():
        print("there is no GPU here; --tiny runs the same code on a CPU", file=sys.stderr)
        return 2
    place = Place(flags.tiny, os.environ.get("TEXT_GENERATION_LAUNCHER", ""))
    if flags.part:
        return run.run_part(run.by_letter(flags.part), place, flags.rows)
    return check(place, flags.only, os.environ.get("OUT", ""))


def check(place: object, only: list[str], out: str) -> int:
    """Every part that is wanted, and the table."""
    from gpu_check import report, run
    from gpu_check.place import Place
    from gpu_check.rows import Outcome
    from gpu_check.table import PARTS

    assert isinstance(place, Place)
    deadline = time.monotonic() + TOTAL_S
    outcomes: list[Outcome] = []
    if absent.MISSING:
        print("llguidance is not installed here: grammars cannot be used, and no part looks at them")
    for part in PARTS:
        left = deadline - time.monotonic()
        if only and part.letter not in only:
            outcomes.append(Outcome(part.letter, [], 0.0, missing="left out by --only"))
        elif left < 5 and not place.tiny:
            outcomes.append(Outcome(part.letter, [], 0.0, failure="no time was left"))
        else:
            limit_s = part.limit_s * DRY_FACTOR if place.tiny else min(left, part.limit_s)
            outcomes.append(run.run_apart(part, ["--tiny"] * place.tiny, limit_s))
        print("\n".join(report.lines(outcomes[-1])), flush=True)
    table = report.markdown(outcomes, tiny=place.tiny)
    print(f"\n{table}")
    if out:
        Path(out, "gpu-status.md").write_text(table, encoding="utf-8")
    return 1 if any(outcome.failed for outcome in outcomes) else 0


def parser() -> argparse.ArgumentParser:
    """Two flags for people, two for the processes of parts."""
    parser = argparse.ArgumentParser(prog="tools/gpu_check.sh", description=__doc__)
    parser.add_argument(
        "--tiny", action="store_true", help="tiny shapes on a CPU: a dry run, whose numbers mean nothing"
    )
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="letters of parts: a,d")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
