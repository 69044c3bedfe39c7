"""Test files of the server, run here: they take their device from `server/tests/device.py`, and so does the report."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from gpu_check.place import Place
from gpu_check.rows import Row

TESTS = Path(__file__).resolve().parents[2] / "server" / "tests"
MAX_NAMED = 5


def run(place: Place, name: str, selection: Sequence[str] = ()) -> Row:
    """How many tests of a file passed, on which device, and the first that failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-x" if place.tiny else "--maxfail=20", "-p", "gpu_check.absent"]
        command += ["-p", "no:cacheprovider", f"--junitxml={report}", *selection, str(TESTS / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not report.is_file():
            return Row(name, "did not run", False, note=last_lines(done.stdout + done.stderr))
        suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None, "pytest wrote a report without a suite"
    count = {kind: int(suite.get(kind, "0")) for kind in ("tests", "failures", "errors", "skipped")}
    bad = count["failures"] + count["errors"]
    passed = count["tests"] - bad - count["skipped"]
    device = re.search(r"tests run on (\S+)", done.stdout)
    measured = f"{passed} passed, {bad} failed, {count['skipped']} skipped on {device[1] if device else 'no device'}"
    on_it = device is not None and device[1].startswith(place.device.type)
    return Row(name, measured, bad == 0 and passed > 0 and on_it and done.returncode == 0, "all pass", named(suite))


def named(suite: ElementTree.Element) -> str:
    """Tests that failed, and why the first did."""
    failed = [
        case for case in suite.iter("testcase") if case.find("failure") is not None or case.find("error") is not None
    ]
    if not failed:
        return ""
    found = failed[0].find("failure")
    problem = found if found is not None else failed[0].find("error")
    reason = problem.get("message", "") if problem is not None else ""
    names = ", ".join(case.get("name", "?") for case in failed[:MAX_NAMED])
    return f"{names}{' …' if len(failed) > MAX_NAMED else ''}: {reason.splitlines()[0][:200] if reason else ''}"


def last_lines(output: str) -> str:
    """Where something went wrong before there was a report."""
    return " / ".join(output.strip().splitlines()[-3:])[:400]
