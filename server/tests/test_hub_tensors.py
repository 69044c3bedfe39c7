"""Checkpoints of the hub by their settings alone: every tensor of the real size is found, none is left over.

The settings have the shape of the repositories', with the old and odd keys they have. There are no weights:
`transformers` says which tensors such a checkpoint holds, and tensors have no memory.
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
HUB: dict[str, dict[str, Json]] = json.loads(Path(__file__).with_name("hub_settings.json").read_text())
"""Files by the name of the repository."""


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
