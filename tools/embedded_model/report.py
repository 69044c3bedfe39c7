"""Writes the scores into `docs/embedded-model.md`: a table of all evaluated models, and examples of the shipped one."""

import json
import re
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / "docs" / "embedded-model.md"
SCORES = Path(__file__).parent / "scores"
SHIPPED = "shipped"
BEGIN, END = "<!-- scores: written by make embedded-eval -->", "<!-- end of scores -->"
Scores = dict[str, Any]


def refresh(document: Path = DOCUMENT, folder: Path = SCORES) -> None:
    """Replaces what stands between the marks."""
    text = document.read_text(encoding="utf-8")
    models = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    written = f"{BEGIN}\n\n{table(models)}\n\n{examples(models.get(SHIPPED, {}))}\n\n{END}"
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    document.write_text(pattern.sub(lambda _: written, text), encoding="utf-8")


def table(models: dict[str, Scores]) -> str:
    """Scores by measure; the shipped model first."""
    order = sorted(models, key=lambda name: (name != SHIPPED, name))
    lines = [f"| measure | n | {' | '.join(order)} | reach |", f"|---|---|{'---|' * len(order)}---|"]
    for measure in dict.fromkeys(name for model in order for name in models[model]):
        rows = [models[model].get(measure) for model in order]
        known = next(row for row in rows if row is not None)
        scores = " | ".join("" if row is None else f"{row['score']:.3f}" for row in rows)
        reach = "" if known["reach"] is None else f"≥ {known['reach']:.2f}"
        lines.append(f"| {measure} | {known['n']} | {scores} | {reach} |")
    return "\n".join(lines)


def examples(scores: Scores) -> str:
    """One right and one wrong answer to each kind of question, word for word."""
    lines = ["| question | expected | right answer | expected | wrong answer |", "|---|---|---|---|---|"]
    for row in scores.values():
        right, wrong = (_first(row[kind]) for kind in ("right", "wrong"))
        question = (row["right"] or row["wrong"])[0]["question"]
        lines.append(f"| {question} | {right[0]} | {right[1]} | {wrong[0]} | {wrong[1]} |")
    return "\n".join(lines)


def _first(found: list[dict[str, str]]) -> tuple[str, str]:
    if not found:
        return "", ""
    return found[0]["expected"], found[0]["answer"].replace("|", "\\|").replace("\n", " ")
