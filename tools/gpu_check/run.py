"""Runs parts one after another, each in a process of its own within its time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from gpu_check import rows
from gpu_check.place import Place
from gpu_check.rows import NotHere, Outcome
from gpu_check.table import PARTS, Part

NOT_HERE_STATUS = 3
TAIL = 600


def run_part(part: Part, place: Place, file: Path) -> int:
    """In the part's own process: its rows into a file, its status to whoever started it."""
    try:
        for row in part.load()(place):
            rows.append(file, row)
    except NotHere as missing:
        print(missing, file=sys.stderr)
        return NOT_HERE_STATUS
    except Exception:  # whatever it is, the report says it
        traceback.print_exc()
        return 1
    return 0


def run_apart(part: Part, flags: Sequence[str], limit_s: float) -> Outcome:
    """A part in a process that may crash, hang or fill the memory."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "rows", Path(folder) / "log"
        command = [sys.executable, "-m", "gpu_check", "--part", part.letter, "--rows", str(file), *flags]
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
            status = wait(process, limit_s)
        said = log.read_text(errors="replace").strip()
        found = list(rows.read(file))
    seconds = time.monotonic() - started
    if status == NOT_HERE_STATUS:
        return Outcome(part.letter, found, seconds, missing=said.splitlines()[-1])
    reason = f"ended after {limit_s:.0f} s" if status is None else f"status {status}"
    failure = "" if status == 0 else f"{reason}: {said[-TAIL:]}"
    return Outcome(part.letter, found, seconds, failure or ("" if found else "it said nothing"))


def wait(process: subprocess.Popen[bytes], limit_s: float) -> int | None:
    """The exit status; None where the time was over, and then the process is gone with all of its group."""
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        # Nobody has waited for it yet, so that the number is still its own.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def by_letter(letter: str) -> Part:
    """The part of this letter."""
    return next(part for part in PARTS if part.letter == letter)
