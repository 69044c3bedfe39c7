"""Two ranks of the embedded model, each in a process of its own, meeting over gloo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from driver import Driver, Prompt, load


def run(prompts: list[Prompt], num_tokens: int, cuts: list[int]) -> list[list[list[int]]]:
    """What each rank sampled for each prompt."""
    work = json.dumps([[[p.token_ids, list(p.images.items())] for p in prompts], num_tokens, cuts, _free_port()])
    command = [sys.executable, str(Path(__file__)), work]
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ranks = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True, env=paths) for rank in range(2)]
    outputs = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    return [json.loads(output) for output in outputs]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rank(work: str, rank: int) -> None:
    prompts, num_tokens, cuts, port = json.loads(work)
    driver = Driver(load(rank, 2, port))
    tokens = driver.generate([Prompt(ids, dict(images)) for ids, images in prompts], num_tokens, cuts)
    json.dump(tokens, sys.stdout)


if __name__ == "__main__":
    _rank(sys.argv[1], int(sys.argv[2]))
