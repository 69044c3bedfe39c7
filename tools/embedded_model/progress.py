"""How a run goes: a line that is written over, a log, and a picture of the losses."""

import json
import math
import sys
import time
from pathlib import Path

from PIL import Image, ImageDraw

WIDTH, HEIGHT, MARGIN = 960, 480, 40
INKS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#57606a", "#0a7ea4", "#b35900", "#444444")
BAR = 24
SMOOTHING = 0.95


class Progress:
    """Smooths what it is told, and writes it down every so many steps."""

    def __init__(self, folder: Path, steps: int, every: int) -> None:
        self._log = folder / "log.jsonl"
        self._picture = folder / "losses.png"
        self._steps = steps
        self._every = every
        self._smooth: dict[str, float] = {}
        self._started: tuple[float, int] | None = None

    def tell(self, step: int, values: dict[str, float]) -> None:
        """`step` steps are done."""
        if self._started is None:
            self._started = (time.monotonic(), step)
        for name, value in values.items():
            self._smooth[name] = SMOOTHING * self._smooth.get(name, value) + (1 - SMOOTHING) * value
        if step % self._every == 0 or step == self._steps:
            self._write(step)

    def _write(self, step: int) -> None:
        with self._log.open("a") as log:
            log.write(json.dumps({"step": step, "time": round(time.time()), **_rounded(self._smooth)}) + "\n")
        print(self._line(step), end="\r" if sys.stdout.isatty() else "\n", flush=True)
        draw_losses(read_log(self._log), self._picture)

    def _line(self, step: int) -> str:
        began, first = self._started or (0.0, 0)
        pace = (time.monotonic() - began) / max(1, step - first)
        left = pace * (self._steps - step) / 60
        done = round(BAR * step / self._steps)
        values = " ".join(f"{name} {value}" for name, value in _rounded(self._smooth).items())
        return (
            f"[{'#' * done}{'.' * (BAR - done)}] {step}/{self._steps} {pace:.2f} s/step, {left:.0f} min left  {values}"
        )


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def read_log(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def draw_losses(log: list[dict[str, float]], path: Path) -> None:
    """Every value over the steps, on a logarithmic scale."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    names = [name for name in log[-1] if name not in ("step", "time")]
    values = [entry[name] for entry in log for name in names if entry.get(name, 0) > 0]
    low, high = math.log(min(values, default=0.1)), math.log(max(values, default=1.0))
    last = max(entry["step"] for entry in log)

    def at(entry: dict[str, float], name: str) -> tuple[float, float]:
        height = (math.log(max(entry[name], 1e-9)) - low) / max(high - low, 1e-9)
        x = MARGIN + (WIDTH - 2 * MARGIN) * entry["step"] / last
        return x, HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * min(max(height, 0.0), 1.0)

    for index, name in enumerate(names):
        line = [at(entry, name) for entry in log if name in entry]
        ink = INKS[index % len(INKS)]
        if len(line) > 1:
            draw.line(line, fill=ink, width=2)
        draw.text((MARGIN + 90 * (index % 10), 8 + 12 * (index // 10)), f"{name} {log[-1][name]}", ink)
    draw.text((WIDTH - MARGIN - 80, HEIGHT - 20), f"step {int(last)}", "black")
    image.save(path)
