"""Checkpoints of the hub by their settings alone: every tensor of the real size is found, none is left over.

The settings are those of the repositories, with the old and odd keys they have. There are no weights: `transformers`
says which tensors such a checkpoint holds, and tensors have no memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

from text_generation_server.distributed import Ranks
from text_generation_server.model_facts import filled_config, processor_settings
from text_generation_server.models import build
from text_generation_server.weights import Weights

Json = dict[str, Any]


def tiles(side: int, longest: int, kind: str = "Idefics3ImageProcessor") -> Json:
    flags = {f"do_{what}": True for what in "convert_rgb image_splitting normalize pad rescale resize".split()}
    colours = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 1, "rescale_factor": 0.00392156862745098}
    sizes = {"max_image_size": {"longest_edge": side}, "size": {"longest_edge": longest}}
    return flags | colours | sizes | {"image_processor_type": kind}


def smol_text(width: int, inner: int, layers: int, heads: tuple[int, int], **more: Any) -> Json:
    odd = {"_flash_attn_2_enabled": True, "is_llama_config": True, "neftune_noise_alpha": 0.0, "use_resampler": False}
    odd |= {"architectures": ["VLlama3ForCausalLM"], "qk_layer_norms": False, "rope_interleaved": False}
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "vocab_size": 49280}
    kinds = {"model_type": "llama", "num_attention_heads": heads[0], "num_key_value_heads": heads[1]}
    old = {"rms_norm_eps": 1e-05, "rope_theta": 100000, "torch_dtype": "bfloat16", "pixel_shuffle_factor": 4}
    return odd | sizes | kinds | old | {"head_dim": 64, "max_position_embeddings": 8192} | more


def small_vision(kind: str) -> Json:
    odd = {"max_image_size": {"longest_edge": 512}, "size": {"longest_edge": 2048}, "use_base_siglip": False}
    sizes = {"hidden_size": 768, "image_size": 512, "num_attention_heads": 12, "patch_size": 16}
    return odd | sizes | {"model_type": kind, "tie_word_embeddings": False}


LARGE_VISION = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
VIDEO = {"video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 512}}}
MISTRAL = {"max_position_embeddings": 32768, "model_type": "mistral", "pad_token_id": 0, "rms_norm_eps": 1e-05}
LLAMA_3 = {"scaling_factor": 8.0, "max_position_embeddings": 131072, "rope_theta": 500000.0, "rms_norm_eps": 1e-05}
HUB: dict[str, dict[str, Json]] = {
    "SmolVLM-256M-Instruct": {
        "config.json": {
            **{"model_type": "idefics3", "image_token_id": 49190, "scale_factor": 4, "tie_word_embeddings": False},
            **{"pad_token_id": 128002, "vocab_size": 49280, "torch_dtype": "bfloat16", "use_cache": True},
            "text_config": smol_text(576, 1536, 30, (9, 3)),
            "vision_config": small_vision("idefics3"),
        },
        "preprocessor_config.json": tiles(512, 2048),
        "processor_config.json": {"image_seq_len": 64, "processor_class": "Idefics3Processor"},
    },
    "SmolVLM2-500M-Video-Instruct": {
        "config.json": {
            **{"model_type": "smolvlm", "image_token_id": 49190, "scale_factor": 4, "tie_word_embeddings": False},
            **{"pad_token_id": 128002, "vocab_size": 49280, "use_reentrant_checkpointing": False},
            "text_config": smol_text(960, 2560, 32, (15, 5)),
            "vision_config": small_vision("smolvlm_vision"),
        },
        "preprocessor_config.json": tiles(512, 2048, "SmolVLMImageProcessor") | VIDEO,
        "processor_config.json": {"image_seq_len": 64, "processor_class": "SmolVLMProcessor"},
    },
    "SmolVLM-Instruct": {
        "config.json": {
            **{"model_type": "idefics3", "image_token_id": 49153, "scale_factor": 3, "vocab_size": 49155},
            "text_config": smol_text(2048, 8192, 24, (32, 32), vocab_size=49155, rope_theta=273768.0),
            "vision_config": LARGE_VISION | {"model_type": "idefics3", "image_size": 384, "patch_size": 14},
        },
        "preprocessor_config.json": tiles(384, 1536),
        "processor_config.json": {"image_seq_len": 81, "processor_class": "Idefics3Processor"},
    },
    "Idefics3-8B-Llama3": {
        "config.json": {
            **{"model_type": "idefics3", "image_token_id": 128257, "scale_factor": 2, "tie_word_embeddings": False},
            "text_config": LLAMA_3 | {"model_type": "llama", "vocab_size": 128259, "intermediate_size": 14336}
            | {"num_key_value_heads": 8, "pad_token_id": 128002, "use_cache": False},
            "vision_config": LARGE_VISION | {"model_type": "idefics3", "image_size": 364, "patch_size": 14},
        },
        "preprocessor_config.json": tiles(364, 1456),
        "processor_config.json": {"image_seq_len": 169, "processor_class": "Idefics3Processor"},
    },
    "idefics2-8b": {
        "config.json": {
            **{"model_type": "idefics2", "image_token_id": 32001, "tie_word_embeddings": False},
            "text_config": MISTRAL | {"vocab_size": 32003},
            "vision_config": LARGE_VISION | {"model_type": "idefics2", "image_size": 980, "patch_size": 14},
            "perceiver_config": {"model_type": "idefics2", "resampler_n_latents": 64, "resampler_depth": 3},
        },
        "preprocessor_config.json": tiles(0, 980, "Idefics2ImageProcessor")
        | {"size": {"longest_edge": 980, "shortest_edge": 378}, "resample": 2},
        "processor_config.json": {"image_seq_len": 64, "processor_class": "Idefics2Processor"},
    },
}  # fmt: skip


class Part:
    """A tensor of a size and without memory."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def get_shape(self) -> list[int]:
        return list(self._tensor.shape)

    def __getitem__(self, index: Any) -> Tensor:
        return self._tensor[index]


