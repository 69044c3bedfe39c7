"""Graphs of decode steps: the same tokens as without them, whatever the batch, and nothing else touched.

The graphs are stand-ins (`recorder.py`), the kernels Triton's under its interpreter, the model a random decoder.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from driver import PREPARED, Driver, Prompt, warm_up
from recorder import StandIn, StandInRecorder
from torch import Tensor

from text_generation_server import cuda_graphs
from text_generation_server.attention.torch import TorchAttention
from text_generation_server.attention.triton import TritonAttention
from text_generation_server.batch import Batch, nothing
from text_generation_server.config import PreparedModel, ShardConfig, WatermarkConfig
from text_generation_server.cuda_graphs import DecodeGraphs, ladder
from text_generation_server.distributed import Ranks
from text_generation_server.kv_cache import KvCache
from text_generation_server.layers.decoder import Decoder, DecoderSpec
from text_generation_server.layers.rotary import RopeSpec
from text_generation_server.merge import Span
from text_generation_server.models import ModelShape
from text_generation_server.plan import StepPlan, StepResult
from text_generation_server.scoring import ScoredRow
from text_generation_server.shard import Shard
from text_generation_server.steps import Place, StepRunner

BLOCK_SIZE, NUM_BLOCKS, MAX_TOKENS = 16, 200, 640
VOCABULARY = 90
CPU = torch.device("cpu")
UNBOUND = 1 << 40


@dataclass
class RandomWeights:
    """Any tensor that is asked for, the same for the same name."""

    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    def whole(self, name: str, shape: Sequence[int]) -> Tensor:
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * (0.3 if len(shape) > 1 else 1.0)

    def rows(self, name: str, shape: Sequence[int], start: int, stop: int) -> Tensor:
        return self.whole(name, shape)[start:stop]

    def columns(self, name: str, shape: Sequence[int], start: int, stop: int) -> Tensor:
        return self.whole(name, shape)[:, start:stop]


class TinyModel:
    """Two layers, one of which sees everything and one a window."""

    def __init__(self, axes: int = 1, weights: Any = None) -> None:
        parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": 100.0}
        rope = RopeSpec(head_dim=16, max_positions=MAX_TOKENS, parameters=parameters)
        spec = DecoderSpec(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            head_dim=16,
            max_positions=MAX_TOKENS,
            norm_eps=1e-6,
            ropes=(rope if axes == 1 else rope.with_axes([5, 3], interleaved=False),),
            windows=(None, 37),
        )
        found: Any = weights or RandomWeights()
        decoder = Decoder(spec, found, Ranks(), "body", "head")
        self.shape = ModelShape(
            vocab_size=VOCABULARY,
            max_positions=MAX_TOKENS,
            embedding_width=0,
            attention=decoder.shape,
            position_axes=axes,
        )
        self.embed, self.forward, self.logits = decoder.embed, decoder.forward, decoder.logits


class TinyShard:
    """As much of a shard as a driver needs."""

    def __init__(self, model: Any, backend: Any = TritonAttention, device: torch.device = CPU) -> None:
        self.ranks = Ranks()
        shape = model.shape.attention
        self.cache = KvCache(shape, NUM_BLOCKS, BLOCK_SIZE, torch.empty(0, device=device))
        request = warm_up(max_sequence_tokens=MAX_TOKENS, block_size=BLOCK_SIZE)
        self.runner = StepRunner(model, Place(Ranks(), backend, None, WatermarkConfig()), request, self.cache)

    @torch.inference_mode()
    def capture(
        self, sizes: Sequence[int], max_bytes: int = UNBOUND, given: StandInRecorder | None = None
    ) -> StandInRecorder:
        recorder = given or StandInRecorder()
        self.runner.capture(recorder, sizes, max_bytes)
        return recorder

    @torch.inference_mode()
    def step(self, plan: StepPlan) -> StepResult:
        self.runner.forget(plan.forget_sequences)
        failures = self.runner.learn(plan.new_sequences)
        computed, failed = self.runner.run(plan.rows, lambda key: pytest.fail(f"there is no image {key!r}"))
        return StepResult(plan.epoch, plan.step, computed.sampled, failures + failed, 0, 0, 0, computed.scores)


def driver_of(shard: TinyShard) -> Driver:
    return Driver(shard, num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE)  # type: ignore[arg-type]


def plain_driver() -> Driver:
    return driver_of(TinyShard(TinyModel(), TorchAttention))


def prompts_of(lengths: Sequence[int], axes: int = 1) -> list[Prompt]:
    """Random text. With several axes the positions run apart."""
    random = np.random.default_rng(sum(lengths))
    prompts = [Prompt([int(token) for token in random.integers(1, VOCABULARY, length)]) for length in lengths]
    for prompt in prompts if axes > 1 else []:
        counted = np.arange(len(prompt.token_ids))
        prompt.positions = np.stack([counted // (axis + 1) for axis in range(axes)])
    return prompts


LENGTHS = [3, 40, 16, 1, 21, 30, 5, 15]


def compare(prompts: Sequence[Prompt], num_tokens: int, axes: int = 1) -> StandInRecorder:
    """Generates with graphs and without, there by the backend that is no kernel of ours, and returns the recorder."""
    graphed = TinyShard(TinyModel(axes))
    recorder = graphed.capture([min(size for size in ladder(None, 8) if size >= len(prompts))])
    wanted = driver_of(TinyShard(TinyModel(axes), TorchAttention)).generate_scored(prompts, num_tokens)
    found = driver_of(graphed).generate_scored(prompts, num_tokens)
    for one, other in zip(found, wanted, strict=True):
        assert [token for token, _ in one] == [token for token, _ in other]
        assert [logprob for _, logprob in one] == pytest.approx([logprob for _, logprob in other], abs=1e-4)
    assert recorder.replays == num_tokens - 1
    return recorder


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 8])
def test_tokens_are_those_without_graphs(num_rows: int) -> None:
    compare(prompts_of(LENGTHS[:num_rows]), 3)


def test_a_long_context_beside_a_short_one() -> None:
    """Of the two splits that a row may have here the first takes 256 keys: the short row has none for the second."""
    compare(prompts_of([270, 2]), 3)


def test_tokens_of_several_position_axes() -> None:
    compare(prompts_of([40, 5, 17], axes=2), 3, axes=2)


def test_rows_come_and_go() -> None:
    """Whose company and which graph it is changes at every step; the blocks of those who left are handed out again."""
    shard, prompts = TinyShard(TinyModel()), prompts_of([20, 60, 1, 45, 9])
    recorder = shard.capture([1, 2, 4])
    wanted = [plain_driver().generate([prompt], 6)[0] for prompt in prompts]
    driver, found = driver_of(shard), [list[int]() for _ in prompts]
    for number, prompt in enumerate(prompts):
        driver.learn(number, prompt)
    for alive in ([0], [0, 1], [0, 1, 2, 3, 4], [1, 3, 4], [3], [0, 3, 4, 2], [4, 0, 1], [2, 1], [0, 1, 2]):
        rows = []
        for number in alive:
            length, done = len(prompts[number].token_ids), len(found[number])
            rows.append(
                driver.decode(number, length + done - 1) if done else driver.chunk(number, prompts[number], 0, length)
            )
        result = driver.step(rows)
        assert not result.failures
        for number, token in zip(result.sampled.sequences, result.sampled.token_ids, strict=True):
            found[number].append(token)
    assert found == [tokens[: len(one)] for tokens, one in zip(wanted, found, strict=True)]
    # Steps with a prompt among them are launched, and so is one of more rows than were captured.
    assert recorder.replays == 6


def test_rows_that_fill_up_touch_nothing() -> None:
    """Not the cache, and not the other rows, even where what they compute is no number."""
    model = TinyModel()
    shard, prompts = TinyShard(model), prompts_of([5, 21, 40])
    shard.capture([4])
    wanted = plain_driver().generate(prompts, 5)
    # What fills up is token 0, and no prompt has it.
    model.embed.weight_VH[0] = float("nan")
    driver = driver_of(shard)
    for number, prompt in enumerate(prompts):
        driver.learn(number, prompt)
    result = driver.step(
        [driver.chunk(number, prompt, 0, len(prompt.token_ids)) for number, prompt in enumerate(prompts)]
    )
    found = [[token] for token in result.sampled.token_ids]
    for index in range(4):
        before = shard.cache.tensor.clone()
        rows = [driver.decode(number, len(prompt.token_ids) + index) for number, prompt in enumerate(prompts)]
        result = driver.step(rows)
        for tokens, token in zip(found, result.sampled.token_ids, strict=True):
            tokens.append(token)
        # One slot a row, in each layer, of keys and values.
        written = (shard.cache.tensor != before).flatten(4).any(-1)
        assert written.sum(dim=(2, 3)).tolist() == [[len(prompts)] * 2] * 2
        assert not shard.cache.tensor[:, :, -1].any()
    assert found == wanted


def test_a_batch_beyond_the_ladder_is_launched() -> None:
    shard, prompts = TinyShard(TinyModel()), prompts_of([7, 30, 12])
    recorder = shard.capture([1, 2])
    assert driver_of(shard).generate(prompts, 3) == plain_driver().generate(prompts, 3)
    assert recorder.replays == 0


def batch_of(num_rows: int) -> Batch:
    """Rows that decode."""
    numbers = np.arange(num_rows)
    return replace(nothing(1).filled_up(num_rows, 0), sample_sequences=numbers.tolist(), sample_tokens=numbers)


@torch.inference_mode()
def graphs_of(sizes: Sequence[int]) -> DecodeGraphs:
    shard = TinyShard(TinyModel(), NothingToCompute)
    shard.capture(sizes, given=CheapRecorder())
    assert shard.runner._graphs is not None
    return shard.runner._graphs


@pytest.mark.parametrize(
    ("num_rows", "size"), [(1, 1), (2, 9), (3, 9), (9, 9), (10, None), (24, None), (25, 50), (50, 50), (51, None)]
)
def test_a_batch_is_not_filled_up_too_far(num_rows: int, size: int | None) -> None:
    assert graphs_of([1, 9, 50]).size_for(batch_of(num_rows)) == size


@pytest.mark.parametrize(
    "change",
    [
        {"sample_sequences": [0, 1]},
        {"token_ids_T": np.zeros(4, dtype=np.int64)},
        {"both_ways": {0: [(0, 1)]}},
        {"spans": [Span(0, 1, torch.zeros(1, 32), 0)]},
        {"scored": [ScoredRow(0, 0, 0, 0, 1)]},
    ],
)
def test_only_plain_decoding_is_replayed(change: dict[str, Any]) -> None:
    graphs = graphs_of([3])
    assert graphs.size_for(batch_of(3)) == 3
    assert graphs.size_for(replace(batch_of(3), **change)) is None


@pytest.mark.parametrize(
    ("cost", "most", "captured"),
    [
        # The largest takes the memory that others find room in.
        (lambda turn: 100 if turn == 0 else 1, 105, [1, 2, 4, 8, 16, 32]),
        (lambda turn: 100 if turn == 0 else 1, 102, [1, 2, 32]),
        # The two largest are too large.
        (lambda turn: [200, 100, 50, 1, 1, 1][turn], 60, [1, 2, 4, 8]),
        (lambda turn: [200, 100, 50, 1, 10][turn], 60, [1, 8]),
        (lambda turn: 100, 60, []),
    ],
)
def test_memory_is_bounded(
    cost: Callable[[int], int], most: int, captured: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    shard = TinyShard(TinyModel(), NothingToCompute)
    recorder = CheapRecorder(cost)
    with caplog.at_level(logging.INFO):
        shard.capture([1, 2, 4, 8, 16, 32], most, recorder)
    assert shard.runner._graphs is not None
    assert shard.runner._graphs.sizes == captured
    sizes = ", ".join(map(str, captured)) or "none"
    assert any(f"of batches of {sizes}:" in line for line in caplog.messages)


class NothingToCompute(TorchAttention):
    """A backend of which only bookkeeping is asked."""

    def begin_step(self, layout: Any) -> None:
        assert layout.captured is not None


class CheapRecorder(StandInRecorder):
    """Captures without running anything."""

    def capture(self, function: Callable[[], None]) -> StandIn:
        return super().capture(lambda: None)


def test_no_room_for_the_buffers_of_the_largest_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    make_room = DecodeGraphs._make_room

    def refusing(graphs: DecodeGraphs, size: int) -> None:
        if size > 2:
            raise torch.OutOfMemoryError("there is none")
        make_room(graphs, size)

    monkeypatch.setattr(DecodeGraphs, "_make_room", refusing)
    assert graphs_of([1, 2, 4, 8]).sizes == [1, 2]


def test_a_model_that_asks_the_device_is_served_without(caplog: pytest.LogCaptureFixture) -> None:
    model: Any = TinyModel()
    forward = model.forward

    def asking(hidden_TH: Tensor, *rest: Any) -> Any:
        return forward(hidden_TH * float(hidden_TH[0, 0] == hidden_TH[0, 0]), *rest)

    model.forward = asking
    shard, prompts = TinyShard(model), prompts_of([7, 30])
    with caplog.at_level(logging.INFO):
        recorder = shard.capture([1, 2])
    assert recorder.graphs == []
    assert "CUDA graphs: a batch of 2 cannot be captured, nor is anything else" in caplog.messages
    assert driver_of(shard).generate(prompts, 3) == plain_driver().generate(prompts, 3)


def test_the_stand_in_sees_what_moves() -> None:
    """What would go wrong with a graph fails here too."""
    held: dict[str, Any] = {"tensor": torch.zeros(3), "factor": 2}
    graph = StandIn(lambda: held["tensor"].mul_(held["factor"]))
    held["tensor"].fill_(5)
    graph.replay()
    for change in ({"tensor": torch.zeros(3)}, {"factor": 3}):
        with pytest.raises(AssertionError):
            _changed(held, change, graph)


def _changed(held: dict[str, Any], change: dict[str, Any], graph: StandIn) -> None:
    before = dict(held)
    held.update(change)
    try:
        graph.replay()
    finally:
        held.update(before)


@pytest.mark.parametrize(
    ("asked", "max_rows", "sizes"),
    [
        (None, 1, [1]),
        (None, 20, [1, 2, 4, 8, 16, 20]),
        (None, 10_000, [1, 2, 4, *range(8, 257, 8)]),
        ((1, 2, 4), 128, [1, 2, 4]),
        ((4, 400), 300, [4, 300]),
        ((), 128, []),
    ],
)
def test_ladder(asked: tuple[int, ...] | None, max_rows: int, sizes: list[int]) -> None:
    assert ladder(asked, max_rows) == sizes


@pytest.mark.parametrize(
    ("attention", "asked", "captured"), [("triton", (1, 2), [1, 2]), ("triton", (), None), ("torch", (1, 2), None)]
)
def test_flags_and_backends_decide(
    attention: str, asked: tuple[int, ...], captured: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cuda_graphs.RECORDERS, "cpu", lambda _: StandInRecorder())
    choices: dict[str, Any] = {"device": "cpu", "num_threads": 1, "attention": attention, "cuda_graphs": asked}
    shard = Shard(ShardConfig(prepared=PREPARED, socket=Path("unused"), **choices), PreparedModel.read(PREPARED))
    shard.warm_up(replace(warm_up(max_step_tokens=4, max_rows=2, max_sequence_tokens=32), largest_image=None))
    graphs = None if shard._runner is None else shard._runner._graphs
    assert (None if graphs is None else graphs.sizes) == captured
