"""Client libraries in environments of their own, each driven by a script of `clients/`."""

import json
import os
import subprocess
from pathlib import Path

from harness.types import JsonValue

SCRIPTS = Path(__file__).parents[1] / "clients" / "python"
ENVIRONMENTS = Path(__file__).parents[2] / ".build" / "clients"
RUN_LIMIT_S = 120


def settings() -> dict[str, str]:
    """The environment of a client: nothing of this process's packages, and the way to the server is no way out."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_HUB_OFFLINE")}
    return {**kept, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def run(environment: str, script: str, call: str, url: str, image: str) -> JsonValue:
    """What a call of a Python client brought, as JSON."""
    python = ENVIRONMENTS / environment / "bin" / "python"
    assert python.exists(), f"{environment} is not installed: make .build/clients/{environment}/.installed"
    command = [str(python), f"{script}.py", call, url, image]
    done = subprocess.run(
        command, cwd=SCRIPTS, env=settings(), capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False
    )
    assert done.returncode == 0, f"{environment} {script} {call}: {done.stdout}\n{done.stderr}"
    # Some libraries print as well.
    return json.loads(done.stdout.splitlines()[-1])
