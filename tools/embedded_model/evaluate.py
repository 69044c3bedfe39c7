"""Asks the launched server what the table of the model wants to know, over HTTP as a client does."""

import base64
import io
import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from harness.launched import Server, running
from PIL import Image

from embedded_model.measures import Case, Measure, Studio

AT_ONCE = 4
LONGEST = 64
SHOWN = 3


@dataclass(frozen=True)
class Result:
    """Answers to the cases of one measure, in order."""

    measure: Measure
    cases: list[Case]
    answers: list[str]

    @property
    def rights(self) -> list[bool]:
        return [case.right(answer) for case, answer in zip(self.cases, self.answers, strict=True)]

    @property
    def score(self) -> float:
        return sum(self.rights) / len(self.cases)

    def examples(self) -> dict[str, list[dict[str, str]]]:
        """A few right and a few wrong answers."""
        found: dict[str, list[dict[str, str]]] = {"right": [], "wrong": []}
        for case, answer, right in zip(self.cases, self.answers, self.rights, strict=True):
            kind = found["right" if right else "wrong"]
            if len(kind) < SHOWN:
                kind.append({"question": case.question, "expected": case.expected, "answer": answer})
        return found


def evaluate(folder: Path, model: str | None, count: int, only: str = "") -> list[Result]:
    """Every measure whose name contains `only`, with that many cases each, of a checkpoint or of the shipped model."""
    studio = Studio(folder)
    flags = [] if model is None else ["--model-id", model]
    with tempfile.TemporaryDirectory() as logs, running(Path(logs) / "server.log", *flags) as server:
        chosen = [measure for measure in studio.measures() if only in measure.name]
        return [_measured(server, measure, count) for measure in chosen]


def ask(server: Server, case: Case) -> str:
    """The answer to one case."""
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(p)}} for p in case.pictures]
    content.append({"type": "text", "text": case.question})
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": LONGEST, "temperature": 0}
    response = server.post("/v1/chat/completions", body)  # type: ignore[arg-type]
    response.raise_for_status()
    return str(response.json()["choices"][0]["message"]["content"]).strip()


def data_url(picture: Image.Image) -> str:
    stored = io.BytesIO()
    picture.save(stored, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stored.getvalue()).decode()}"


def write(results: Sequence[Result], path: Path) -> None:
    """Scores and examples, for the documentation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {
        result.measure.name: {
            "score": round(result.score, 4),
            "n": len(result.cases),
            "reach": result.measure.reach,
            **result.examples(),
        }
        for result in results
    }
    path.write_text(json.dumps(rows, indent=1) + "\n")


def _measured(server: Server, measure: Measure, count: int) -> Result:
    cases = list(islice(measure.cases(), count))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(lambda case: ask(server, case), cases))
    result = Result(measure, cases, answers)
    print(f"{measure.name}: {result.score:.3f} (n = {len(cases)})", flush=True)
    return result
