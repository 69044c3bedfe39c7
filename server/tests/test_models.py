"""Every row of the model table against transformers, with small random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from driver import Driver, Prompt, key, warm_up
from transformers import AutoConfig, AutoModelForCausalLM

from text_generation_server.config import PreparedModel, ShardConfig
from text_generation_server.layers.rotary import RopeSpec, Rotary
from text_generation_server.models import MODELS, UnsupportedModel
from text_generation_server.models.text_only import SPECS, layer_windows
from text_generation_server.plan import EncodeImage, FailureKind
from text_generation_server.shard import Shard

SMALL = {
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
TIED = {"tie_word_embeddings": True}
WINDOWS = {"sliding_window": 9, "max_window_layers": 1}
CASES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama with biases": {"model_type": "llama", "attention_bias": True, "head_dim": 16},
    "llama 3 rope": {"model_type": "llama", "rope_parameters": LLAMA3},
    "linear rope": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0},
    },
    "yarn": {"model_type": "qwen2", "rope_parameters": YARN},
    "yarn with mscale": {
        "model_type": "llama",
        "rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 1.3, "beta_fast": 8, "truncate": False},
    },
    "gemma": {"model_type": "gemma", "head_dim": 16, "tie_word_embeddings": True},
    "gemma2": {"model_type": "gemma2", "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 9} | TIED,
    "gemma3": {"model_type": "gemma3_text", "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 9} | TIED,
    "gemma3 with a stretched rope": {
        "model_type": "gemma3_text",
        "head_dim": 16,
        "num_hidden_layers": 7,
        "sliding_window": 9,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    }
    | TIED,
    "granite": {
        "model_type": "granite",
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.3,
        "residual_multiplier": 0.22,
        "logits_scaling": 0.5,
    }
    | TIED,
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "mistral with a window": {"model_type": "mistral", "sliding_window": 9},
    "qwen2": {"model_type": "qwen2"},
    "qwen2 tied": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen2 with windows": {"model_type": "qwen2", "use_sliding_window": True} | WINDOWS,
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "one key head": {"model_type": "qwen3", "head_dim": 8, "num_key_value_heads": 1},
}
PROMPTS = [
    Prompt([int(token) for token in np.random.default_rng(count).integers(0, 101, count)]) for count in (5, 30, 61)
]


def build(folder: Path, case: dict[str, Any]) -> tuple[Any, Shard]:
    """Random weights, once in transformers and once in a shard."""
    torch.manual_seed(3)
    config = AutoConfig.for_model(**(SMALL | case))
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Larger than the default initialisation, so that every part of the model matters to its output.
            weight.add_(torch.randn_like(weight) * (0.2 if "norm" in name or "bias" in name else 0.1))
    model.save_pretrained(folder)
    config_json = json.loads((folder / "config.json").read_text())
    prepared = PreparedModel(model_dir=folder, model_type=config.model_type, config=config_json, processor={})
    shard = Shard(ShardConfig(prepared=folder, socket=folder, device="cpu", num_threads=1), prepared)
    shard.warm_up(warm_up())
    return model, shard


def test_every_row_has_a_case() -> None:
    assert {case["model_type"] for case in CASES.values()} == set(SPECS)
    assert set(SPECS) < set(MODELS)


@pytest.mark.parametrize("name", CASES)
def test_text_model(tmp_path: Path, name: str) -> None:
    model, shard = build(tmp_path, CASES[name])
    outputs = Driver(shard).generate_scored(PROMPTS, 12, cuts=[3, 17, 40])
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        tokens = [token for token, _ in output]
        ids = torch.tensor([prompt.token_ids + tokens[:-1]])
        with torch.inference_mode():
            wanted = torch.log_softmax(model(ids).logits[0, len(prompt.token_ids) - 1 :].float(), -1)
        assert tokens == wanted.argmax(-1).tolist()
        assert [logprob for _, logprob in output] == pytest.approx(wanted.max(-1).values.numpy(), abs=1e-4)


def test_a_text_model_refuses_images(tmp_path: Path) -> None:
    _, shard = build(tmp_path, CASES["qwen2"])
    assert not shard.takes_images
    Driver(shard).step([], encode_images=[EncodeImage(key(1), 0)])
    assert shard.images.find(key(1)) == (FailureKind.REJECTED, "this model takes no images")


def test_qwen_windows_start_above_the_first_layers() -> None:
    config = {"num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2}
    assert layer_windows(config) == (None, None, 7)
    assert layer_windows(config | {"use_sliding_window": False}) == (None, None, None)


def test_an_unknown_model_type_names_the_known(tmp_path: Path) -> None:
    prepared = PreparedModel(model_dir=tmp_path, model_type="nonesuch", config={}, processor={})
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(UnsupportedModel, match="fast_vlm"):
        Shard(ShardConfig(prepared=tmp_path, socket=tmp_path, device="cpu"), prepared)


def test_an_unknown_rope_names_the_known() -> None:
    spec = RopeSpec(head_dim=8, max_positions=8, parameters={"rope_type": "nonesuch", "rope_theta": 1.0})
    with pytest.raises(ValueError, match="llama3"):
        Rotary(spec, torch.device("cpu"), torch.float32)
