"""The shape of Qwen2.5-VL-7B as its `config.json` has it, and one small enough for a CPU."""

from __future__ import annotations

from typing import Any

MODEL_TYPE = "qwen2_5_vl"
PROCESSOR: dict[str, Any] = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
TOKEN_SIDE = 28
"""Pixels of a side of the square that becomes one image token: 2 x 2 patches of 14."""

ROPE = {"rope_type": "default", "rope_theta": 1e6}


def config(*, tiny: bool) -> dict[str, Any]:
    """Of the whole model."""
    text = TEXT | TINY_TEXT if tiny else TEXT
    vision = VISION | TINY_VISION if tiny else VISION
    return {"model_type": MODEL_TYPE, "text_config": text, "vision_config": vision, "tie_word_embeddings": False}


TEXT: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": ROPE | {"mrope_section": [16, 24, 24]},
}
TINY_TEXT: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rope_parameters": ROPE | {"mrope_section": [2, 3, 3]},
}
VISION: dict[str, Any] = {
    "model_type": "qwen2_5_vl",
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
}
TINY_VISION: dict[str, Any] = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "num_heads": 2,
    "window_size": 56,
    "fullatt_block_indexes": [1],
}
