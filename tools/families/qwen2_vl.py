"""`qwen2_vl`: any resolution, two-axis rotation in the encoder, three axes in a Qwen 2 decoder."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2VLConfig, Qwen2VLProcessor

from families import qwen_vl
from families.family import Family

PATCH = 14


def config() -> Qwen2VLConfig:
    vision = {
        "depth": 3,
        "embed_dim": 32,
        "hidden_size": 64,
        "mlp_ratio": 2,
        "num_heads": 2,
        "patch_size": PATCH,
    }
    rope = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [2, 3, 3]}
    return Qwen2VLConfig(vision_config=vision, text_config=qwen_vl.TEXT | {"rope_parameters": rope}, **qwen_vl.TOKENS)


def processor(tokenizer: Any) -> Qwen2VLProcessor:
    return Qwen2VLProcessor(qwen_vl.image_processor(PATCH), tokenizer, qwen_vl.video_processor(PATCH))


FAMILY = Family(
    name="qwen2_vl",
    tokenizer=qwen_vl.TOKENIZER,
    config=config,
    processor=processor,
    chat_template=qwen_vl.TEMPLATE,
    anchor=qwen_vl.IMAGE_TOKEN,
    image_token=qwen_vl.IMAGE_TOKEN,
    views=qwen_vl.views,
    positions=qwen_vl.positions,
    old_names={"hub": qwen_vl.HUB_NAMES},
)
