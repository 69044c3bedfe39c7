"""LLaVA and its descendants: settings of their repositories, and variants that the tiny checkpoints leave out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import find
from families.family import Model as Stock
from safetensors.torch import load_file, save_file
from tiny import stock_and_ours
from torch import Tensor
from transformers import SiglipVisionConfig

from text_generation_server import models
from text_generation_server.distributed import Ranks
from text_generation_server.model_facts import filled_config, processor_settings
from text_generation_server.models import Model
from text_generation_server.models.text_only import decoder_spec
from text_generation_server.plan import ImageHeader, ViewSize
from text_generation_server.weights import Weights

CLIP_336 = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
SIGLIP_384 = {
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 26,
    "patch_size": 14,
    "vision_use_head": False,
}
VICUNA = {
    "_name_or_path": "lmsys/vicuna-7b-v1.5",
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "rms_norm_eps": 1e-05,
    "torch_dtype": "float16",
    "vocab_size": 32064,
}
MISTRAL = {
    "_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2",
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "vocab_size": 32064,
}
QWEN_HALF_B = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "vocab_size": 152000,
}
GRANITE = {
    "attention_multiplier": 0.015625,
    "embedding_multiplier": 12.0,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "logits_scaling": 8.0,
    "model_type": "granite",
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "residual_multiplier": 0.22,
    "rms_norm_eps": 1e-05,
    "rope_theta": 300000,
    "tie_word_embeddings": True,
    "vocab_size": 49156,
}
# What the repositories hold, as far as it says anything; then width, heads and key/value heads of the decoder.
LLAVA = {"model_type": "llava", "vision_config": CLIP_336, "vision_feature_layer": -2, "image_token_index": 32000}
LLAVA_1_5 = LLAVA | {"text_config": VICUNA, "vision_feature_select_strategy": "default", "ignore_index": -100}
INTERLEAVE = {
    "model_type": "llava",
    "text_config": QWEN_HALF_B,
    "vision_config": SIGLIP_384,
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
}
LLAVA_1_6 = LLAVA | {
    "model_type": "llava_next",
    "text_config": MISTRAL,
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    "use_image_newline_parameter": True,
}
ONEVISION = INTERLEAVE | {"model_type": "llava_onevision", "use_image_newline_parameter": True}
GRANITE_VISION = {
    "image_grid_pinpoints": [[384, 768], [768, 384], [384, 3840]],
    "model_type": "llava_next",
    "text_config": GRANITE,
    "tie_word_embeddings": True,
    "vision_config": SIGLIP_384,
    "vision_feature_layer": [-24, -20, -12, -1],
    "vision_feature_select_strategy": "full",
}
REPOSITORIES = [
    (LLAVA_1_5, (4096, 32, 32)),
    (INTERLEAVE, (896, 14, 2)),
    (LLAVA_1_6, (4096, 32, 8)),
    (ONEVISION, (896, 14, 2)),
    (GRANITE_VISION, (2048, 32, 8)),
]
SIDE = 42
SIZES = [(1, 1), (42, 42), (40, 31), (100, 37), (700, 17), (17, 600), (1, 900), (900, 1), (333, 500), (252, 251)]


@pytest.mark.parametrize(("config", "decoder"), REPOSITORIES)
def test_configs_of_repositories(tmp_path: Path, config: dict[str, Any], decoder: tuple[int, int, int]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    found: dict[str, Any] = filled_config(tmp_path)
    spec = decoder_spec(found["text_config"])
    assert (spec.hidden_size, spec.num_heads, spec.num_kv_heads) == decoder
    assert set(spec.windows) <= {None}
    assert found["vision_config"].items() >= config["vision_config"].items()
    assert found["vision_feature_select_strategy"] == config.get("vision_feature_select_strategy", "default")
    assert found["model_type"] != "llava_onevision" or len(found["image_grid_pinpoints"]) == 36
    assert found["model_type"] != "llava_onevision" or found["vision_aspect_ratio"] == "anyres_max_9"
    assert found["tie_word_embeddings"] is config["text_config"].get("tie_word_embeddings", False)


def test_processor_files_of_old_repositories(tmp_path: Path) -> None:
    """There is no processor_config.json, and nobody needs one."""
    (tmp_path / "config.json").write_text(json.dumps(LLAVA_1_5))
    settings = {"crop_size": {"height": 336, "width": 336}, "size": {"shortest_edge": 336}, "resample": 3}
    kind = {"image_processor_type": "CLIPImageProcessor", "processor_class": "LlavaProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings | kind))
    found = processor_settings(tmp_path)
    assert found.items() >= settings.items()
    assert (found["do_resize"], found["do_center_crop"], found.get("patch_size")) == (True, True, None)


def varied(name: str, **changes: Any) -> Any:  # noqa: ANN401 (a config of transformers)
    config = find(name).config()
    for key, value in changes.items():
        setattr(config, key, value)
    return config


def siglip(**changes: Any) -> SiglipVisionConfig:
    like = find("llava_onevision").config().vision_config.to_dict()
    return SiglipVisionConfig(**like | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"vision_feature_layer": -1},
        {"vision_feature_layer": 1},
        {"vision_feature_layer": [-1, 2, 0], "vision_feature_select_strategy": "full"},
        {"multimodal_projector_bias": False, "projector_hidden_act": "silu"},
        {"vision_config": siglip(), "vision_feature_layer": -1, "vision_feature_select_strategy": "full"},
    ],
)
@torch.inference_mode()
def test_encoders_of_llava(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = varied("llava", **changes)
    stock, ours = stock_and_ours(tmp_path, config)
    side = config.vision_config.image_size
    pixels = torch.randn(3, 3, side, side)
    wanted: Any = stock.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
    torch.testing.assert_close(ours.encode_views(pixels), torch.stack(list(wanted)), atol=2e-5, rtol=2e-5)


@torch.inference_mode()
def test_a_pooling_head_that_is_not_there_is_not_missed(tmp_path: Path) -> None:
    """Configs that were written before `vision_use_head` do not say that the head is left out."""
    stock, _ = stock_and_ours(tmp_path, varied("llava", vision_config=siglip(), vision_feature_select_strategy="full"))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["vision_config"]["vision_use_head"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    pixels = torch.randn(1, 3, SIDE, SIDE)
    wanted: Any = stock.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
    torch.testing.assert_close(loaded(tmp_path).encode_views(pixels), torch.stack(list(wanted)), atol=2e-5, rtol=2e-5)


def loaded(folder: Path) -> Model:
    found = filled_config(folder)
    with Weights(folder, torch.float32, torch.device("cpu")) as weights:
        return models.build(str(found["model_type"]), found, weights, Ranks())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llava_next", {}),
        # Granite Vision's encoder.
        (
            "llava_next",
            {
                "vision_config": siglip(),
                "vision_feature_layer": [-3, -2, -1],
                "vision_feature_select_strategy": "full",
            },
        ),
        ("llava_onevision", {}),
        ("llava_onevision", {"vision_aspect_ratio": "anyres_max_2"}),
    ],
)
def test_canvases_of_many_sizes(tmp_path: Path, name: str, changes: dict[str, Any]) -> None:
    config = varied(name, **changes)
    stock, ours = stock_and_ours(tmp_path, config)
    for size in (*SIZES, *random_sizes(40)):
        check_canvas(stock, ours, size, config.image_grid_pinpoints)


def random_sizes(count: int) -> Iterator[tuple[int, int]]:
    draw = np.random.default_rng(5)
    sides = np.exp(draw.uniform(0, np.log(4000), (count, 2))).round()
    return ((int(width), int(height)) for width, height in sides)


@torch.inference_mode()
def check_canvas(stock: Stock, ours: Model, size: tuple[int, int], canvases: list[list[int]]) -> None:
    """The only place that compares joined views, of an image of this width and height."""
    from transformers.image_processing_utils import select_best_resolution

    height, width = select_best_resolution(size[::-1], canvases)
    pixels = torch.randn(1 + height * width // SIDE**2, 3, SIDE, SIDE)
    sizes = torch.tensor([size[::-1]])
    (wanted,) = stock.get_image_features(pixel_values=pixels[None], image_sizes=sizes, return_dict=True).pooler_output
    torch.testing.assert_close(joined(ours, pixels, size), wanted, atol=2e-5, rtol=2e-5)


def joined(ours: Model, pixels: Tensor, size: tuple[int, int]) -> Tensor:
    views = (ViewSize(SIDE, SIDE),) * len(pixels)
    return ours.join_views(list(ours.encode_views(pixels)), ImageHeader(b"", ViewSize(*size), views, 0))


@torch.inference_mode()
def test_onevision_takes_several_whole(tmp_path: Path) -> None:
    stock, ours = stock_and_ours(tmp_path, find("llava_onevision").config())
    pixels, sizes = torch.randn(3, 1, 3, SIDE, SIDE), torch.tensor([[50, 60], [1, 900], [42, 42]])
    known = {"image_sizes": sizes, "batch_num_images": torch.tensor([3])}
    wanted: Any = stock.get_image_features(pixel_values=pixels, return_dict=True, **known).pooler_output
    for views, (height, width), embedding in zip(pixels, sizes.tolist(), wanted, strict=True):
        torch.testing.assert_close(joined(ours, views, (width, height)), embedding, atol=2e-5, rtol=2e-5)


def test_a_newline_that_is_missing_is_named(tmp_path: Path) -> None:
    stock_and_ours(tmp_path, find("llava_next").config())
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("image_newline")}
    save_file(kept, tmp_path / "model.safetensors")
    with pytest.raises(Exception, match=r"model\.image_newline is not in the checkpoint"):
        loaded(tmp_path)
