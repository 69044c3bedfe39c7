"""`qwen2_5_vl`: `qwen2_vl` with windows in the encoder, here of 2 x 2 tokens."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor

from families import qwen_vl
from families.family import Family

PATCH = 14


def config() -> Qwen2_5_VLConfig:
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": 64,
        "num_heads": 2,
        "patch_size": PATCH,
        "window_size": 4 * PATCH,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    }
    rope = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [2, 3, 3]}
    return Qwen2_5_VLConfig(
        vision_config=vision, text_config=qwen_vl.TEXT | {"rope_parameters": rope}, **qwen_vl.TOKENS
    )


def processor(tokenizer: Any) -> Qwen2_5_VLProcessor:
    return Qwen2_5_VLProcessor(qwen_vl.image_processor(PATCH), tokenizer, qwen_vl.video_processor(PATCH))


FAMILY = Family(
    name="qwen2_5_vl",
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
