"""What a warm-up measures, on a device that says what it is told to say."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
import torch
from driver import warm_up

from text_generation_server import warmup
from text_generation_server.kv_cache import block_bytes
from text_generation_server.memory import NoRoom
from text_generation_server.plan import Failure, FailureKind, StepResult
from text_generation_server.shard import Shard

MB = 10**6
REQUEST = replace(warm_up(), max_blocks=0)


@dataclass
class Scripted(warmup.Meter):
    """A device of 1,000 MB with 100 MB of weights. Each peak is taken once: of the images, then of the step."""

    peaks: list[int]
    on_cpu: bool = False
    others: list[int] = field(default_factory=lambda: [40 * MB, 50 * MB])

    def start(self) -> int:
        return 100 * MB

    def peak(self) -> int:
        return self.peaks.pop(0)

    def total_and_others(self) -> tuple[int, int]:
        return 1000 * MB, self.others.pop(0)


@pytest.fixture
def measured(shard: Shard) -> Iterator[Shard]:
    """A shard whose memory is scripted, and its own again afterwards."""
    meter = shard._meter
    yield shard
    shard._meter = meter
    shard.warm_up(warm_up())


def sizes(shard: Shard) -> tuple[int, int]:
    """Bytes of a block, and of the embeddings that may stay."""
    a_block = block_bytes(shard.model.shape.attention, REQUEST.block_size, shard.dtype)
    return a_block, REQUEST.embedding_cache_tokens * shard.model.shape.embedding_width * shard.dtype.itemsize


def test_what_is_left_goes_to_the_cache(measured: Shard, caplog: pytest.LogCaptureFixture) -> None:
    a_block, embeddings = sizes(measured)
    # 32 blocks hold the long step, and the crowded one has 32 rows of a block each.
    measured._meter = Scripted([300 * MB, 250 * MB + 32 * a_block])
    with caplog.at_level(logging.INFO, "text_generation_server.shard"):
        result = measured.warm_up(REQUEST)
    left = 900 * MB - 50 * MB - 100 * MB - 200 * MB - embeddings
    assert result.num_blocks == left // a_block - 1
    assert result.kv_cache_bytes == result.num_blocks * a_block
    line = next(record.message for record in caplog.records if record.message.startswith("memory:"))
    assert all(part in line for part in ("weights 0.10 GB", "largest step 0.15 GB", "images instead of it 0.20 GB"))


def test_a_device_that_is_full(measured: Shard) -> None:
    measured._meter = Scripted([300 * MB, 950 * MB])
    with pytest.raises(NoRoom, match="--max-batch-prefill-tokens"):
        measured.warm_up(REQUEST)


def test_images_that_do_not_fit(measured: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(measured.model, "encode_views", refuse)
    measured._meter = Scripted([700 * MB])
    with pytest.raises(NoRoom) as refused:
        measured.warm_up(REQUEST)
    assert all(part in str(refused.value) for part in ("0.60 GB", "192x192", "--max-image-pixels"))


def test_a_step_that_does_not_fit(measured: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Failure(FailureKind.OUT_OF_MEMORY, "full")
    monkeypatch.setattr(measured, "step", lambda plan: StepResult(0, 0, None, [(0, full)]))  # type: ignore[arg-type]
    measured._meter = Scripted([300 * MB, 800 * MB])
    with pytest.raises(NoRoom) as refused:
        measured.warm_up(REQUEST)
    assert all(part in str(refused.value) for part in ("256 tokens", "0.70 GB", "--max-batch-prefill-tokens"))


def test_a_step_that_fails_otherwise_says_so(measured: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Failure(FailureKind.INTERNAL, "the step failed")
    monkeypatch.setattr(measured, "step", lambda plan: StepResult(0, 0, None, [(0, bad)]))  # type: ignore[arg-type]
    measured._meter = Scripted([300 * MB, 800 * MB])
    with pytest.raises(NoRoom, match="cannot be run: the step failed"):
        measured.warm_up(REQUEST)


def test_a_cache_that_is_refused(measured: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    make = measured._new_runner

    def refuse(request: object, num_blocks: int) -> object:
        if num_blocks > 100:
            raise torch.OutOfMemoryError("full")
        return make(REQUEST, num_blocks)

    monkeypatch.setattr(measured, "_new_runner", refuse)
    measured._meter = Scripted([300 * MB, 250 * MB])
    with pytest.raises(NoRoom, match="--cuda-memory-fraction"):
        measured.warm_up(REQUEST)


def test_weights_that_do_not_fit(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    from text_generation_server import models
    from text_generation_server.config import PreparedModel

    def refuse(*_: object, **__: object) -> object:
        raise torch.OutOfMemoryError("full")

    class Files:
        total_bytes = 2000 * MB

    monkeypatch.setattr(models, "build", refuse)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (300 * MB, 1000 * MB))
    prepared = PreparedModel.read(shard.config.prepared)
    with pytest.raises(NoRoom) as refused:
        shard._build(prepared, Files())  # type: ignore[arg-type]
    assert all(part in str(refused.value) for part in ("2.00 GB", "1.00 GB", "0.30 GB", "--num-shard"))


def test_a_crowded_step_asks_for_all_that_sampling_can_do() -> None:
    plan = warmup.crowded_plan(REQUEST, step=2)
    assert len(plan.rows.sequences) == len(plan.new_sequences) == REQUEST.max_rows
    sampling = plan.new_sequences[0].sampling
    assert not sampling.greedy
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.typical_p) != (1.0, 0, 1.0, 1.0)


@pytest.mark.parametrize(("tokens", "count"), [(36, 1), (72, 2), (10, 1)])
def test_as_many_of_the_largest_image_as_a_step_may_encode(tokens: int, count: int) -> None:
    request = replace(REQUEST, max_step_image_tokens=tokens)
    assert warmup.largest_images(request, torch.device("cuda")) == count
    assert warmup.largest_images(request, torch.device("cpu")) == 1
    assert warmup.largest_images(replace(request, largest_image=None), torch.device("cuda")) == 0
