"""Checkpoints of the hub by their settings alone: every tensor of the real size is found, none is left over.

The settings have the shape of the repositories', with the old and odd keys they have. There are no weights:
`transformers` says which tensors such a checkpoint holds, and tensors have no memory.
"""

from __future__ import annotations

import json
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
HUB: dict[str, dict[str, Json]] = json.loads(Path(__file__).with_name("hub_settings.json").read_text())
"""Files by the name of the repository."""
GOLDEN: Json = json.loads((Path(__file__).parents[2] / "integration-tests" / "goldens" / "hub.json").read_text())
"""What the router's tests know of them."""

CLIP_PENULTIMATE = ("model.vision_tower.encoder.layers.23.", "model.vision_tower.post_layernorm.")
NOT_NEEDED: dict[str, tuple[str, ...]] = {
    "llava-1.5-7b-hf": CLIP_PENULTIMATE,
    "llava-v1.6-mistral-7b-hf": CLIP_PENULTIMATE,
    "llava-v1.6-vicuna-7b-hf": CLIP_PENULTIMATE,
    "granite-vision-3.2-2b": ("model.vision_tower.head.",),
}
"""Prefixes of what no output depends on: layers behind the one that is taken, and a head for classes."""


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
def repository(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def folder(repository: str, tmp_path: Path) -> Path:
    for file, content in HUB[repository].items():
        (tmp_path / file).write_text(json.dumps(content))
    return tmp_path


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """What `transformers` would read from the repository."""
    auto: Any = AutoModelForImageTextToText
    with torch.device("meta"):
        held: dict[str, Tensor] = auto.from_config(AutoConfig.from_pretrained(folder)).state_dict()
    return held


def test_every_tensor_has_its_place(folder: Path, repository: str) -> None:
    config: Any = filled_config(folder)
    weights = Blueprint(tensors_of(folder))
    model = build(config["model_type"], config, weights, Ranks())
    assert {name for name in weights.unread if not name.startswith(NOT_NEEDED.get(repository, ()))} == set()
    text = config["text_config"]
    assert model.shape.vocab_size == text["vocab_size"]
    assert model.shape.max_positions == text["max_position_embeddings"]


def test_settings_of_the_processor_are_kept(folder: Path, repository: str) -> None:
    settings = today(processor_settings(folder))
    outer = HUB[repository].get("processor_config.json", {})
    kept = {key: settings.get(f"processor_{key}", settings.get(key)) for key in _plain(outer)}
    assert kept == _plain(outer)
    image = today(HUB[repository]["preprocessor_config.json"])
    assert {key: settings.get(key) for key in _plain(image)} == _plain(image)


def test_the_router_is_tested_with_these_settings(folder: Path, repository: str) -> None:
    config: Any = filled_config(folder)
    brief = config | {"text_config": {"model_type": config["text_config"]["model_type"]}}
    assert GOLDEN[repository]["config"] == brief, "run tools/goldens_hub.py"
    assert GOLDEN[repository]["processor"] == processor_settings(folder), "run tools/goldens_hub.py"


def today(settings: Json) -> Json:
    """Bounds on pixels where today's processors have them."""
    bounds = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
    size = {new: settings[old] for old, new in bounds.items() if old in settings}
    others = {key: value for key, value in settings.items() if key not in bounds}
    return others | {"size": size} if size else others


def _plain(written: Json) -> Json:
    """What stays: null says nothing, classes are named anew, videos are left out."""
    renamed = ("_type", "_class", "_sampling")
    return {key: value for key, value in written.items() if value is not None and not key.endswith(renamed)}