class Blueprint(Weights):
    """A checkpoint of these tensors, which remembers what was read."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.dtype, self.device = torch.bfloat16, torch.device("meta")
        self.unread = set(tensors)
        self._held = tensors
        self._tensors = {name: (self, name) for name in tensors}
        self._done_bytes, self._reported_at, self.total_bytes = 0, float("inf"), 0

    def get_slice(self, name: str) -> Part:
        self.unread.discard(name)
        return Part(self._held[name])


@pytest.fixture(params=HUB)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for file, content in HUB[request.param].items():
        (tmp_path / file).write_text(json.dumps(content))
    return tmp_path


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """What `transformers` would read from the repository."""
    auto: Any = AutoModelForImageTextToText
    with torch.device("meta"):
        held: dict[str, Tensor] = auto.from_config(AutoConfig.from_pretrained(folder)).state_dict()
    return held


def test_every_tensor_has_its_place(folder: Path) -> None:
    config: Any = filled_config(folder)
    weights = Blueprint(tensors_of(folder))
    model = build(config["model_type"], config, weights, Ranks())
    assert weights.unread == set()
    text = config["text_config"]
    assert model.shape.vocab_size == text["vocab_size"]
    assert model.shape.max_positions == text["max_position_embeddings"]


def test_settings_of_the_processor_are_kept(folder: Path) -> None:
    settings = processor_settings(folder)
    for file in ("preprocessor_config.json", "processor_config.json"):
        written = json.loads((folder / file).read_text())
        assert {key: settings.get(key) for key in _plain(written)} == {key: written[key] for key in _plain(written)}


def _plain(written: Iterable[str]) -> list[str]:
    """Keys that stay: classes are named anew, videos are left out."""
    return [key for key in written if not key.endswith(("_type", "_class", "_sampling"))]
