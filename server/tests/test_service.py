"""The shard over a real unix socket: one step ahead, uploads in pieces, streams that end early, refused plans."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from driver import FACTS, IMAGE_TOKEN, IMAGE_TOKENS, VIEW, Driver, Prompt, key, picture, warm_up
from grpc_health.v1 import health_pb2, health_pb2_grpc
from torch import Tensor

from text_generation_server.pb import shard_pb2 as pb
from text_generation_server.pb import shard_pb2_grpc
from text_generation_server.service import listen, make_server
from text_generation_server.shard import Shard

PROMPT = [10, 11, 12, 13, 14]
LONG_S = 20.0
TEXT = FACTS["config"]["text_config"]


@pytest.fixture
def channel(shard: Shard, tmp_path: Path) -> Iterator[grpc.Channel]:
    address = f"unix:{tmp_path}/shard.sock"
    server = make_server(shard, on_fatal=lambda: None)
    listen(server, address)
    with grpc.insecure_channel(address) as channel:
        yield channel
    server.stop(None).wait()


@pytest.fixture
def stub(channel: grpc.Channel) -> shard_pb2_grpc.ShardStub:
    return shard_pb2_grpc.ShardStub(channel)


NEUTRAL = pb.Sampling(greedy=True, temperature=1, top_p=1, typical_p=1, repetition_penalty=1)


def u32(numbers: list[int]) -> bytes:
    return np.array(numbers, dtype="<u4").tobytes()


def prefill(epoch: int, sequence: int = 1, token_ids: list[int] = PROMPT, step: int = 0) -> pb.StepPlan:
    return pb.StepPlan(
        epoch=epoch,
        step=step,
        new_sequences=[pb.NewSequence(id=sequence, sampling=NEUTRAL)],
        row_sequence=[sequence],
        row_num_tokens=[len(token_ids)],
        row_start=[0],
        row_flags=[pb.ROW_FLAG_SAMPLE | pb.ROW_FLAG_RESET_BLOCKS],
        row_num_new_blocks=[4],
        new_blocks=u32([8, 9, 10, 11]),
        token_ids=u32(token_ids),
    )


def decode(epoch: int, step: int, start: int, sequence: int = 1) -> pb.StepPlan:
    return pb.StepPlan(
        epoch=epoch,
        step=step,
        row_sequence=[sequence],
        row_num_tokens=[1],
        row_start=[start],
        row_flags=[pb.ROW_FLAG_SAMPLE | pb.ROW_FLAG_USE_SAMPLED_TOKEN],
        row_num_new_blocks=[0],
    )


class Plans:
    """The router's half of a stream."""

    def __init__(self, stub: shard_pb2_grpc.ShardStub) -> None:
        self._plans: queue.Queue[pb.StepPlan | None] = queue.Queue()
        self.results: Any = stub.Run(iter(self._plans.get, None), timeout=LONG_S)

    def send(self, *plans: pb.StepPlan) -> None:
        for plan in plans:
            self._plans.put(plan)

    def close(self) -> list[pb.StepResult]:
        self._plans.put(None)
        return list(self.results)


def upload(stub: shard_pb2_grpc.ShardStub, seed: int, piece: int = 1 << 15) -> None:
    data = picture(seed).tobytes()
    size = pb.ViewSize(width=VIEW.width, height=VIEW.height)
    header = pb.ImageHeader(key=key(seed), views=[size], num_tokens=IMAGE_TOKENS)
    chunks = [pb.ImageChunk(offset=offset, data=data[offset : offset + piece]) for offset in range(0, len(data), piece)]
    chunks[0].header.CopyFrom(header)
    stub.PutImage(iter(chunks))


