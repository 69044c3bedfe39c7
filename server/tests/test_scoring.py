"""What is said of a prompt's own tokens, however it is cut and whoever is beside it."""

from __future__ import annotations

from dataclasses import replace

import gloo_ranks
import pytest
import torch
from driver import Driver, Prompt, Scores
from reference import Reference
from test_parity import PROMPTS, text

from text_generation_server import scoring
from text_generation_server.plan import FailureKind
from text_generation_server.shard import Shard

SAME = 1e-5
"""Of one model, however the work is cut."""

ALIKE = 2e-4
"""Of two programs for one model."""

NUM_TOP = 3


def wanted(reference: Reference, prompt: Prompt) -> Scores:
    logprobs = torch.log_softmax(reference.logits(prompt), -1)[:-1]
    own = logprobs.gather(-1, torch.tensor(prompt.token_ids[1:], dtype=torch.int64)[:, None])
    best = logprobs.topk(NUM_TOP, -1)
    top = [list(zip(*row, strict=True)) for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
    return Scores(own.flatten().tolist(), top)


def check(scores: Scores, expected: Scores, tolerance: float) -> None:
    """Best tokens that are as good as each other may change places."""
    assert scores.logprobs == pytest.approx(expected.logprobs, abs=tolerance)
    assert len(scores.top) == len(expected.top)
    for one, other in zip(scores.top, expected.top, strict=True):
        assert [logprob for _, logprob in one] == pytest.approx([logprob for _, logprob in other], abs=tolerance)
        gaps = [best - next_best for (_, best), (_, next_best) in zip(other, other[1:], strict=False)]
        assert min(gaps) < 1e-3 or [token for token, _ in one[:-1]] == [token for token, _ in other[:-1]]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_scores_are_those_of_the_whole_prompt(driver: Driver, reference: Reference, prompt: Prompt) -> None:
    (scores,) = driver.score([prompt], num_top=NUM_TOP)
    check(scores, wanted(reference, prompt), ALIKE)


@pytest.mark.parametrize("cut", range(1, len(PROMPTS[1].token_ids)))
def test_prompt_cut_anywhere(driver: Driver, cut: int) -> None:
    (whole,) = driver.score([PROMPTS[1]], num_top=NUM_TOP)
    (pieces,) = driver.score([PROMPTS[1]], cuts=[cut], num_top=NUM_TOP)
    check(pieces, whole, SAME)


def test_prompts_together_in_many_pieces(driver: Driver) -> None:
    alone = [driver.score([prompt], num_top=NUM_TOP)[0] for prompt in PROMPTS]
    together = driver.score(PROMPTS, cuts=[1, 2, 5, 16, 17, 31, 48, 60, 61, 90], num_top=NUM_TOP)
    for scores, expected in zip(together, alone, strict=True):
        check(scores, expected, SAME)


def test_few_logits_at_once(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = driver.score([PROMPTS[3]], num_top=NUM_TOP)
    sizes: list[int] = []
    logits = driver.shard.model.logits

    def counted(hidden_RH: torch.Tensor) -> torch.Tensor:
        sizes.append(len(hidden_RH))
        return logits(hidden_RH)

    monkeypatch.setattr(driver.shard.model, "logits", counted)
    monkeypatch.setattr(scoring, "PIECE_SCORES", 7 * driver.shard.model.shape.vocab_size)
    driver.shard.reset_sequences()
    (pieces,) = driver.score([PROMPTS[3]], num_top=NUM_TOP)
    check(pieces, whole, SAME)
    assert max(sizes) == 7 and sum(sizes) == len(PROMPTS[3].token_ids)


def test_others_beside_are_not_disturbed(driver: Driver) -> None:
    """Tokens are generated while another prompt is scored, and neither notices."""
    reader, scored = PROMPTS[4], PROMPTS[7]
    (tokens,) = driver.generate([reader], 5)
    (whole,) = driver.score([scored])
    driver.learn(1, reader)
    driver.learn(2, scored, prompt_num_top=0)
    outputs: list[list[tuple[int, float]]] = [[]]
    driver.collect(driver.step([driver.chunk(1, reader, 0, len(reader.token_ids))]), 1, outputs)
    scores = Scores([], [])
    for number, start in enumerate(range(0, 120, 30)):
        stop = len(scored.token_ids) if start == 90 else start + 30
        decode = driver.decode(1, len(reader.token_ids) + number)
        chunk = replace(driver.chunk(2, scored, start, stop), score=True, sample=False)
        result = driver.step([decode, chunk])
        driver.collect(result, 1, outputs)
        scores.add(result.scores[0])
    assert [token for token, _ in outputs[0]] == tokens
    assert scores.logprobs == pytest.approx(whole.logprobs, abs=SAME)


def test_nothing_is_scored_behind_a_prompt(driver: Driver) -> None:
    prompt = Prompt.of(text(1, 4))
    driver.learn(1, prompt, prompt_num_top=1)
    assert driver.step([replace(driver.chunk(1, prompt, 0, 3), score=True)]).scores[0].first == 1
    assert driver.step([replace(driver.chunk(1, prompt, 3, 4), score=True)]).scores == []
    assert driver.step([replace(driver.decode(1, 4), score=True)]).scores == []


def test_scores_that_are_not_finite_fail_their_sequence(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, prompt = Driver(shard), Prompt.of(text(1, 8))
    logits = shard.model.logits

    def poisoned(hidden_RH: torch.Tensor) -> torch.Tensor:
        scores = logits(hidden_RH)
        scores[min(2, len(scores) - 1), 4] = float("nan")
        return scores

    monkeypatch.setattr(shard.model, "logits", poisoned)
    driver.learn(1, prompt, prompt_num_top=0)
    result = driver.step([replace(driver.chunk(1, prompt, 0, 5), score=True)])
    assert [(sequence, failure.kind) for sequence, failure in result.failures] == [(1, FailureKind.NUMERIC)]
    assert driver.step([driver.chunk(1, prompt, 5, 8)]).failures == result.failures


def test_two_ranks_say_what_one_does(driver: Driver) -> None:
    alone = driver.score(PROMPTS, cuts=[16, 40], num_top=NUM_TOP)
    for rank in gloo_ranks.score(PROMPTS, [16, 40], NUM_TOP):
        for (logprobs, top), expected in zip(rank, alone, strict=True):
            check(Scores(logprobs, [[(token, logprob) for token, logprob in best] for best in top]), expected, ALIKE)
