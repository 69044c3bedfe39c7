"""One rank loads a checkpoint, as the shard does, on the CPU: a program of `loading.py`.

Prints the private memory it has before, then how long loading took.
"""

import json
import sys
import time
from pathlib import Path

import torch
from loading import private_bytes

from text_generation_server import distributed, models
from text_generation_server.weights import Weights


def main(folder: Path, rank: int, world_size: int, port: int) -> None:
    """Loads and reports."""
    config = json.loads((folder / "config.json").read_text())
    device = torch.device("cpu")
    ranks = distributed.join(rank, world_size, port, device)
    print(private_bytes("self"), flush=True)  # noqa: T201
    start = time.perf_counter()
    with torch.inference_mode(), Weights(folder, torch.bfloat16, device, report=lambda *_: None) as weights:
        model = models.build(config["model_type"], config, weights, ranks)
    print(time.perf_counter() - start, flush=True)  # noqa: T201
    del model


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
