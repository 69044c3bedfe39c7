"""Pixtral, Mistral 3 and InternVL: settings of their repositories, and variants that the tiny checkpoints leave out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from families import find
from families.family import Model as Stock

from text_generation_server import models
from text_generation_server.distributed import Ranks
from text_generation_server.model_facts import filled_config, processor_settings
from text_generation_server.models import Model, UnsupportedModel
from text_generation_server.models.text_only import decoder_spec
from text_generation_server.weights import Weights

# What the repositories hold, as far as it says anything.
PIXTRAL = {
    "architectures": ["LlavaForConditionalGeneration"],
    "ignore_index": -100,
    "image_seq_length": 1,
    "image_token_index": 10,
    "model_type": "llava",
    "projector_hidden_act": "gelu",
    "text_config": {
        "head_dim": 128,
        "hidden_size": 5120,
        "intermediate_size": 14336,
        "is_composition": True,
        "max_position_embeddings": 1024000,
        "model_type": "mistral",
        "num_hidden_layers": 40,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000000.0,
        "sliding_window": None,
        "vocab_size": 131072,
    },
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "vision_config": {
        "head_dim": 64,
        "hidden_act": "silu",
        "image_size": 1024,
        "is_composition": True,
        "model_type": "pixtral",
        "patch_size": 16,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
}
MISTRAL_SMALL = {
    "architectures": ["Mistral3ForConditionalGeneration"],
    "image_token_index": 10,
    "model_type": "mistral3",
    "multimodal_projector_bias": False,
    "projector_hidden_act": "gelu",
    "spatial_merge_size": 2,
    "text_config": PIXTRAL["text_config"] | {"intermediate_size": 32768, "num_attention_heads": 32},  # type: ignore[operator]
    "torch_dtype": "bfloat16",
    "vision_config": PIXTRAL["vision_config"] | {"image_size": 1540, "patch_size": 14},  # type: ignore[operator]
    "vision_feature_layer": -1,
}
INTERNVL = {
    "architectures": ["InternVLForConditionalGeneration"],
    "downsample_ratio": 0.5,
    "image_seq_length": 256,
    "image_token_id": 151667,
    "model_type": "internvl",
    "projector_hidden_act": "gelu",
    "text_config": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "max_position_embeddings": 32768,
        "max_window_layers": 70,
        "model_type": "qwen2",
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
        "rope_theta": 1000000.0,
        "use_sliding_window": False,
        "vocab_size": 151674,
    },
    "vision_config": {
        "architectures": ["InternVisionModel"],
        "attention_bias": True,
        "image_size": [448, 448],
        "model_type": "internvl_vision",
        "norm_type": "layer_norm",
        "patch_size": [14, 14],
        "use_mask_token": False,
        "use_mean_pooling": True,
        "use_qk_norm": False,
    },
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
}


def filled(tmp_path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return filled_config(tmp_path)


@pytest.mark.parametrize("config", [PIXTRAL, MISTRAL_SMALL])
def test_mistral_repositories(tmp_path: Path, config: dict[str, Any]) -> None:
    found = filled(tmp_path, config)
    spec = decoder_spec(found["text_config"])
    assert (spec.num_heads, spec.num_kv_heads, spec.head_dim, spec.activation) == (32, 8, 128, "silu")
    assert spec.ropes[0].parameters == {"rope_type": "default", "rope_theta": 1e9}
    assert spec.windows == (None,) * 40
    vision = found["vision_config"]
    assert (vision["hidden_size"], vision["num_hidden_layers"], vision["num_attention_heads"]) == (1024, 24, 16)
    assert vision["rope_parameters"] == {"rope_type": "axial", "rope_theta": 1e4}
    assert found["multimodal_projector_bias"] is (config is PIXTRAL)


def test_internvl_repositories(tmp_path: Path) -> None:
    found = filled(tmp_path, INTERNVL)
    spec = decoder_spec(found["text_config"])
    assert (spec.num_heads, spec.num_kv_heads, spec.head_dim, spec.qkv_bias) == (14, 2, 64, True)
    assert spec.windows == (None,) * 24
    vision = found["vision_config"]
    assert (vision["hidden_size"], vision["num_hidden_layers"], vision["layer_norm_eps"]) == (1024, 24, 1e-6)


def test_processor_files_of_mistral_small(tmp_path: Path) -> None:
    """The patches of the outer file are those that count."""
    write(tmp_path / "config.json", MISTRAL_SMALL)
    size = {"do_resize": True, "patch_size": {"height": 14, "width": 14}, "resample": 3, "size": {"longest_edge": 1540}}
    write(tmp_path / "preprocessor_config.json", size | {"image_processor_type": "PixtralImageProcessor"})
    markers = {"image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]", "image_token": "[IMG]"}
    outer = markers | {"patch_size": 14, "processor_class": "PixtralProcessor", "spatial_merge_size": 2}
    write(tmp_path / "processor_config.json", outer)
    found = processor_settings(tmp_path)
    assert (found["processor_patch_size"], found["spatial_merge_size"]) == (14, 2)
    assert (found["do_resize"], found["size"]) == (True, {"longest_edge": 1540})


def write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content))


def stock_and_ours(folder: Path, config: Any) -> tuple[Stock, Model]:  # noqa: ANN401 (a config of transformers)
    """A random model of this config, as transformers has it and as a rank of ours."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(3)
    stock: Stock = AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    stock.save_pretrained(folder)
    found = filled_config(folder)
    with Weights(folder, torch.float32, torch.device("cpu")) as weights:
        return stock, models.build(str(found["model_type"]), found, weights, Ranks())