def code_of(error: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    code: grpc.StatusCode = error.value.code()
    return code


def test_info(stub: shard_pb2_grpc.ShardStub) -> None:
    info = stub.GetInfo(pb.GetInfoRequest())
    assert (info.model_type, info.dtype, info.device) == ("fast_vlm", "float32", "cpu")
    assert info.vocab_size == TEXT["vocab_size"]
    assert (info.supported_block_sizes[0], info.embedding_width) == (16, TEXT["hidden_size"])
    assert info.max_positions == TEXT["max_position_embeddings"]
    assert info.takes_images and info.position_axes == 1 and info.world_size == 1


def test_one_step_ahead(stub: shard_pb2_grpc.ShardStub, shard: Shard) -> None:
    plans = Plans(stub)
    plans.send(prefill(7), *(decode(7, 1 + index, len(PROMPT) + index) for index in range(9)))
    results = plans.close()
    assert [(result.epoch, result.step) for result in results] == [(7, step) for step in range(10)]
    tokens = [result.sampled_token[0] for result in results]
    assert [tokens] == Driver(shard).generate([Prompt(PROMPT)], 10)


def test_an_uploaded_image(stub: shard_pb2_grpc.ShardStub, shard: Shard) -> None:
    plans = Plans(stub)
    upload(stub, 1)
    plan = prefill(3, token_ids=[5, *[IMAGE_TOKEN] * IMAGE_TOKENS, 6])
    plan.encode_images.add(key=key(1), rank=0)
    plan.MergeFrom(
        pb.StepPlan(span_row=[0], span_offset=[1], span_length=[IMAGE_TOKENS], span_image_offset=[0], span_image=[0])
    )
    plan.image_keys.append(key(1))
    plans.send(plan)
    (result,) = plans.close()
    assert result.encode_us > 0
    assert list(result.sampled_token) == Driver(shard).generate([Prompt.of([5], 1, [6])], 1)[0]


def test_top_tokens(stub: shard_pb2_grpc.ShardStub) -> None:
    plan = prefill(1)
    plan.new_sequences[0].sampling.MergeFrom(pb.Sampling(num_top_tokens=3, logprobs=pb.LOGPROB_SOURCE_RAW))
    plans = Plans(stub)
    plans.send(plan)
    (result,) = plans.close()
    assert list(result.row_num_top) == [3]
    assert result.top_token[0] == result.sampled_token[0]
    assert result.top_logprob[0] == pytest.approx(result.sampled_logprob[0])
    assert list(result.top_logprob) == sorted(result.top_logprob, reverse=True)


def test_a_dropped_stream_leaves_nothing_behind(stub: shard_pb2_grpc.ShardStub) -> None:
    first = Plans(stub)
    first.send(prefill(1))
    next(first.results)
    upload(stub, 1)
    first.results.cancel()
    second = Plans(stub)
    second.send(decode(2, 0, len(PROMPT)), pb.StepPlan(epoch=2, step=1, encode_images=[pb.EncodeImage(key=key(1))]))
    results = second.close()
    assert [failure.kind for failure in results[0].failures] == [pb.FAILURE_KIND_REJECTED]
    assert [len(result.sampled_token) for result in results] == [0, 0]


def test_a_new_stream_takes_over(stub: shard_pb2_grpc.ShardStub) -> None:
    first, second = Plans(stub), None
    first.send(prefill(1))
    next(first.results)
    second = Plans(stub)
    second.send(prefill(2))
    assert next(second.results).epoch == 2
    with pytest.raises(grpc.RpcError):
        next(first.results)


SPAN = pb.StepPlan(span_row=[0], span_offset=[0], span_length=[1], span_image_offset=[0], span_image=[0])


def with_span(image_keys: list[bytes]) -> pb.StepPlan:
    plan = pb.StepPlan(epoch=5, step=1, image_keys=image_keys)
    plan.MergeFrom(SPAN)
    return plan


MALFORMED = {
    "another epoch": pb.StepPlan(epoch=6, step=1),
    "a step twice": pb.StepPlan(epoch=5, step=0),
    "a step left out": pb.StepPlan(epoch=5, step=2),
    "rows without columns": pb.StepPlan(epoch=5, step=1, row_sequence=[1]),
    "half a token": pb.StepPlan(epoch=5, step=1, token_ids=b"abc"),
    "tokens without rows": pb.StepPlan(epoch=5, step=1, token_ids=u32([1])),
    "blocks without rows": pb.StepPlan(epoch=5, step=1, new_blocks=u32([1])),
    "a short key": pb.StepPlan(epoch=5, step=1, encode_images=[pb.EncodeImage(key=b"x")]),
    "a span without rows": with_span([key(1)]),
    "a span without a key": with_span([]),
    "too many tokens": prefill(5, token_ids=[7] * 513, step=1),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_plan_ends_the_stream(stub: shard_pb2_grpc.ShardStub, name: str) -> None:
    plans = Plans(stub)
    plans.send(pb.StepPlan(epoch=5, step=0), MALFORMED[name])
    assert next(plans.results).step == 0
    with pytest.raises(grpc.RpcError) as error:
        next(plans.results)
    assert code_of(error) is grpc.StatusCode.INVALID_ARGUMENT
    again = Plans(stub)
    again.send(prefill(6))
    assert len(again.close()[0].sampled_token) == 1


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [pb.ImageChunk(data=b"abc")],
        [pb.ImageChunk(header=pb.ImageHeader(key=key(1), views=[pb.ViewSize(width=1, height=1)]), data=b"ab")],
        [pb.ImageChunk(header=pb.ImageHeader(key=b"short", views=[pb.ViewSize(width=1, height=1)]), data=b"abc")],
    ],
)
def test_a_bad_upload_is_refused(stub: shard_pb2_grpc.ShardStub, chunks: list[pb.ImageChunk]) -> None:
    with pytest.raises(grpc.RpcError) as error:
        stub.PutImage(iter(chunks))
    assert code_of(error) is grpc.StatusCode.INVALID_ARGUMENT


