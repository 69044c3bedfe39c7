"""Model families as tiny random checkpoints, and what `transformers` makes of them. Tests and goldens start here.

A family is one module with an object of class `Family` and one row in `FAMILIES`, under the exact `model_type` of its
`config.json`; where two checkpoints of a type differ in what counts, each has a row. Nothing of this is shipped.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from families.family import Family

FAMILIES = {
    "fast_vlm": "families.fast_vlm:FAMILY",
    "gemma3": "families.gemma3:FAMILY",
    "llava": "families.llava:FAMILY",
    "paligemma": "families.paligemma:FAMILY",
    "paligemma2": "families.paligemma:FAMILY_2",
}


def find(name: str) -> Family:
    """The family of this row."""
    module, _, member = FAMILIES[name].partition(":")
    family: Family = getattr(import_module(module), member)
    return family
