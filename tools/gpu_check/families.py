"""Part c: tiny checkpoints of every family in bfloat16, ours on the device, against `transformers` in float32."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import families as known
from tiny import Tiny, cosine
from torch import Tensor

from gpu_check.place import Place
from gpu_check.rows import Row

MIN_COSINE = 0.999
DRY = ("qwen2_5_vl",)
MAX_CASES = 4
TAKEN = (0, 5)
"""Tokens of the answer behind the prompt whose next logits are compared."""


def parts(place: Place) -> Iterator[Row]:
    """One row a family. One that this transformers cannot make, or not answer for, is named and proves nothing."""
    names = DRY if place.tiny else (*known.FAMILIES, *known.WITHOUT_A_FILE)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            yield family(place, Tiny(name, Path(folder)))


def family(place: Place, tiny: Tiny) -> Row:
    """The worst cosine of logits, or why there is none."""
    try:
        cases = tiny.cases[:MAX_CASES]
        asked = [tiny.oracle.ask(case.conversation) for case in cases]
        prompts = [tiny.prompt(case.conversation) for case in cases]
        truth = [
            [tiny.oracle.logits(case.conversation, one.answer.tokens[:taken])[-1:] for taken in TAKEN]
            for case, one in zip(cases, asked, strict=True)
        ]
    except Exception as error:  # whatever this version of transformers does not do as the tests' one does
        return Row(tiny.name, "cannot run here", note=f"transformers: {type(error).__name__} {error}"[:300])
    try:
        driver = tiny.driver_of(tiny.prepared, dtype="bfloat16", device=place.device.type, attention="auto")
        logits = kept_logits(driver.shard.model)
        worst = 1.0
        for prompt, one, wanted in zip(prompts, asked, truth, strict=True):
            for taken, row in zip(TAKEN, wanted, strict=True):
                logits.clear()
                driver.generate([prompt.continued(one.answer.tokens[:taken])], 1)
                worst = min(worst, cosine(logits[0].cpu(), row))
    except Exception as error:  # the next family may work
        return Row(tiny.name, "failed", False, note=f"{type(error).__name__}: {error}"[:300])
    note = f"{driver.shard.attention.name} attention, {len(cases)} conversations"
    return Row(tiny.name, f"cosine {worst:.5f}", worst >= MIN_COSINE, f"≥ {MIN_COSINE}", note)


def kept_logits(model: object) -> list[Tensor]:
    """A list that fills with the logits of every step."""
    found: list[Tensor] = []
    compute = model.logits  # type: ignore[attr-defined]

    def keep(hidden_RH: Tensor) -> Tensor:
        made: Tensor = compute(hidden_RH)
        found.append(made.clone())
        return made

    model.logits = keep  # type: ignore[attr-defined]
    return found
