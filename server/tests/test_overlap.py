"""The host waits for the device once a step: for what was sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pretend import DEVICE, pretending
from test_cuda_graphs import VOCABULARY, RandomWeights, TinyModel, TinyShard, driver_of, prompts_of
from torch import Tensor

from text_generation_server.attention.torch import TorchAttention
from text_generation_server.distributed import Ranks
from text_generation_server.grammar import Allowed
from text_generation_server.images import Normaliser
from text_generation_server.plan import Sampling
from text_generation_server.sampler import Sampler
from text_generation_server.transfers import Transfers

SETTINGS = {
    "greedy": Sampling(),
    "drawn": Sampling(greedy=False, seed=3),
    "filtered": Sampling(greedy=False, seed=3, temperature=0.7, top_k=9, top_p=0.9, typical_p=0.95, num_top_tokens=2),
    "penalised": Sampling(repetition_penalty=1.2, frequency_penalty=0.3, presence_penalty=0.1, raw_logprobs=True),
    "biased": Sampling(logit_bias=((3, 4.0), (5, -4.0)), banned_token_ids=(7, 8)),
    "marked": Sampling(watermark=True),
}


class DeviceWeights(RandomWeights):
    """On the device that is none."""

    def whole(self, name: str, shape: Sequence[int]) -> Tensor:
        return super().whole(name, shape).to(DEVICE)


def shard_there(monkeypatch: pytest.MonkeyPatch) -> TinyShard:
    """A shard on the device; its steps raise what would fail them."""

    def not_survivable(error: RuntimeError) -> None:
        raise error

    model = TinyModel(weights=DeviceWeights(DEVICE))
    shard = TinyShard(model, TorchAttention, DEVICE)
    monkeypatch.setattr(shard.runner, "_survivable", not_survivable)
    return shard


def shard_here() -> TinyShard:
    return TinyShard(TinyModel(), TorchAttention)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_step_waits_for_what_was_sampled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the sampler is asked for, and the second row is plain; prompts and chunks among the steps."""
    prompts, sampling, cuts = prompts_of([5, 40]), [SETTINGS[name], Sampling()], [3, 20]
    wanted = driver_of(shard_here()).generate_scored(prompts, 4, cuts, sampling)
    with pretending(monkeypatch) as device:
        driver = driver_of(shard_there(monkeypatch))
        device.waits.clear()
        found = driver.generate_scored(prompts, 4, cuts, sampling)
        # A chunk that samples nothing is not waited for at all.
        assert device.waits == ["an event"] * 5
    assert [[token for token, _ in one] for one in found] == [[token for token, _ in one] for one in wanted]


def test_a_step_that_scores_waits_for_the_scores_too(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = prompts_of([5, 30])
    with pretending(monkeypatch) as device:
        driver = driver_of(shard_there(monkeypatch))
        device.waits.clear()
        found = driver.score(prompts, num_top=2)
        assert device.waits == ["an event"] * 2
    wanted = driver_of(shard_here()).score(prompts, num_top=2)
    assert [one.logprobs for one in found] == [pytest.approx(one.logprobs, abs=1e-5) for one in wanted]


def test_masks_of_grammars_cost_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.full((2, -(-VOCABULARY // 32)), 1 << 5, dtype=np.int32)
    allowed = Allowed(np.array([0, 1]), words, np.array([False, True]), {})
    with pretending(monkeypatch) as device:
        sampler = Sampler(VOCABULARY, DEVICE, Ranks())
        for slot in range(3):
            sampler.learn(slot, Sampling(), np.empty(0, dtype=np.int64))
        logits_SV = torch.zeros(3, VOCABULARY, device=DEVICE)
        logits_SV[:, 9] = 1
        device.waits.clear()
        choice = sampler.sample(logits_SV, np.arange(3), np.arange(3), allowed)
        assert device.waits == ["an event"]
    assert (choice.token_ids[0] % 32, choice.token_ids[2]) == (5, 9)
    assert choice.lost.tolist() == [False, True, False]


def test_pixels_are_sent_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    views = [torch.full((4, 6, 3), number, dtype=torch.uint8) for number in range(3)]
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    with pretending(monkeypatch) as device:
        normalise = Normaliser(processor, DEVICE, torch.float32)
        device.waits.clear()
        values = normalise(Transfers(DEVICE).stacked(views))
        assert (device.waits, device.uploads > 0, values.shape) == ([], True, (3, 3, 4, 6))


WAITS: dict[str, Callable[[Tensor], Any]] = {
    "a copy to the host": lambda there: there.cpu(),
    "a list": lambda there: there.tolist(),
    "a number": lambda there: there[0].item(),
    "a condition": lambda there: bool(there[0] > 0),
    "where": lambda there: there.nonzero(),
    "a mask": lambda there: there[there > 0],
    "an index of the host": lambda there: there[torch.tensor([0, 1])],
    "a list that is sent": lambda there: torch.tensor([1, 2], device=there.device),
    "memory that is not page-locked": lambda there: torch.zeros(3).to(there.device, non_blocking=True),
    "a copy over": lambda there: there.copy_(torch.zeros(3)),
}


@pytest.mark.parametrize("name", WAITS)
def test_the_stand_in_notes_what_waits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or does not go on at all."""
    with pretending(monkeypatch) as device:
        there = torch.ones(3, device=DEVICE)
        assert device.waits == []
        try:
            with torch.inference_mode():
                WAITS[name](there)
        except RuntimeError as error:
            device.waits.append(str(error))
        assert len(device.waits) >= 1


def test_nothing_is_copied_on_a_cpu() -> None:
    array, transfers = np.arange(6), Transfers(torch.device("cpu"))
    placed = transfers.place({"all": array, "none": array[:0]})
    array[0] = 7
    assert (placed["all"].tolist(), placed["none"].tolist()) == ([7, 1, 2, 3, 4, 5], [])
    tensor = torch.zeros(2)
    fetched = transfers.fetch(tensor)
    tensor[1] = 5
    assert fetched.wait().tolist() == [0, 5]


def test_arrays_of_every_type_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays: dict[str, Any] = {
        "bools": np.array([True, False, True]),
        "table": np.arange(12, dtype=np.int32).reshape(3, 4).T,
        "none": np.empty((0, 3), dtype=np.int64),
        "numbers": np.array([0.5, -1.0], dtype=np.float32),
        "bytes": np.array([255], dtype=np.uint8),
    }
    with pretending(monkeypatch) as device:
        transfers = Transfers(DEVICE)
        placed = transfers.place(arrays)
        assert (device.uploads, device.waits) == (1, [])
        for name, array in arrays.items():
            assert np.array_equal(transfers.fetch(placed[name]).wait(), array), name
        assert device.waits == ["an event"] * len(arrays)
