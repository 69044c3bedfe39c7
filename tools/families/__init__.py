"""Model families as tiny random checkpoints, and what `transformers` makes of them. Tests and goldens start here.

A family is one module with an object of class `Family` and one row in `FAMILIES`, under the exact `model_type` of its
`config.json`. Nothing of this is shipped.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from families.family import Family

FAMILIES = {
    "llava": "families.llava:FAMILY",
    "qwen2_5_vl": "families.qwen2_5_vl:FAMILY",
    "qwen2_vl": "families.qwen2_vl:FAMILY",
    "qwen3_vl": "families.qwen3_vl:FAMILY",
}


def find(name: str) -> Family:
    """The family of this `model_type`."""
    module, _, member = FAMILIES[name].partition(":")
    family: Family = getattr(import_module(module), member)
    return family
