"""The snippets of docs/clients.md, run as a reader would run them, with another address."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from harness.clients import ENVIRONMENTS, RUN_LIMIT_S, settings
from harness.javascript import PROJECT, Node
from harness.launched import Server

PAGE = Path(__file__).parents[1] / "docs" / "clients.md"
SNIPPET = re.compile(r"^<!-- run: ([a-z, ]+) -->\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:3000"


class Snippet(NamedTuple):
    """Code, and where it runs."""

    environment: str
    code: str


SNIPPETS = [
    Snippet(environment, code) for where, code in SNIPPET.findall(PAGE.read_text()) for environment in where.split(", ")
]


def program(snippet: Snippet, node: Node) -> list[str]:
    """What runs the code it is given on standard input."""
    if snippet.environment == "node":
        return [str(node.program), "--input-type=module", "-"]
    return (
        ["bash"] if snippet.environment == "bash" else [str(ENVIRONMENTS / snippet.environment / "bin" / "python"), "-"]
    )


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) > 10
    assert PAGE.read_text().count("```") == 2 * len(SNIPPET.findall(PAGE.read_text()))


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.environment)
def test_snippet(snippet: Snippet, server: Server, node: Node, red_square: bytes, tmp_path: Path) -> None:
    # Node looks for packages from the folder it runs in.
    folder = PROJECT if snippet.environment == "node" else tmp_path
    code = snippet.code.replace(ADDRESS, server.url).replace("picture.png", str(tmp_path / "picture.png"))
    (tmp_path / "picture.png").write_bytes(red_square)
    done = subprocess.run(
        program(snippet, node),
        input=code,
        cwd=folder,
        env=settings(),
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "red" in done.stdout or "square" in done.stdout
