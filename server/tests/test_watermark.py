"""Watermarked text is told from other text by whoever knows the rule, and by nothing else."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from driver import ints
from torch import Tensor
from transformers import WatermarkLogitsProcessor

from text_generation_server.config import ConfigError, WatermarkConfig
from text_generation_server.distributed import Ranks
from text_generation_server.plan import Sampling
from text_generation_server.sampler import Sampler
from text_generation_server.watermark import HASH_KEY, green_list

VOCABULARY = 200
CPU = torch.device("cpu")
MARKED = Sampling(watermark=True)
FIRST = 3
"""The last token of the prompt."""


def z_score(text: list[int], gamma: float) -> float:
    """How far a text is from one without the watermark, in standard deviations. Its first token only begins it."""
    pairs = list(zip(text, text[1:], strict=False))
    favoured = sum(bool(green_list(before, VOCABULARY, gamma)[token]) for before, token in pairs)
    return (favoured - gamma * len(pairs)) / math.sqrt(len(pairs) * gamma * (1 - gamma))


def model(before: int) -> Tensor:
    """[V] scores that depend on the token before, as those of a model do."""
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(before)) * 2


def texts(settings: list[Sampling], length: int, config: WatermarkConfig | None = None) -> list[list[int]]:
    """The prompt's last token and what is generated behind it, a text for each of the settings, all in one batch."""
    sampler = Sampler(VOCABULARY, CPU, Ranks(), config)
    for slot, sampling in enumerate(settings):
        sampler.learn(slot, sampling, ints([]))
    written = [[FIRST] for _ in settings]
    for position in range(length):
        before_S = ints([text[-1] for text in written])
        scores_SV = torch.stack([model(position * VOCABULARY + text[-1]) for text in written])
        places = (np.arange(len(settings)), np.full(len(settings), position))
        choice = sampler.sample(scores_SV, *places, before_S=before_S)
        for text, token in zip(written, choice.token_ids.tolist(), strict=True):
            text.append(token)
    return written


@pytest.mark.parametrize("greedy", [True, False])
def test_a_detector_tells_marked_text_from_other_text(greedy: bool) -> None:
    settings = [Sampling(greedy=greedy, seed=seed, watermark=marked) for seed in range(4) for marked in (True, False)]
    for sampling, text in zip(settings, texts(settings, 150), strict=True):
        z = z_score(text, 0.5)
        assert z > 4 if sampling.watermark else z < 2, (sampling, z)


def test_the_lists_are_those_of_the_paper() -> None:
    """`transformers` has the paper's rule too."""
    processor = WatermarkLogitsProcessor(VOCABULARY, "cpu", greenlist_ratio=0.25, hashing_key=HASH_KEY)
    for before in (0, 7, 199):
        green_V = green_list(before, VOCABULARY, 0.25)
        ids = processor._get_greenlist_ids(torch.LongTensor([before]))
        assert green_V.nonzero()[:, 0].tolist() == sorted(ids.tolist())
        assert green_V.sum() == VOCABULARY // 4


@pytest.mark.parametrize("greedy", [True, False])
def test_a_marked_text_is_the_same_alone_and_in_a_batch(greedy: bool) -> None:
    settings = [Sampling(greedy=greedy, seed=seed, watermark=seed % 3 > 0, top_k=9) for seed in range(6)]
    together = texts(settings, 40)
    assert together == texts(settings, 40)
    assert together == [texts([sampling], 40)[0] for sampling in settings]


def test_nobody_else_is_marked() -> None:
    assert texts([Sampling(), MARKED], 60)[0] == texts([Sampling()], 60)[0]


def test_log_probabilities_tell_of_it_unless_they_are_raw() -> None:
    sampler, scores_V = Sampler(VOCABULARY, CPU, Ranks()), model(1)
    raised_V = scores_V + 2.0 * green_list(FIRST, VOCABULARY, 0.5)
    sampler.learn(0, MARKED, ints([]))
    sampler.learn(1, replace(MARKED, raw_logprobs=True), ints([]))
    before = ints([FIRST, FIRST])
    choice = sampler.sample(torch.stack([scores_V, scores_V]), ints([0, 1]), ints([0, 0]), before_S=before)
    best = int(raised_V.argmax())
    assert choice.token_ids.tolist() == [best, best]
    wanted = [float(torch.log_softmax(scores, -1)[best]) for scores in (raised_V, scores_V)]
    assert choice.logprobs == pytest.approx(wanted, abs=1e-5)


def test_what_is_banned_stays_banned() -> None:
    green = green_list(FIRST, VOCABULARY, 0.5).nonzero()[:, 0].tolist()
    text = texts([replace(MARKED, banned_token_ids=tuple(green))], 1)[0]
    assert text[1] not in green


def test_strength_and_share_are_the_shards() -> None:
    [weak], [strong] = (texts([MARKED], 150, WatermarkConfig(gamma=0.25, delta=delta)) for delta in (0.0, 4.0))
    assert weak == texts([Sampling()], 150)[0]
    assert z_score(strong, 0.25) > 10


@pytest.mark.parametrize("settings", [{"gamma": 0.0}, {"gamma": 1.0}, {"delta": -1.0}, {"delta": float("nan")}])
def test_settings_that_mark_nothing_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="watermark"):
        WatermarkConfig(**settings)
