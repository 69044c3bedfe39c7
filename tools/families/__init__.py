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
    "fast_vlm": "families.fast_vlm:FAMILY",
    "llava": "families.llava:FAMILY",
}

WITHOUT_A_FILE = {
    "aya_vision": "families.aya_vision:FAMILY",
    "vipllava": "families.vipllava:FAMILY",
}
"""Types that our servers leave to transformers. They have no goldens of sizes: nothing of ours computes any."""


def find(name: str) -> Family:
    """The family of this `model_type`."""
    module, _, member = (FAMILIES | WITHOUT_A_FILE)[name].partition(":")
    family: Family = getattr(import_module(module), member)
    return family
