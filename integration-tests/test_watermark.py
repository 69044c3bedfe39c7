"""Texts with a watermark can be told from others by the tokens alone; the flags say how strong it is."""

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from harness import launched
from harness.calls import generate
from harness.launched import Server
from transformers import WatermarkLogitsProcessor

EMBEDDED = Path(__file__).parent.parent / "server/text_generation_server/embedded"
PROMPT = "Write down many words:"
GAMMA = 0.25
HASH_KEY = 15_485_863


@pytest.fixture(scope="module")
def marking(logs: Path) -> Iterator[Server]:
    """A server with flags of its own."""
    with launched.running(logs / "marking.log", "--watermark-gamma", str(GAMMA), "--watermark-delta", "4") as server:
        yield server


def tokens(server: Server, *, watermark: bool, seed: int) -> list[int]:
    """Ids of a long text that is drawn from nearly everything."""
    parameters = {"temperature": 1.5, "max_new_tokens": 150, "ignore_eos": True, "details": True}
    answer = generate(server, PROMPT, watermark=watermark, seed=seed, **parameters)
    return [token["id"] for token in answer["details"]["tokens"]]


def z_score(ids: list[int], gamma: float) -> float:
    """Standard deviations from a text without a watermark, by the rule of the paper as transformers has it."""
    config = json.loads((EMBEDDED / "config.json").read_text())
    vocab_size = config["text_config"]["vocab_size"]
    pairs = list(pairwise(ids))
    rule = WatermarkLogitsProcessor(vocab_size, "cpu", greenlist_ratio=gamma, hashing_key=HASH_KEY)
    favoured = sum(token in rule._get_greenlist_ids(torch.LongTensor([before])) for before, token in pairs)
    return (favoured - gamma * len(pairs)) / math.sqrt(len(pairs) * gamma * (1 - gamma))


def test_a_watermark_is_found_and_only_where_it_was_asked_for(marking: Server) -> None:
    marked, plain = (tokens(marking, watermark=asked, seed=5) for asked in (True, False))
    assert z_score(marked, GAMMA) > 4
    assert z_score(plain, GAMMA) < 2
    assert tokens(marking, watermark=True, seed=5) == marked


def test_it_is_there_without_flags(server: Server) -> None:
    assert z_score(tokens(server, watermark=True, seed=5), 0.5) > 4
