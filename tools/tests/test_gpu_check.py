"""`tools/gpu_check` on a CPU: every part runs over tiny shapes, and no failure is hidden."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = [str(REPOSITORY / folder) for folder in ("server/tests", "benchmarks")]
# The script puts these where Python looks.
sys.path += [folder for folder in FOLDERS if folder not in sys.path]

from gpu_check import report, rows, run  # noqa: E402
from gpu_check.place import Place  # noqa: E402
from gpu_check.rows import NotHere, Outcome, Row  # noqa: E402
from gpu_check.table import PARTS, Part  # noqa: E402

DRY = Place(tiny=True)
MISSING_HERE = {"b": "cuda_graphs", "g": "launcher"}
"""Parts that may be left out on this machine, and the word that they say then."""


# Some start Python and torch twice more, which takes minutes on a machine that does other work as well.
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.letter)
def test_every_part_runs_dry(part: Part, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = run.run_part(part, DRY, tmp_path / "rows")
    found = list(rows.read(tmp_path / "rows"))
    said = capsys.readouterr().err
    if status == run.NOT_HERE_STATUS:
        assert MISSING_HERE[part.letter] in said
        return
    assert status == 0, said
    assert found
    assert [row for row in found if row.reached is False] == []


def test_letters_are_names() -> None:
    letters = [part.letter for part in PARTS]
    assert len(set(letters)) == len(letters)
    assert sum(part.limit_s for part in PARTS) < 900


def crashes(_: Place) -> Iterator[Row]:
    yield Row("before", "1")
    raise RuntimeError("on purpose")


def is_missing(place: Place) -> Iterator[Row]:
    if place.tiny:
        raise NotHere("no such thing here")
    yield Row("never", "1")


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that parts can name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_rows_before_a_crash_are_kept(broken: Path) -> None:
    (broken / "crashing.py").write_text("from test_gpu_check import crashes as parts\n")
    assert run.run_part(Part("x", "", "crashing", 1), DRY, broken / "rows") == 1
    assert [row.what for row in rows.read(broken / "rows")] == ["before"]


def test_what_is_missing_is_no_failure(broken: Path) -> None:
    (broken / "missing.py").write_text("from test_gpu_check import is_missing as parts\n")
    assert run.run_part(Part("x", "", "missing", 1), DRY, broken / "rows") == run.NOT_HERE_STATUS


def test_a_line_cut_short_is_no_row(tmp_path: Path) -> None:
    rows.append(tmp_path / "rows", Row("whole", "1"))
    with (tmp_path / "rows").open("a") as out:
        out.write('{"what": "cut')
    assert [row.what for row in rows.read(tmp_path / "rows")] == ["whole"]
    assert list(rows.read(tmp_path / "none")) == []


def test_a_process_that_hangs_is_ended_with_its_children() -> None:
    command = ["/bin/sh", "-c", "sleep 60 & echo $!; wait"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=False)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert run.wait(process, 0.2) is None
    assert process.returncode == -9
    # Nobody may be left to keep the GPU.
    deadline = time.monotonic() + 10
    while is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


OUTCOMES = {
    "all well": (Outcome("a", [Row("one", "1", True, "≥ 1"), Row("two", "2")], 1.0), "ok", False),
    "a bound was missed": (Outcome("a", [Row("one", "1", False, "≥ 2")], 1.0), "FAILED", True),
    "a goal was missed": (Outcome("a", [Row("one", "1", False, "≥ 2", goal=True)], 1.0), "ok", False),
    "it crashed": (Outcome("a", [Row("one", "1", True)], 1.0, failure="status 1: boom"), "FAILED", True),
    "it could not run": (Outcome("a", [], 1.0, missing="no launcher"), "not run", False),
}


@pytest.mark.parametrize(("outcome", "word", "failed"), OUTCOMES.values(), ids=OUTCOMES)
def test_verdicts(outcome: Outcome, word: str, failed: bool) -> None:
    assert (outcome.verdict, outcome.failed) == (word, failed)
    assert word in report.lines(outcome)[0]
    if outcome.failure or outcome.missing:
        assert any((outcome.failure or outcome.missing) in line for line in report.table_rows(outcome))


def test_a_missed_bound_and_a_dry_run_are_said_in_the_table() -> None:
    table = report.markdown([OUTCOMES["a bound was missed"][0]], tiny=True)
    assert "| one | 1 | ≥ 2 | **no** |  |" in table
    assert report.DRY_RUN in table


@pytest.mark.timeout(600)
def test_the_script_names_what_it_left_out(tmp_path: Path) -> None:
    """The only test that starts it as people do."""
    script = REPOSITORY / "tools" / "gpu_check.sh"
    command = ["env", f"PYTHON={sys.executable}", f"OUT={tmp_path}", str(script), "--tiny", "--only", "d"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=560)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (tmp_path / "gpu-status.md").read_text()
    assert table in done.stdout
    assert "copy bandwidth" in table
    assert table.count("left out by --only") == len(PARTS) - 1
