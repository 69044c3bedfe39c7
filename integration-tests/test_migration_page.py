"""docs/migrate-from-tgi.md names every flag there is, and none that there is not."""

import re
import subprocess
from pathlib import Path

from harness.launched import launcher

PAGE = (Path(__file__).parents[1] / "docs" / "migrate-from-tgi.md").read_text()
FLAG = re.compile(r"--[a-z][a-z-]+")


def test_every_flag_is_on_the_page() -> None:
    help_text = subprocess.run([launcher(), "--help"], capture_output=True, text=True, check=True, timeout=30).stdout
    # Flags begin their line; texts may name others.
    flags = set(re.findall(r"^\s+(?:-\w, )?(--[a-z][a-z-]+)", help_text, re.MULTILINE)) - {"--help", "--version"}
    assert flags > {"--model-id", "--port"}
    named = set(FLAG.findall(PAGE))
    assert flags - named == set()
    # The old name of a flag is not shown by `--help`.
    assert named - flags == {"--max-input-length"}
