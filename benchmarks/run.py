"""Measures everything and writes a dated table into `docs/performance.md`: `make bench`.

`make bench ARGS="--only guided"` measures what has that in its name. Numbers are reported, never asserted:
a missed goal stays in the table and says so.
"""

import argparse
import datetime

from machine import REPOSITORY, describe
from measures import Row, everything

REPORT = REPOSITORY / "docs" / "performance.md"
MARK = "<!-- newest first; written by benchmarks/run.py -->"


def main() -> None:
    """Runs the measures and puts the table on top of the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="measures whose names contain this")
    only: str = parser.parse_args().only
    text = REPORT.read_text()
    before, mark, after = text.partition(MARK)
    if not mark:
        raise SystemExit(f"{REPORT} has lost its mark: {MARK}")
    REPORT.write_text(before + mark + "\n\n" + section(everything(only)) + after)


def section(rows: list[Row]) -> str:
    """A dated section with the machine, then the table."""
    facts = [f"- {name}: {fact}" for name, fact in describe().items()]
    head = ["| measure | reach | measured | reached | note |", "|---|---|---|---|---|"]
    lines = [
        f"| {row.measure} | {row.reach} | {row.measured} | {'yes' if row.reached else '**no**'} | {row.note} |"
        for row in rows
    ]
    return "\n".join([f"## {datetime.date.today()}", "", *facts, "", *head, *lines, ""])


if __name__ == "__main__":
    main()