@torch.inference_mode()
def check(folder: Path, config: Any, sizes: list[tuple[int, int]]) -> None:  # noqa: ANN401
    """The only place that compares embeddings: of two views for each size, given to transformers all at once."""
    stock, ours = stock_and_ours(folder, config)
    for height, width in sizes:
        pixels = torch.randn(2, 3, height, width)
        known = {"image_sizes": torch.tensor([[height, width]] * 2)} if "pixtral" in str(config) else {}
        wanted: Any = stock.get_image_features(pixel_values=pixels, return_dict=True, **known).pooler_output
        torch.testing.assert_close(ours.encode_views(pixels), torch.stack(list(wanted)), atol=2e-5, rtol=2e-5)


def changed(config: Any, **changes: Any) -> Any:  # noqa: ANN401
    for name, value in changes.items():
        setattr(config, name, value)
    return config


@pytest.mark.parametrize("layers", [-1, -2, 1, [0, 2, -1]])
def test_pixtral_layers(tmp_path: Path, layers: int | list[int]) -> None:
    check(tmp_path, changed(find("pixtral").config(), vision_feature_layer=layers), [(8, 8), (24, 40), (96, 8)])


@pytest.mark.parametrize("merged", [1, 3])
def test_mistral3_squares(tmp_path: Path, merged: int) -> None:
    sizes = [(7 * merged, 14 * merged), (21 * merged, 14 * merged)]
    check(tmp_path, changed(find("mistral3").config(), spatial_merge_size=merged), sizes)


@pytest.mark.parametrize(
    ("layer", "vision"),
    [
        (-1, {"use_mean_pooling": False}),
        (-2, {"use_mean_pooling": False}),
        (-1, {"norm_type": "rms_norm", "use_qk_norm": True, "attention_bias": False}),
        (-1, {"use_absolute_position_embeddings": False}),
    ],
)
def test_internvl_encoders(tmp_path: Path, layer: int, vision: dict[str, Any]) -> None:
    config = changed(find("internvl").config(), vision_feature_layer=layer)
    changed(config.vision_config, **vision)
    check(tmp_path, config, [(28, 28)])


def test_internvl_squares_of_four(tmp_path: Path) -> None:
    check(tmp_path, changed(find("internvl").config(), downsample_ratio=0.25), [(28, 28)])


def test_a_class_token_that_pixtral_has_not(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="vision_feature_select_strategy"):
        stock_and_ours(tmp_path, changed(find("pixtral").config(), vision_feature_select_strategy="default"))


@torch.inference_mode()
def test_a_head_that_is_there_is_used(tmp_path: Path) -> None:
    """Mistral Small 3.1 has one, says nothing of it, and its class would tie it."""
    stock, _ = stock_and_ours(tmp_path, find("mistral3").config())
    config = json.loads((tmp_path / "config.json").read_text())
    del config["tie_word_embeddings"], config["text_config"]["tie_word_embeddings"]
    found = filled(tmp_path, config)
    assert found["tie_word_embeddings"] is True
    with Weights(tmp_path, torch.float32, torch.device("cpu")) as weights:
        ours = models.build("mistral3", found, weights, Ranks())
    hidden_RH = torch.randn(3, 64)
    torch.testing.assert_close(ours.logits(hidden_RH), stock.lm_head(stock.model.language_model.norm(hidden_RH)))
