"""Writes integration-tests/goldens/families/ and …/fallback/: what `transformers` makes of pictures and prompts.

    python tools/goldens_families.py [FAMILY…]

Without arguments every family of `tools/families` is asked. The checkpoints are built anew from their seeds; the files
hold what depends on them. Read the difference before committing it. Its parts:

- `layouts`: for sizes of one generated picture, each view's width, height and checksum and what stands for the image;
- `layouts_among_several`: the same in a prompt with several images, for families where that is another thing;
- `counts`: width, height and embeddings of random sizes, null where the processor refuses;
- `cases`: conversations with their token ids, runs of one id as [id, count], positions, and the greedy answer. `ties`
  are the tokens whose two best logits were so close that another order of summation may turn them around.

Types without a file of ours have `cases` alone: what else there is, their own processor computes.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "server"), str(ROOT / "integration-tests")]

from families import FAMILIES, WITHOUT_A_FILE, cases, checkpoint, find  # noqa: E402 - the paths come first
from families.family import GEOMETRY, Pixels, views_of  # noqa: E402
from families.oracle import Asked, Oracle, check_varied  # noqa: E402
from goldens_images import checksum, generate  # noqa: E402
from harness.pictures import sha256  # noqa: E402

from text_generation_server.model_facts import filled_config, processor_settings  # noqa: E402

GOLDENS = ROOT / "integration-tests" / "goldens"
TIE = 1e-3
SAMPLED_COUNTS = 40
MAX_SAMPLED_PIXELS = 1 << 20
PINNED = ("transformers", "torch", "pillow", "tokenizers", "numpy")

Json = dict[str, Any]


def golden(name: str, folder: Path) -> Json:
    """Everything about one family, whose checkpoint is built in `folder`."""
    oracle = Oracle(checkpoint.build(name, folder))
    asked = cases.cases(oracle.family)
    check_varied(oracle, [case.files[0].image for case in asked if case.shape == "one image"][:6])
    answers = [case_golden(oracle, case) for case in asked]
    return {
        "family": name,
        "versions": {package: version(package) for package in PINNED},
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        **({} if name in WITHOUT_A_FILE else computed(oracle, folder)),
        "cases": answers,
    }


def computed(oracle: Oracle, folder: Path) -> Json:
    """What our router computes of a family, and the settings it computes it from."""
    check_counts(oracle)
    return {
        "config": filled_config(folder),
        "processor": processor_settings(folder),
        "anchor": oracle.family.tokenizer.id(oracle.family.anchor),
        "image_token": oracle.image_token,
        "layouts": [layout(oracle, *size) for size in cases.LAYOUT_SIZES],
        **several(oracle),
        "counts": [[*size, oracle.family.count(oracle.processor, *size)] for size in cases.random_sizes()],
    }


def layout(oracle: Oracle, width: int, height: int) -> Json:
    """Views and replacement of the generated picture of a size."""
    image = Image.fromarray(generate(0, width, height, "smooth"))
    if oracle.family.count(oracle.processor, width, height) is None:
        return {"size": [width, height], "refused": True}
    text = oracle.family.replacement(oracle.processor, image)
    return written(oracle, image, oracle.family.views(oracle.processor, image), text)


def several(oracle: Oracle) -> Json:
    """Layouts in a prompt with several images, where they are others."""
    among = oracle.family.among_several
    if among is None:
        return {}
    found = []
    for width, height in cases.LAYOUT_SIZES:
        image = Image.fromarray(generate(0, width, height, "smooth"))
        text = oracle.processor.replace_image_token(among(oracle.processor, image), image_idx=0)
        found.append(written(oracle, image, views_of(among(oracle.processor, image, **GEOMETRY)), text))
    return {"layouts_among_several": found}


def written(oracle: Oracle, image: Image.Image, views: Sequence[Pixels], text: str) -> Json:
    """A layout as the goldens have it."""
    return {
        "size": list(image.size),
        "views": [[view.shape[1], view.shape[0], checksum(view)] for view in views],
        "pieces": pieces(text, oracle.family.image_token),
    }


def pieces(text: str, image_token: str) -> list[str | int]:
    """A replacement as texts and numbers of image tokens."""
    parts = groupby(text.replace(image_token, "\0"), key=lambda letter: letter == "\0")
    return [len(list(letters)) if is_image else "".join(letters) for is_image, letters in parts]


def check_counts(oracle: Oracle) -> None:
    """What the processor foretells is what it does, for some of the random sizes.

    Raises:
        AssertionError: it is not, so the family needs a `count` of its own.
    """
    small = [(w, h) for w, h in cases.random_sizes() if w * h <= MAX_SAMPLED_PIXELS][-SAMPLED_COUNTS:]
    for width, height in [*small, *cases.SIZES]:
        image = Image.fromarray(generate(0, width, height, "smooth"))
        try:
            counted = oracle.family.replacement(oracle.processor, image).count(oracle.family.image_token)
        except (ValueError, ZeroDivisionError):
            counted = None
        foretold = oracle.family.count(oracle.processor, width, height)
        assert counted == foretold, f"{width}x{height}: {foretold} tokens foretold, {counted} written"


def case_golden(oracle: Oracle, case: cases.Case) -> Json:
    """One conversation and its answer."""
    asked = oracle.ask(case.conversation)
    return {
        "name": case.name,
        "files": [sha256(file.data)[:16] for file in case.files],
        "sizes": [list(file.image.size) for file in case.files],
        "ids": runs(asked.token_ids),
        "image_tokens": sum(length for _, length in asked.runs),
        **positions(asked),
        "tokens": asked.answer.tokens,
        "logprobs": [round(logprob, 4) for logprob in asked.answer.logprobs],
        "ties": [index for index, gap in enumerate(asked.answer.gaps) if gap < TIE],
    }


def positions(asked: Asked) -> Json:
    """Positions and ranges, where there are any."""
    found: Json = {}
    if asked.positions is not None:
        found["positions"] = [slopes(axis) for axis in asked.positions]
    if asked.both_ways:
        found["both_ways"] = [list(range_) for range_ in asked.both_ways]
    return found


def runs(numbers: Sequence[int]) -> list[int | list[int]]:
    """The numbers, a run of equal ones as [number, count]."""
    counted = ((number, len(list(run))) for number, run in groupby(numbers))
    return [number if count == 1 else [number, count] for number, count in counted]


def slopes(numbers: NDArray[np.int64]) -> list[list[int]]:
    """[first, step, count] of the arithmetic runs that the numbers fall into, step 0 or 1."""
    found: list[list[int]] = []
    for number in numbers.tolist():
        if found and _continues(found[-1], number):
            found[-1][1] = number - found[-1][0] if found[-1][2] == 1 else found[-1][1]
            found[-1][2] += 1
        else:
            found.append([number, 0, 1])
    return found


def _continues(run: list[int], number: int) -> bool:
    first, step, count = run
    return number - first in (0, 1) if count == 1 else number == first + step * count


def text(content: Json) -> str:
    """JSON with a line for each case, so that differences can be read."""
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {_member(value)}" for key, value in content.items()) + "\n}\n"


def _member(value: object) -> str:
    if not isinstance(value, list):
        return _compact(value)
    return "[\n" + ",\n".join(_lines(value)) + "\n]"


def _lines(rows: list[Any]) -> Iterator[str]:
    per_line = 1 if isinstance(rows[0], dict) else 10
    for start in range(0, len(rows), per_line):
        yield ",".join(_compact(row) for row in rows[start : start + per_line])


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def main(names: Iterable[str]) -> None:
    """Writes the files of these families."""
    # The last digits depend on how many threads share a sum.
    torch.set_num_threads(1)
    for name in names:
        find(name)
        target = GOLDENS / ("fallback" if name in WITHOUT_A_FILE else "families") / f"{name}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            content = golden(name, Path(folder) / name)
        ties = sum(len(case["ties"]) for case in content["cases"])
        target.write_text(text(content), encoding="utf-8")
        print(f"{name}: {len(content['cases'])} cases, {ties} ties, {len(content.get('layouts', []))} layouts")


if __name__ == "__main__":
    main(sys.argv[1:] or [*FAMILIES, *WITHOUT_A_FILE])
