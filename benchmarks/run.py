"""Measures everything and writes a dated table into `docs/performance.md`: `make bench`.

Numbers are reported, never asserted: a missed goal stays in the table and says so.
"""

import datetime

from machine import REPOSITORY, describe
from measures import Row, everything

REPORT = REPOSITORY / "docs" / "performance.md"
MARK = "<!-- newest first; written by benchmarks/run.py -->"


def main() -> None:
    """Runs all measures and puts the table on top of the report."""
    text = REPORT.read_text()
    before, mark, after = text.partition(MARK)
    if not mark:
        raise SystemExit(f"{REPORT} has lost its mark: {MARK}")
    REPORT.write_text(before + mark + "\n\n" + section(everything()) + after)


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
