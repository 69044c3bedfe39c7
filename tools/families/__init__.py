"""Model families as tiny random checkpoints, and what `transformers` makes of them. Tests and goldens start here.

A family is one module with an object of class `Family` and one row in `FAMILIES`, under the exact `model_type` of its
`config.json`; where checkpoints of one type differ in what counts, each has a row. Nothing of this is shipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from families.family import Family

FAMILIES = {
    "fast_vlm": "families.fast_vlm:FAMILY",
    "gemma3": "families.gemma3:FAMILY",
    "idefics2": "families.idefics2:FAMILY",
    "idefics3": "families.idefics3:FAMILY",
    "internvl": "families.internvl:FAMILY",
    "llava": "families.llava:FAMILY",
    "llava_next": "families.llava_next:FAMILY",
    "llava_onevision": "families.llava_onevision:FAMILY",
    "mistral3": "families.mistral3:FAMILY",
    "paligemma": "families.paligemma:FAMILY",
    "paligemma2": "families.paligemma:FAMILY_2",
    "pixtral": "families.pixtral:FAMILY",
    "qwen2_5_vl": "families.qwen2_5_vl:FAMILY",
    "qwen2_vl": "families.qwen2_vl:FAMILY",
    "qwen3_vl": "families.qwen3_vl:FAMILY",
    "smolvlm": "families.smolvlm:FAMILY",
}

WITHOUT_A_FILE = {
    "aya_vision": "families.aya_vision:FAMILY",
    "vipllava": "families.vipllava:FAMILY",
}
"""Types that our servers leave to transformers. They have no goldens of sizes: nothing of ours computes any."""

VARIANTS = {("llava", "pixtral"): "pixtral", ("paligemma", "gemma2"): "paligemma2"}
"""Rows for a `model_type` with another one inside."""


def find(name: str) -> Family:
    """The family of this name."""
    module, _, member = (FAMILIES | WITHOUT_A_FILE)[name].partition(":")
    family: Family = getattr(import_module(module), member)
    return family


def of(config: Mapping[str, Any]) -> Family:
    """The family of a checkpoint with this `config.json`."""
    inside = (config.get(part, {}).get("model_type") for part in ("vision_config", "text_config"))
    rows = [VARIANTS[pair] for kind in inside if (pair := (config["model_type"], kind)) in VARIANTS]
    return find(rows[0] if rows else config["model_type"])
