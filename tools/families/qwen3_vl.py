"""`qwen3_vl`: positions interleaved in each head, and features of two depths added to the decoder's first layers."""

from __future__ import annotations

from typing import Any

from transformers import Qwen3VLConfig, Qwen3VLProcessor, Qwen3VLVideoProcessor

from families import qwen_vl
from families.family import Family

PATCH = 16
HALF = [0.5, 0.5, 0.5]


def config() -> Qwen3VLConfig:
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": 64,
        "num_heads": 2,
        "patch_size": PATCH,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    rope = {"rope_type": "default", "rope_theta": 5000000.0, "mrope_section": [3, 3, 2], "mrope_interleaved": True}
    text = qwen_vl.TEXT | {"rope_parameters": rope, "head_dim": 16}
    return Qwen3VLConfig(vision_config=vision, text_config=text, **qwen_vl.TOKENS)


def processor(tokenizer: Any) -> Qwen3VLProcessor:
    image_processor = qwen_vl.image_processor(PATCH, image_mean=HALF, image_std=HALF)
    return Qwen3VLProcessor(image_processor, tokenizer, Qwen3VLVideoProcessor())


FAMILY = Family(
    name="qwen3_vl",
    tokenizer=qwen_vl.TOKENIZER,
    config=config,
    processor=processor,
    chat_template=qwen_vl.TEMPLATE,
    anchor=qwen_vl.IMAGE_TOKEN,
    image_token=qwen_vl.IMAGE_TOKEN,
    views=qwen_vl.views,
    positions=qwen_vl.positions,
    embeddings=qwen_vl.deep_embeddings,
)
