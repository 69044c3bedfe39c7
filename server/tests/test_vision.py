"""The vision encoder's fast kernels against its plain ones, over sizes and batches they were not packed for."""

from __future__ import annotations

import pytest
import torch
from driver import PREPARED

from text_generation_server.models import efficientnet_lite
from text_generation_server.models.efficientnet_lite import EfficientNetLite
from text_generation_server.weights import Weights

NAME = "model.vision_tower.timm_model"
SIZES = [(1, 192, 192), (3, 192, 192), (2, 160, 224), (1, 37, 65)]


def load() -> EfficientNetLite:
    with Weights(PREPARED.parent, torch.float32, torch.device("cpu")) as weights:
        return EfficientNetLite(weights, NAME)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> EfficientNetLite:
    with monkeypatch.context() as patch:
        patch.setattr(efficientnet_lite, "onednn_runs", lambda _: False)
        return load()


def test_packed_kernels_equal_plain_ones(plain: EfficientNetLite) -> None:
    packed = load()
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        for count, height, width in SIZES:
            x = torch.randn(count, 3, height, width, generator=generator)
            features = packed(x)
            assert features.shape == (count, 1280, -(-height // 32), -(-width // 32))
            torch.testing.assert_close(features, plain(x), atol=1e-4, rtol=1e-4)