def test_warm_up_is_refused_while_a_stream_runs(stub: shard_pb2_grpc.ShardStub) -> None:
    plans = Plans(stub)
    plans.send(prefill(1))
    next(plans.results)
    with pytest.raises(grpc.RpcError) as error:
        stub.Warmup(pb.WarmupRequest(block_size=16, max_step_tokens=1, max_rows=1, max_sequence_tokens=1))
    assert code_of(error) is grpc.StatusCode.FAILED_PRECONDITION


def test_a_warm_up_that_does_not_fit(
    stub: shard_pb2_grpc.ShardStub, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = pb.WarmupRequest(block_size=16, max_step_tokens=16, max_rows=1, max_sequence_tokens=512, max_blocks=2)
    with monkeypatch.context() as patch:
        patch.setattr(shard, "config", replace(shard.config, cpu_kv_cache_bytes=1000))
        with pytest.raises(grpc.RpcError) as error:
            stub.Warmup(request)
    assert code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.Warmup(request).num_blocks == 2
    shard.warm_up(warm_up())


def test_a_largest_step_that_does_not_fit(
    stub: shard_pb2_grpc.ShardStub, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(shard.model, "forward", full)
        with pytest.raises(grpc.RpcError) as error:
            stub.Warmup(pb.WarmupRequest(block_size=16, max_step_tokens=16, max_rows=1, max_sequence_tokens=512))
    assert code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED
    shard.warm_up(warm_up())


def test_health_follows_the_compute_thread(
    stub: shard_pb2_grpc.ShardStub, channel: grpc.Channel, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    forward = shard.model.forward

    def held(*arguments: Any) -> Tensor:
        release.wait(LONG_S)
        return forward(*arguments)

    monkeypatch.setattr("text_generation_server.service.STUCK_AFTER_S", 0.2)
    monkeypatch.setattr(shard.model, "forward", held)
    assert status(channel) == health_pb2.HealthCheckResponse.SERVING
    plans = Plans(stub)
    plans.send(prefill(1))
    wait_for(lambda: status(channel) == health_pb2.HealthCheckResponse.NOT_SERVING)
    release.set()
    next(plans.results)
    assert status(channel) == health_pb2.HealthCheckResponse.SERVING


def test_a_lost_device_is_fatal(
    stub: shard_pb2_grpc.ShardStub, channel: grpc.Channel, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> Tensor:
        raise torch.AcceleratorError("the device is gone")

    monkeypatch.setattr(shard.model, "forward", lost)
    plans = Plans(stub)
    plans.send(prefill(1))
    with pytest.raises(grpc.RpcError):
        next(plans.results)
    assert status(channel) == health_pb2.HealthCheckResponse.NOT_SERVING


def status(channel: grpc.Channel) -> int:
    return int(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
