"""More ranks than key/value heads: each holds a copy of the heads its query heads share."""

from __future__ import annotations

import json
from pathlib import Path

import gloo_ranks
import pytest
from driver import PREPARED
from test_families import check_tokens
from tiny import Tiny

from text_generation_server.distributed import Ranks
from text_generation_server.layers.decoder import DecoderSpec, _attention_shape
from text_generation_server.layers.linear import ShapeError


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3"])
def test_four_ranks_compute_what_one_does(name: str, tmp_path: Path) -> None:
    tiny = Tiny(name, tmp_path)
    conversations = [case.conversation for case in tiny.cases[:4]]
    prompts, asked = [tiny.prompt(one) for one in conversations], [tiny.oracle.ask(one) for one in conversations]
    text = tiny.oracle.config["text_config"]
    assert (text["num_attention_heads"], text["num_key_value_heads"]) == (4, 2)
    for outputs in gloo_ranks.run_on(4, prompts, 12, tiny.prepared):
        for tokens, one in zip(outputs, asked, strict=True):
            check_tokens(tokens, one)


def test_a_number_of_ranks_that_does_not_fit_names_those_that_do() -> None:
    config = json.loads(PREPARED.read_text())["config"]
    with pytest.raises(ShapeError, match="6 attention heads, 2 key/value .* among 4 ranks; this model takes 1, 2"):
        _attention_shape(DecoderSpec.from_config(config["text_config"]), Ranks(0, 4))
