"""The sampler's tables: each filter is compared with the logits processor of transformers that has its name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from driver import ints
from torch import Tensor
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from text_generation_server.distributed import Ranks
from text_generation_server.plan import Ints, Sampling
from text_generation_server.sampler import Choice, Sampler, uniforms

VOCABULARY = 50
CPU = torch.device("cpu")
Processor = Callable[[Tensor, Tensor], Tensor]


def logits(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def sample(
    scores_SV: Tensor, settings: list[Sampling], prompts: list[Ints] | None = None, positions: Ints | None = None
) -> Choice:
    """One step of a fresh sampler, a row for each entry of `settings`."""
    sampler = Sampler(VOCABULARY, CPU, Ranks())
    for slot, sampling in enumerate(settings):
        sampler.learn(slot, sampling, prompts[slot] if prompts else ints([]))
    count = len(settings)
    return sampler.sample(scores_SV, np.arange(count), np.arange(count) if positions is None else positions)


def dense_logprobs(choice: Choice) -> Tensor:
    """All log-probabilities by id, from a choice that reports every token."""
    dense = torch.empty(len(choice.token_ids), VOCABULARY, dtype=torch.float64)
    return dense.scatter_(1, torch.from_numpy(choice.top_token_ids), torch.from_numpy(choice.top_logprobs))


@pytest.mark.parametrize(
    ("sampling", "processors"),
    [
        ({"temperature": 0.5}, [TemperatureLogitsWarper(0.5)]),
        ({"temperature": 1.7}, [TemperatureLogitsWarper(1.7)]),
        ({"top_k": 1}, [TopKLogitsWarper(1)]),
        ({"top_k": 7}, [TopKLogitsWarper(7)]),
        ({"top_k": 1000}, []),
        ({"top_p": 0.3}, [TopPLogitsWarper(0.3)]),
        ({"top_p": 0.95}, [TopPLogitsWarper(0.95)]),
        ({"top_p": 1e-6}, [TopPLogitsWarper(1e-6)]),
        ({"typical_p": 0.2}, [TypicalLogitsWarper(0.2)]),
        ({"typical_p": 0.9}, [TypicalLogitsWarper(0.9)]),
        (
            {"temperature": 0.8, "top_k": 20, "top_p": 0.9},
            [TemperatureLogitsWarper(0.8), TopKLogitsWarper(20), TopPLogitsWarper(0.9)],
        ),
        ({"top_k": 30, "typical_p": 0.7}, [TopKLogitsWarper(30), TypicalLogitsWarper(0.7)]),
    ],
)
@pytest.mark.parametrize("greedy", [True, False])
def test_filter_equals_transformers(sampling: dict[str, float], processors: list[Processor], greedy: bool) -> None:
    scores = logits(6)
    wanted = scores
    for process in processors:
        wanted = process(torch.zeros(6, 1, dtype=torch.long), wanted)
    settings = Sampling(greedy=greedy, num_top_tokens=VOCABULARY, **sampling)  # type: ignore[arg-type]
    choice = sample(scores.clone(), [settings] * 6)
    torch.testing.assert_close(dense_logprobs(choice), torch.log_softmax(wanted, -1).double(), atol=1e-5, rtol=1e-5)
    chosen = torch.log_softmax(wanted, -1).gather(1, torch.from_numpy(choice.token_ids)[:, None])
    assert torch.isfinite(chosen).all()
    assert choice.logprobs == pytest.approx(chosen[:, 0].numpy(), abs=1e-5)


def test_repetition_penalty_equals_transformers() -> None:
    scores, prompts = logits(3), [ints([3, 3, 9]), ints([0]), ints(range(VOCABULARY))]
    settings = Sampling(repetition_penalty=1.3, num_top_tokens=VOCABULARY)
    choice = sample(scores.clone(), [settings] * 3, prompts)
    for row, prompt in enumerate(prompts):
        process = RepetitionPenaltyLogitsProcessor(1.3)
        wanted = process(torch.from_numpy(prompt)[None], scores[row : row + 1].clone())
        torch.testing.assert_close(
            dense_logprobs(choice)[row], torch.log_softmax(wanted[0], -1).double(), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("relative", [False, True])
def test_frequency_and_presence_penalties(relative: bool) -> None:
    sampling = Sampling(
        frequency_penalty=0.7, presence_penalty=0.2, relative_penalty=relative, num_top_tokens=VOCABULARY
    )
    sampler = Sampler(VOCABULARY, CPU, Ranks())
    prompt, output = [5, 5, 8], list[int]()
    sampler.learn(0, sampling, ints(prompt))
    for step in range(6):
        scores = logits(1, step // 3)
        counted = ints(prompt + output if relative else output)
        frequency = np.bincount(counted, minlength=VOCABULARY) / (len(counted) if relative else 1)
        penalty = 0.7 * frequency + 0.2 * np.isin(np.arange(VOCABULARY), output)
        choice = sampler.sample(scores, ints([0]), ints([step]))
        wanted = torch.log_softmax(scores[0].double() - torch.from_numpy(penalty), -1)
        torch.testing.assert_close(dense_logprobs(choice)[0], wanted, atol=1e-5, rtol=1e-5)
        output.append(int(choice.token_ids[0]))
    assert len(set(output)) > 1


def test_penalty_counts_start_anew_with_the_slot() -> None:
    sampler = Sampler(VOCABULARY, CPU, Ranks())
    scores = logits(1)
    for _ in range(2):
        sampler.learn(0, Sampling(presence_penalty=1.0), ints([]))
        first = sampler.sample(scores.clone(), ints([0]), ints([0]))
        assert first.token_ids[0] == scores.argmax()


def test_banned_tokens_are_never_chosen() -> None:
    scores = logits(2)
    best = [int(token) for token in scores[0].topk(VOCABULARY - 1).indices]
    banned = Sampling(greedy=True, banned_token_ids=tuple(best))
    (left,) = set(range(VOCABULARY)) - set(best)
    choice = sample(scores.clone(), [banned, Sampling()])
    assert choice.token_ids.tolist() == [left, int(scores[1].argmax())]
    assert choice.logprobs[0] == pytest.approx(0.0)


def test_ties_go_to_the_lowest_id() -> None:
    scores = torch.zeros(2, VOCABULARY)
    scores[1, [20, 7, 33]] = 1.0
    assert sample(scores, [Sampling(), Sampling()]).token_ids.tolist() == [0, 7]


def test_a_seeded_row_draws_the_same_token_in_any_company() -> None:
    settings = [Sampling(greedy=False, seed=seed, temperature=1.5) for seed in range(16)]
    scores, positions = logits(16), np.arange(100, 116)
    together = sample(scores.clone(), settings, positions=positions).token_ids
    for row, sampling in enumerate(settings):
        alone = sample(scores[row : row + 1].clone(), [sampling], positions=positions[row : row + 1])
        assert alone.token_ids[0] == together[row]
    mixed = [sampling if row % 2 else Sampling() for row, sampling in enumerate(settings)]
    assert (sample(scores.clone(), mixed, positions=positions).token_ids[1::2] == together[1::2]).all()


def test_draws_follow_the_probabilities() -> None:
    count = 4000
    row = torch.full((1, VOCABULARY), float("-inf"))
    row[0, [3, 10, 49]] = torch.tensor([0.5, 0.3, 0.2]).log()
    settings = [Sampling(greedy=False, seed=seed) for seed in range(count)]
    drawn = sample(row.expand(count, -1).clone(), settings, positions=np.full(count, 12)).token_ids
    shares = np.bincount(drawn, minlength=VOCABULARY) / count
    assert shares[[3, 10, 49]] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    assert shares[[3, 10, 49]].sum() == 1.0


def test_uniform_numbers_depend_on_seed_and_position() -> None:
    seeds = np.array([1, 1, 2, 2**64 - 1, 0], dtype=np.uint64)
    numbers = uniforms(seeds, ints([5, 6, 5, 5, 0]))
    assert len(set(numbers.tolist())) == 5
    assert (uniforms(seeds[:1], ints([5])) == numbers[0]).all()
    many = uniforms(np.arange(20000, dtype=np.uint64), np.zeros(20000, dtype=np.int64))
    assert ((many >= 0) & (many < 1)).all()
    assert np.histogram(many, 10, (0, 1))[0] == pytest.approx(np.full(10, 2000), abs=200)


def test_raw_and_warped_log_probabilities() -> None:
    scores = logits(2)
    settings = [Sampling(temperature=0.5, raw_logprobs=raw, num_top_tokens=3) for raw in (False, True)]
    choice = sample(scores.clone(), settings)
    warped, raw = torch.log_softmax(scores / 0.5, -1), torch.log_softmax(scores, -1)
    assert choice.logprobs == pytest.approx([float(warped[0].max()), float(raw[1].max())], abs=1e-5)
    assert choice.top_logprobs[1] == pytest.approx(raw[1].topk(3).values.numpy(), abs=1e-5)


def test_each_row_gets_the_top_tokens_it_asked_for() -> None:
    choice = sample(logits(3), [Sampling(num_top_tokens=count) for count in (0, 5, 2)])
    assert choice.num_top.tolist() == [0, 5, 2]
    assert choice.top_token_ids.shape == (3, 5)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("greedy", [True, False])
def test_scores_that_are_not_finite_are_told(poison: float, greedy: bool) -> None:
    scores = logits(3)
    scores[1, 4] = poison
    choice = sample(scores, [Sampling(greedy=greedy, top_p=0.9)] * 3)
    assert choice.finite.tolist() == [True, False, True]
    assert ((choice.token_ids >= 0) & (choice.token_ids < VOCABULARY)).all()


def test_slots_beyond_the_first_capacity() -> None:
    sampler = Sampler(VOCABULARY, CPU, Ranks())
    sampler.learn(300, Sampling(), ints([]))
    choice = sampler.sample(logits(1), ints([300]), ints([0]))
    assert sampler.last_tokens(torch.tensor([300])).tolist() == choice.token_ids.tolist()


def test_a_bias_is_added_after_the_penalties() -> None:
    scores = logits(1)
    sampling = Sampling(
        num_top_tokens=VOCABULARY, presence_penalty=0.0, temperature=2.0, logit_bias=((3, -1.5), (7, 2.0))
    )
    expected = scores.clone()
    expected[0, 3] -= 1.5
    expected[0, 7] += 2.0
    choice = sample(scores, [sampling])
    torch.testing.assert_close(dense_logprobs(choice).float(), torch.log_softmax(expected / 2.0, -1))


@pytest.mark.parametrize("greedy", [True, False])
def test_the_largest_biases_force_and_ban(greedy: bool) -> None:
    scores = logits(2)
    best = int(scores[1].argmax())
    settings = [
        Sampling(greedy=greedy, logit_bias=((5, 100.0),)),
        Sampling(greedy=greedy, logit_bias=((best, -100.0),)),
    ]
    forced, other = sample(scores, settings).token_ids.tolist()
    assert forced == 5
    assert other != best


def test_raw_logprobs_know_nothing_of_a_bias() -> None:
    scores = logits(2)
    biased, plain = (Sampling(raw_logprobs=True, logit_bias=((5, 100.0),)), Sampling())
    choice = sample(scores, [biased, plain])
    assert choice.token_ids[0] == 5
    assert choice.logprobs[0] == pytest.approx(float(torch.log_softmax(scores[0], -1)[5]))
    assert choice.token_ids[1] == int(scores[1].argmax())
