"""Protobuf to values and back.

Checks that arrays agree in length. Whether the numbers in them are in range is checked where they are used.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from text_generation_server.images import KEY_BYTES
from text_generation_server.models import Piece
from text_generation_server.pb import shard_pb2 as pb
from text_generation_server.plan import (
    NO_RANGES,
    EncodeImage,
    Grammar,
    GrammarKind,
    ImageHeader,
    Ints,
    NewSequence,
    Ranges,
    RowFlag,
    Rows,
    Sampling,
    Spans,
    StepPlan,
    StepResult,
    ViewSize,
    WarmupRequest,
)
from text_generation_server.shard import Shard, WarmupResult
from text_generation_server.times import Part, StepTimes, now


class MalformedPlan(Exception):
    """The arrays of a message contradict each other."""


def parse_plan(message: pb.StepPlan, position_axes: int) -> StepPlan:
    """The whole plan; raises `MalformedPlan` when its arrays do not fit together."""
    began = now()
    plan = StepPlan(
        epoch=message.epoch,
        step=message.step,
        forget_sequences=list(message.forget_sequences),
        forget_images=list(message.forget_images),
        new_sequences=[_new_sequence(new) for new in message.new_sequences],
        encode_images=[EncodeImage(_key(image.key), image.rank) for image in message.encode_images],
        rows=_rows(message, position_axes),
        times=StepTimes() if message.timed else None,
    )
    if plan.times is not None:
        plan.times.add(Part.RECEIVE, began, now())
    return plan


def _rows(message: pb.StepPlan, position_axes: int) -> Rows:
    num_tokens_R = _array(message.row_num_tokens)
    flags_R = _array(message.row_flags)
    rows = Rows(
        sequences=list(message.row_sequence),
        num_tokens_R=num_tokens_R,
        starts_R=_array(message.row_start),
        flags_R=flags_R,
        num_new_blocks_R=_array(message.row_num_new_blocks),
        new_blocks=_u32(message.new_blocks, "new_blocks"),
        token_ids_T=_EMPTY,
        positions_AT=None,
        spans=_spans(message),
        both_ways=_both_ways(message),
    )
    _check_rows(rows)
    return Rows(
        rows.sequences,
        num_tokens_R,
        rows.starts_R,
        flags_R,
        rows.num_new_blocks_R,
        rows.new_blocks,
        _token_ids(message.token_ids, num_tokens_R, flags_R),
        _positions(message.positions, position_axes, num_tokens_R),
        rows.spans,
        rows.both_ways,
    )


def _check_rows(rows: Rows) -> None:
    count = len(rows.sequences)
    columns = (rows.num_tokens_R, rows.starts_R, rows.flags_R, rows.num_new_blocks_R)
    _require(all(len(column) == count for column in columns), "the row arrays differ in length")
    _require(int(rows.num_new_blocks_R.sum()) == len(rows.new_blocks), "new_blocks does not fit its counts")
    for named, what in ((rows.spans.rows, "span"), (rows.both_ways.rows, "range")):
        _require(not len(named) or int(named.max()) < count, f"a {what} names a row that is not there")


def _token_ids(data: bytes, num_tokens_R: Ints, flags_R: Ints) -> Ints:
    """Every token of the step, 0 where a row takes the one it sampled last."""
    given = _u32(data, "token_ids")
    reused_R = (flags_R & int(RowFlag.USE_SAMPLED_TOKEN)) != 0
    _require(bool((num_tokens_R[reused_R] == 1).all()), "a row that reuses its token has other tokens")
    _require(int(num_tokens_R[~reused_R].sum()) == len(given), "token_ids does not fit its counts")
    if not reused_R.any():
        return given
    token_ids_T = np.zeros(len(given) + int(reused_R.sum()), dtype=np.int64)
    if len(given):
        token_ids_T[np.repeat(~reused_R, num_tokens_R)] = given
    return token_ids_T


def _positions(data: bytes, axes: int, num_tokens_R: Ints) -> Ints | None:
    if not data:
        return None
    count = int(num_tokens_R.sum())
    # One run serves every axis; it is what generated tokens need.
    _require(len(data) in (4 * count, 4 * axes * count), f"positions does not hold 1 or {axes} runs of {count} tokens")
    runs = np.frombuffer(data, dtype="<i4").astype(np.int64).reshape(-1, count)
    return np.ascontiguousarray(np.broadcast_to(runs, (axes, count)))


def _spans(message: pb.StepPlan) -> Spans:
    if not message.span_row:
        return _NO_SPANS
    fields = (message.span_row, message.span_offset, message.span_length, message.span_image_offset)
    rows, offsets, lengths, image_offsets = (_array(column) for column in fields)
    images = list(message.span_image)
    keys = [_key(key) for key in message.image_keys]
    _require(all(len(column) == len(images) for column in fields), "the span arrays differ in length")
    _require(max(images) < len(keys), "a span names an image that is not there")
    return Spans(rows, offsets, lengths, image_offsets, [keys[image] for image in images])


def _both_ways(message: pb.StepPlan) -> Ranges:
    if not (message.both_ways_row or message.both_ways_offset or message.both_ways_length):
        return NO_RANGES
    fields = (message.both_ways_row, message.both_ways_offset, message.both_ways_length)
    rows, offsets, lengths = (_array(column) for column in fields)
    _require(len(rows) == len(offsets) == len(lengths), "the both_ways arrays differ in length")
    return Ranges(rows, offsets, lengths)


def _new_sequence(message: pb.NewSequence) -> NewSequence:
    return NewSequence(
        id=message.id,
        sampling=_sampling(message.sampling),
        prompt_token_ids=_u32(message.prompt_token_ids, "prompt_token_ids"),
        grammar=_grammar(message.grammar) if message.HasField("grammar") else None,
        prompt_num_top=message.prompt_num_top if message.HasField("prompt_num_top") else None,
        max_new_tokens=message.max_new_tokens or None,
    )


def _grammar(message: pb.Grammar) -> Grammar:
    _require(0 <= message.kind <= max(GrammarKind), "a grammar is of an unknown kind")
    return Grammar(GrammarKind(message.kind), message.text)


def _sampling(message: pb.Sampling) -> Sampling:
    return Sampling(
        greedy=message.greedy,
        temperature=message.temperature,
        top_k=message.top_k,
        top_p=message.top_p,
        typical_p=message.typical_p,
        repetition_penalty=message.repetition_penalty,
        frequency_penalty=message.frequency_penalty,
        presence_penalty=message.presence_penalty,
        seed=message.seed,
        num_top_tokens=message.num_top_tokens,
        raw_logprobs=message.logprobs == pb.LOGPROB_SOURCE_RAW,
        relative_penalty=message.penalty_scope == pb.PENALTY_SCOPE_ALL_RELATIVE,
        banned_token_ids=tuple(_u32(message.banned_token_ids, "banned_token_ids").tolist()),
        logit_bias=_logit_bias(message),
        watermark=message.watermark,
    )


def _logit_bias(message: pb.Sampling) -> tuple[tuple[int, float], ...]:
    ids = _u32(message.logit_bias_token_ids, "logit_bias_token_ids").tolist()
    _require(len(ids) == len(message.logit_bias), "the logit_bias arrays differ in length")
    return tuple(zip(ids, message.logit_bias, strict=True))


def parse_header(message: pb.ImageHeader) -> ImageHeader:
    """The first part of an upload."""
    return ImageHeader(
        key=message.key,
        original=ViewSize(message.original_width, message.original_height),
        views=_views(message.views),
        num_tokens=message.num_tokens,
    )


def parse_warmup(message: pb.WarmupRequest) -> WarmupRequest:
    """The promises about the largest step."""
    return WarmupRequest(
        block_size=message.block_size,
        max_step_tokens=message.max_step_tokens,
        max_rows=message.max_rows,
        max_sequence_tokens=message.max_sequence_tokens,
        max_step_image_tokens=message.max_step_image_tokens,
        largest_image=parse_header(message.largest_image) if message.HasField("largest_image") else None,
        max_blocks=message.max_blocks,
        embedding_cache_tokens=message.embedding_cache_tokens,
    )


def result_message(result: StepResult) -> pb.StepResult:
    """The answer to a plan."""
    began = now()
    sampled, scores = result.sampled, result.scores
    message = pb.StepResult(
        epoch=result.epoch,
        step=result.step,
        sampled_sequence=sampled.sequences,
        sampled_token=sampled.token_ids,
        sampled_logprob=sampled.logprobs,
        row_num_top=sampled.num_top,
        top_token=sampled.top_token_ids,
        top_logprob=sampled.top_logprobs,
        failures=[
            pb.SequenceFailure(sequence=sequence, kind=pb.FailureKind.ValueType(failure.kind), message=failure.message)
            for sequence, failure in result.failures
        ],
        encode_us=result.encode_us,
        compute_us=result.compute_us,
        total_us=result.total_us,
        scored_sequence=[row.sequence for row in scores],
        scored_first=[row.first for row in scores],
        scored_num_tokens=[len(row.logprobs) for row in scores],
        scored_num_top=[row.num_top for row in scores],
        prompt_logprob=[logprob for row in scores for logprob in row.logprobs],
        prompt_top_token=[token for row in scores for token in row.top_token_ids],
        prompt_top_logprob=[logprob for row in scores for logprob in row.top_logprobs],
    )
    if result.times is not None:
        result.times.add(Part.SEND, began, now())
        _write_times(message, result.times)
    return message


def _write_times(message: pb.StepResult, times: StepTimes) -> None:
    for part, began_ns, ended_ns in times.parts:
        message.part.append(pb.StepPart.ValueType(part))
        message.part_began_ns.append(began_ns)
        message.part_ended_ns.append(ended_ns)


def info_message(shard: Shard) -> pb.ShardInfo:
    """What the router must know before it warms up."""
    shape = shard.model.shape
    return pb.ShardInfo(
        model_type=shard.model_type,
        dtype=str(shard.dtype).removeprefix("torch."),
        device=str(shard.device),
        vocab_size=shape.vocab_size,
        supported_block_sizes=shard.backend.supported_block_sizes,
        embedding_width=shape.embedding_width,
        max_positions=shape.max_positions,
        rank=shard.ranks.rank,
        world_size=shard.ranks.world_size,
        position_axes=shape.position_axes,
        takes_images=shard.takes_images,
        attention_backend=shard.attention.name,
    )


def layout_message(pieces: Iterable[Piece]) -> pb.LayoutImageResult:
    """What stands for an image."""
    return pb.LayoutImageResult(
        pieces=[
            pb.ImagePiece(text=piece) if isinstance(piece, str) else pb.ImagePiece(num_tokens=piece) for piece in pieces
        ]
    )


def warmup_message(result: WarmupResult) -> pb.WarmupResult:
    """What the router may use."""
    return pb.WarmupResult(num_blocks=result.num_blocks, kv_cache_bytes=result.kv_cache_bytes)


def _views(messages: Iterable[pb.ViewSize]) -> tuple[ViewSize, ...]:
    return tuple(ViewSize(view.width, view.height) for view in messages)


def _key(data: bytes) -> bytes:
    _require(len(data) == KEY_BYTES, f"an image key has {KEY_BYTES} bytes")
    return data


def _array(numbers: Iterable[int]) -> Ints:
    return np.array(numbers, dtype=np.int64)


def _u32(data: bytes, name: str) -> Ints:
    if not data:
        return _EMPTY
    _require(len(data) % 4 == 0, f"{name} does not hold whole numbers")
    return np.frombuffer(data, dtype="<u4").astype(np.int64)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise MalformedPlan(message)


_EMPTY = np.empty(0, dtype=np.int64)
_NO_SPANS = Spans(_EMPTY, _EMPTY, _EMPTY, _EMPTY, [])
