"""The embedded model gives what transformers gives, however the work is cut."""

from __future__ import annotations

import gloo_ranks
import numpy as np
import pytest
import torch
from driver import IMAGE_TOKENS, Driver, Prompt, image, key, load
from reference import Reference
from torch import Tensor

from text_generation_server.plan import EncodeImage
from text_generation_server.shard import Shard

NUM_TOKENS = 24


def text(seed: int, count: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(5, 2304, count)]


PROMPTS = [
    Prompt.of(text(1, 20)),
    Prompt.of(text(2, 7), 1, text(3, 9)),
    Prompt.of(2, text(4, 12)),
    Prompt.of(text(5, 3), 3, 4, text(6, 5), 5, text(7, 1)),
    Prompt.of(text(8, 70)),
    Prompt.of(text(9, 1)),
    Prompt.of(text(10, 33), 1, text(11, 2)),
    Prompt.of(text(12, 130)),
]


@pytest.fixture(scope="session")
def expected(reference: Reference) -> list[list[int]]:
    return [reference.generate(prompt, NUM_TOKENS) for prompt in PROMPTS]


def test_image_embeddings(shard: Shard, reference: Reference) -> None:
    seeds = [1, 2, 3]
    for seed in seeds:
        shard.images.put(image(seed))
    Driver(shard).step([], encode_images=[EncodeImage(key(seed), 0) for seed in seeds])
    ours = torch.stack([shard.images.find(key(seed)) for seed in seeds])  # type: ignore[misc]
    torch.testing.assert_close(ours, reference.embeddings(seeds), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prompt", PROMPTS[:5])
def test_log_probabilities(driver: Driver, reference: Reference, prompt: Prompt) -> None:
    (scored,) = driver.generate_scored([prompt], 4)
    tokens = [token for token, _ in scored]
    continued = Prompt(prompt.token_ids + tokens, prompt.runs)
    logprobs = torch.log_softmax(reference.logits(continued), -1)[len(prompt.token_ids) - 1 :]
    wanted = [float(logprobs[index, token]) for index, token in enumerate(tokens)]
    assert [logprob for _, logprob in scored] == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_greedy_tokens_alone(driver: Driver, expected: list[list[int]], number: int) -> None:
    assert driver.generate([PROMPTS[number]], NUM_TOKENS) == [expected[number]]


def test_greedy_tokens_together(driver: Driver, expected: list[list[int]]) -> None:
    assert driver.generate(PROMPTS, NUM_TOKENS) == expected


@pytest.mark.parametrize("cut", range(1, len(PROMPTS[1].token_ids)))
def test_prompt_cut_anywhere(driver: Driver, expected: list[list[int]], cut: int) -> None:
    assert driver.generate([PROMPTS[1]], 8, cuts=[cut]) == [expected[1][:8]]


def test_prompts_cut_in_many_pieces(driver: Driver, expected: list[list[int]]) -> None:
    cuts = [1, 2, 5, 16, 17, 31, 48, 60, 61, 90]
    assert driver.generate(PROMPTS, NUM_TOKENS, cuts=cuts) == expected


def test_images_of_one_step_are_encoded_together(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = (1, 2, 3, 4)
    batches: list[int] = []
    encode_views = shard.model.encode_views

    def counted(pixels: Tensor) -> Tensor:
        batches.append(len(pixels))
        return encode_views(pixels)

    monkeypatch.setattr(shard.model, "encode_views", counted)
    for seed in seeds:
        shard.images.put(image(seed))
    Driver(shard).step([], encode_images=[EncodeImage(key(seed), 0) for seed in seeds])
    assert batches == [4]
    assert {len(shard.images.find(key(seed))) for seed in seeds} == {IMAGE_TOKENS}


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.3), ("float16", 0.05)])
def test_narrow_types_stay_close(driver: Driver, dtype: str, tolerance: float) -> None:
    narrow = Driver(load(dtype=dtype)).generate_scored(PROMPTS, 1)
    wide = driver.generate_scored(PROMPTS, 1)
    assert [one[0][1] for one in narrow] == pytest.approx([one[0][1] for one in wide], abs=tolerance)


def test_our_kernels_give_the_same_tokens(expected: list[list[int]]) -> None:
    interpreted = Driver(load(attention="triton"))
    assert interpreted.generate(PROMPTS[:2], 3, [16]) == [tokens[:3] for tokens in expected[:2]]


def test_two_ranks_compute_what_one_does(expected: list[list[int]]) -> None:
    for tokens in gloo_ranks.run(PROMPTS, NUM_TOKENS, cuts=[16, 40]):
        assert tokens == expected
