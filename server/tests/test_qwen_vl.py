"""Qwen VL as the hub has it: settings of the real checkpoints, read as the models need them. Weights are not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.vision_utils import get_vision_window_index

from text_generation_server.layers.decoder import DecoderSpec
from text_generation_server.model_facts import filled_config, processor_settings
from text_generation_server.models.qwen2_5_vl import Qwen25Vl, windows
from text_generation_server.models.qwen2_vl import Qwen2Vl
from text_generation_server.models.qwen3_vl import Qwen3Vl

FLAT: dict[str, Any] = {
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
VISION: dict[str, Any] = {"depth": 32, "num_heads": 16, "in_chans": 3, "patch_size": 14, "spatial_merge_size": 2}
VISION |= {"spatial_patch_size": 14, "temporal_patch_size": 2}
QWEN2_VL_2B = FLAT | {
    "model_type": "qwen2_vl",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "vision_config": VISION | {"embed_dim": 1280, "mlp_ratio": 4, "hidden_size": 1536},
}
QWEN2_5_VL_3B = FLAT | {
    "model_type": "qwen2_5_vl",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "max_position_embeddings": 128000,
    "max_window_layers": 70,
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "vision_config": VISION
    | {
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "out_hidden_size": 2048,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
    },
}
QWEN3_VL_4B = {
    "model_type": "qwen3_vl",
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "tie_word_embeddings": True,
    "text_config": {
        "model_type": "qwen3_vl_text",
        "attention_bias": False,
        "dtype": "bfloat16",
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "max_position_embeddings": 262144,
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
        "rope_theta": 5000000,
        "tie_word_embeddings": True,
        "vocab_size": 151936,
    },
    "vision_config": {
        "model_type": "qwen3_vl",
        "deepstack_visual_indexes": [5, 11, 17],
        "depth": 24,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1024,
        "in_channels": 3,
        "intermediate_size": 4096,
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 2560,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}
BOUNDS = {"min_pixels": 3136, "max_pixels": 12845056}
EARLY = BOUNDS | {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}

LATE: dict[str, Any] = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
LATE |= {"size": {"longest_edge": 16777216, "shortest_edge": 65536}}
TODAY = "Qwen2VLImageProcessor"
CASES: dict[str, tuple[type[Qwen2Vl], dict[str, Any], bool, str, tuple[int, ...]]] = {
    "qwen2_vl": (Qwen2Vl, QWEN2_VL_2B, False, "blocks.31.attn.qkv.weight", (3840, 1280)),
    "qwen2_5_vl": (Qwen25Vl, QWEN2_5_VL_3B, False, "blocks.31.mlp.down_proj.weight", (1280, 3420)),
    "qwen3_vl": (Qwen3Vl, QWEN3_VL_4B, True, "deepstack_merger_list.2.linear_fc2.weight", (2560, 4096)),
}


@pytest.mark.parametrize("name", CASES)
def test_configs_of_the_hub(tmp_path: Path, name: str) -> None:
    family, written, interleaved, tensor, shape = CASES[name]
    (tmp_path / "config.json").write_text(json.dumps(written))
    config: Any = filled_config(tmp_path)
    spec: DecoderSpec = family.decoder_spec(config, tied_head=True)
    text = written.get("text_config", written)
    assert (spec.hidden_size, spec.num_layers, spec.tied_head) == (text["hidden_size"], text["num_hidden_layers"], True)
    assert set(spec.windows) == {None}
    assert (spec.head_dim, spec.ropes[0].num_axes) == (128, 3)
    rope = spec.ropes[0].parameters
    assert (rope["mrope_interleaved"], rope["rope_theta"]) == (interleaved, text["rope_theta"])
    assert rope["mrope_section"] == text["rope_scaling"]["mrope_section"]
    vision = {key: value for key, value in config["vision_config"].items() if key != "model_type"}
    with torch.device("meta"):
        encoder = family.make_encoder(vision)
    assert dict(encoder.named_parameters())[tensor].shape == shape


@pytest.mark.parametrize(
    ("written", "bounds"),
    [
        (EARLY | {"image_processor_type": TODAY}, (3136, 12845056)),
        (EARLY | {"size": {"shortest_edge": 9, "longest_edge": 99}, "image_processor_type": TODAY}, (3136, 12845056)),
        (LATE | {"image_processor_type": "Qwen2VLImageProcessorFast"}, (65536, 16777216)),
    ],
)
def test_processors_of_the_hub(tmp_path: Path, written: dict[str, Any], bounds: tuple[int, int]) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    found: Any = processor_settings(tmp_path)
    assert (found["size"]["shortest_edge"], found["size"]["longest_edge"]) == bounds
    assert (found["do_resize"], found["resample"], found["merge_size"]) == (True, 3, 2)


def test_a_class_that_is_gone_leaves_its_settings(tmp_path: Path) -> None:
    """The first Qwen 2.5 VL checkpoints name an image processor that transformers has no more."""
    written = EARLY | {"image_processor_type": "Qwen2_5_VLImageProcessor", "image_mean": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps(QWEN2_5_VL_3B))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    assert processor_settings(tmp_path) == written


@pytest.mark.parametrize("size", [(8, 8), (9, 4), (1, 7), (5, 5), (13, 6)])
def test_windows_are_those_of_transformers(size: tuple[int, int]) -> None:
    grid = torch.tensor([[1, 2 * size[0], 2 * size[1]]])
    order, bounds = get_vision_window_index(grid, spatial_merge_size=2, window_size=112, patch_size=14)
    ours, lengths = windows(*size, 4)
    assert torch.equal(ours, order)
    assert torch.equal(4 * lengths, bounds.diff())
