"""Positions on three axes turn heads as transformers turns them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Qwen2VLConfig, Qwen3VLConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLRotaryEmbedding
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

from text_generation_server.layers.rotary import RopeSpec, Rotary

KINDS: dict[str, tuple[Any, Any, bool]] = {
    "chunked": (Qwen2VLConfig, Qwen2VLRotaryEmbedding, False),
    "interleaved": (Qwen3VLConfig, Qwen3VLTextRotaryEmbedding, True),
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize("more", [{"rope_type": "default"}, YARN], ids=["default", "yarn"])
@pytest.mark.parametrize("sections", [[2, 3, 3], [4, 2, 2], [3, 3, 2]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_three_axes(kind: str, sections: list[int], more: dict[str, Any]) -> None:
    config, module, interleaved = KINDS[kind]
    parameters = {"rope_theta": 1000.0, "mrope_section": sections} | more
    text = {"hidden_size": 64, "num_attention_heads": 4, "head_dim": 16, "max_position_embeddings": 256}
    theirs = module(config(text_config=text | {"rope_parameters": parameters}).text_config)
    spec = RopeSpec(head_dim=16, max_positions=256, parameters=parameters).with_axes([0], interleaved=interleaved)
    positions_AT = torch.randint(0, 256, (3, 40), generator=torch.Generator().manual_seed(5))
    table_T21D = Rotary(spec, torch.device("cpu"), torch.float32).at(positions_AT)
    cosines, sines = theirs(torch.zeros(1), positions_AT[:, None])
    signs = torch.tensor([-1.0] * 8 + [1.0] * 8)
    torch.testing.assert_close(table_T21D[:, 0, 0], cosines[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(table_T21D[:, 1, 0] * signs, sines[0], atol=1e-5, rtol=1e-5)


def test_sections_must_make_up_a_head() -> None:
    spec = RopeSpec(head_dim=16, max_positions=8, parameters={"rope_type": "default", "rope_theta": 10.0})
    with pytest.raises(ValueError, match="half of head_dim 16"):
        Rotary(spec.with_axes([2, 3, 4], interleaved=False), torch.device("cpu"), torch.float32)
