"""Configs as repositories of the hub have them, with old keys and much left to defaults, and the decoders they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from text_generation_server import model_facts
from text_generation_server.layers.decoder import DecoderSpec
from text_generation_server.models.paligemma import PaliGemma
from text_generation_server.models.vision_language import VisionLanguageModel

SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}
GEMMA_3_4B = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 255999,
    "eoi_token_index": 256000,
    "eos_token_id": [1, 106],
    "image_token_index": 262144,
    "initializer_range": 0.02,
    "mm_tokens_per_image": 256,
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "vision_config": SIGLIP | {"image_size": 896},
}
PALIGEMMA_3B = {
    "architectures": ["PaliGemmaForConditionalGeneration"],
    "bos_token_id": 2,
    "eos_token_id": 1,
    "hidden_size": 2048,
    "ignore_index": -100,
    "image_token_index": 257152,
    "model_type": "paligemma",
    "pad_token_id": 0,
    "projection_dim": 2048,
    "text_config": {
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "model_type": "gemma",
        "num_attention_heads": 8,
        "num_hidden_layers": 18,
        "num_image_tokens": 256,
        "num_key_value_heads": 1,
        "torch_dtype": "float32",
        "vocab_size": 257216,
    },
    "torch_dtype": "float32",
    "transformers_version": "4.41.0.dev0",
    "vision_config": SIGLIP | {"projection_dim": 2048, "projector_hidden_act": "gelu_fast", "num_image_tokens": 256},
    "vocab_size": 257152,
}
PALIGEMMA_2_3B = PALIGEMMA_3B | {
    "projection_dim": 2304,
    "text_config": {
        "architectures": ["Gemma2ForCausalLM"],
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "model_type": "gemma2",
        "num_hidden_layers": 26,
        "num_image_tokens": 256,
        "num_key_value_heads": 4,
        "torch_dtype": "bfloat16",
        "vocab_size": 257216,
    },
}


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return tmp_path


def filled(model_dir: Path, config: dict[str, Any]) -> dict[str, Any]:
    (model_dir / "config.json").write_text(json.dumps(config))
    return dict(model_facts.filled_config(model_dir))


def check(spec: DecoderSpec, **expected: object) -> None:
    assert {name: getattr(spec, name) for name in expected} == expected


def test_gemma_3(model_dir: Path) -> None:
    config = filled(model_dir, GEMMA_3_4B)
    spec = VisionLanguageModel.decoder_spec(config, tied_head=True)
    check(
        spec,
        vocab_size=262208,
        num_heads=8,
        num_kv_heads=4,
        head_dim=256,
        max_positions=131072,
        attention_scale=256**-0.5,
        embedding_scale=2560**0.5,
        windows=tuple(1024 if (layer + 1) % 6 else None for layer in range(34)),
        tied_head=True,
        qk_norm=True,
        logit_softcap=None,
        ranges_ignore_windows=False,
    )
    whole, sliding = (dict(rope.parameters) for rope in spec.ropes)
    assert (whole["rope_type"], whole["factor"], whole["rope_theta"]) == ("linear", 8.0, 1e6)
    assert (sliding["rope_type"], sliding["rope_theta"]) == ("default", 1e4)
    assert spec.layer_ropes == tuple(int(window is not None) for window in spec.windows)


def test_paligemma(model_dir: Path) -> None:
    config = filled(model_dir, PALIGEMMA_3B)
    check(
        PaliGemma.decoder_spec(config, tied_head=True),
        vocab_size=257216,
        num_kv_heads=1,
        head_dim=256,
        activation="gelu_pytorch_tanh",
        embedding_scale=2048**0.5,
        attention_scale=None,
        windows=(),
        logit_softcap=None,
    )
    assert config["vision_config"]["image_size"] == 224


def test_paligemma_2(model_dir: Path) -> None:
    config = filled(model_dir, PALIGEMMA_2_3B)
    check(
        PaliGemma.decoder_spec(config, tied_head=True),
        vocab_size=257216,
        num_heads=8,
        num_kv_heads=4,
        attention_scale=256**-0.5,
        attention_softcap=50.0,
        logit_softcap=30.0,
        windows=(4096, None) * 13,
        output_norms=True,
        ranges_ignore_windows=True,
    )
