"""Ranks of a model, each in a process of its own, meeting over gloo."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from driver import PREPARED, Driver, Prompt, Run, load

from text_generation_server.distributed import leave
from text_generation_server.images import Image
from text_generation_server.plan import Grammar, GrammarKind, ImageHeader, ViewSize


def run(
    prompts: Sequence[Prompt],
    num_tokens: int,
    cuts: Sequence[int],
    prepared: Path = PREPARED,
    grammars: Sequence[Grammar | None] = (),
) -> list[list[list[int]]]:
    """What each rank sampled for each prompt; nothing for one whose grammar cannot be followed."""
    work = {
        "grammars": list(grammars),
        "prepared": str(prepared),
        "port": _free_port(),
        "num_ranks": 2,
        "num_tokens": num_tokens,
        "cuts": list(cuts),
        "prompts": [_packed(prompt) for prompt in prompts],
    }
    outputs: list[list[list[int]]] = _outputs(work)
    return outputs


def run_on(num_ranks: int, prompts: Sequence[Prompt], num_tokens: int, prepared: Path) -> list[list[list[int]]]:
    """`run` on any number of ranks, prompts whole."""
    work = {
        "grammars": [],
        "prepared": str(prepared),
        "port": _free_port(),
        "num_ranks": num_ranks,
        "num_tokens": num_tokens,
        "cuts": [],
        "prompts": [_packed(prompt) for prompt in prompts],
    }
    outputs: list[list[list[int]]] = _outputs(work)
    return outputs


def score(prompts: Sequence[Prompt], cuts: Sequence[int], num_top: int) -> Any:
    """What each rank said of each prompt's tokens: log-probabilities, and the best in the place of each."""
    work = {
        "prepared": str(PREPARED),
        "port": _free_port(),
        "num_ranks": 2,
        "num_top": num_top,
        "cuts": list(cuts),
        "prompts": [_packed(prompt) for prompt in prompts],
    }
    return _outputs(work)


def _outputs(work: dict[str, Any]) -> Any:
    paths, num_ranks = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, work["num_ranks"]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(work, file)
        file.flush()
        commands = [[sys.executable, str(Path(__file__)), file.name, str(rank)] for rank in range(num_ranks)]
        ranks = [subprocess.Popen(one, stdout=subprocess.PIPE, text=True, env=paths) for one in commands]
        outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * num_ranks
    return [json.loads(output) for output in outputs]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _packed(prompt: Prompt) -> dict[str, Any]:
    positions = None if prompt.positions is None else prompt.positions.tolist()
    images = [
        [asdict(image.header) | {"key": key.hex()}, [_base64(view.numpy().tobytes()) for view in image.views]]
        for key, image in prompt.images.items()
    ]
    runs = [[*run[:3], run.image.header.key.hex()] for run in prompt.runs]
    return {
        "token_ids": prompt.token_ids,
        "images": images,
        "runs": runs,
        "positions": positions,
        "both_ways": prompt.both_ways,
    }


def _unpacked(packed: dict[str, Any]) -> Prompt:
    images = {header["key"]: _image(header, views) for header, views in packed["images"]}
    positions = packed["positions"]
    return Prompt(
        token_ids=packed["token_ids"],
        runs=[Run(offset, length, first, images[key]) for offset, length, first, key in packed["runs"]],
        positions=None if positions is None else np.array(positions, dtype=np.int64),
        both_ways=[(offset, length) for offset, length in packed["both_ways"]],
    )


def _image(header: dict[str, Any], views: list[str]) -> Image:
    sizes = tuple(ViewSize(**size) for size in header["views"])
    flat = [torch.frombuffer(bytearray(base64.b64decode(view)), dtype=torch.uint8) for view in views]
    shaped = [pixels.view(size.height, size.width, 3) for pixels, size in zip(flat, sizes, strict=True)]
    original = ViewSize(**header["original"])
    return Image(ImageHeader(bytes.fromhex(header["key"]), original, sizes, header["num_tokens"]), shaped)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _rank(path: Path, rank: int) -> None:
    work = json.loads(path.read_text())
    driver = Driver(load(rank, work["num_ranks"], work["port"], prepared=Path(work["prepared"])))
    prompts = [_unpacked(packed) for packed in work["prompts"]]
    if "num_top" in work:
        json.dump(driver.score(prompts, work["cuts"], work["num_top"]), sys.stdout)
    elif work["grammars"]:
        json.dump(_guided(driver, prompts[0], work["grammars"], work["num_tokens"]), sys.stdout)
    else:
        json.dump(driver.generate(prompts, work["num_tokens"], work["cuts"]), sys.stdout)
    leave()


def _guided(driver: Driver, prompt: Prompt, grammars: list[list[Any] | None], num_tokens: int) -> list[list[int]]:
    outputs: list[list[int]] = [[] for _ in grammars]
    length = len(prompt.token_ids)
    for number, grammar in enumerate(grammars):
        wanted = None if grammar is None else Grammar(GrammarKind(grammar[0]), grammar[1])
        driver.learn(number, prompt, grammar=wanted)
    rows = [driver.chunk(number, prompt, 0, length) for number in range(len(grammars))]
    for index in range(num_tokens):
        sampled = driver.step(rows).sampled
        # Tokens that can only follow stand behind the sample, on rank 0. They are sampled all the same.
        firsts = dict(reversed(list(zip(sampled.sequences, sampled.token_ids, strict=True))))
        for number, token in firsts.items():
            outputs[number].append(token)
        rows = [driver.decode(number, length + index) for number in sorted(firsts)]
    return outputs


if __name__ == "__main__":
    _rank(Path(sys.argv[1]), int(sys.argv[2]))
