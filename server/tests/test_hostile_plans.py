"""A plan that asks for the impossible fails the sequence it concerns; its neighbours get their tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from driver import GREEDY, IMAGE_TOKEN, IMAGE_TOKENS, Driver, Prompt, Row, SpanEntry, image, ints, key, rows_of, warm_up
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from text_generation_server.plan import (
    EncodeImage,
    FailureKind,
    NewSequence,
    RowFlag,
    Rows,
    Sampling,
    StepPlan,
    StepResult,
)
from text_generation_server.shard import PlanRefused, Shard

GOOD, BAD = 1, 2
PROMPT = [10, 11, 12, 13]
HUGE = 2**32 - 1


def plan(rows: Rows, step: int = 0, **parts: list[Any]) -> StepPlan:
    fields = ("forget_sequences", "forget_images", "new_sequences", "encode_images")
    named: dict[str, Any] = {name: parts.get(name, []) for name in fields}
    return StepPlan(epoch=1, step=step, rows=rows, **named)


def new(sequence: int, sampling: Sampling = GREEDY) -> NewSequence:
    return NewSequence(sequence, sampling, ints([]))


def prefill(sequence: int, block: int, token_ids: list[int] = PROMPT) -> Row:
    return Row(sequence, 0, token_ids, [block], reset=True)


def beside(shard: Shard, bad: Row) -> StepResult:
    """Runs one bad row between two good ones, with an image encoded."""
    shard.images.put(image(1))
    rows = rows_of([prefill(GOOD, 3), bad, prefill(GOOD + 10, 4)])
    sequences = [new(GOOD), new(BAD), new(GOOD + 10)]
    return shard.step(plan(rows, new_sequences=[*sequences], encode_images=[EncodeImage(key(1), 0)]))


@pytest.fixture
def wanted(shard: Shard) -> int:
    """What `PROMPT` samples."""
    return Driver(shard).generate([Prompt(PROMPT)], 1)[0][0]


IMAGE = [IMAGE_TOKEN] * IMAGE_TOKENS


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (prefill(99, 5), FailureKind.REJECTED),
        (prefill(BAD, 512), FailureKind.REJECTED),
        (prefill(BAD, HUGE), FailureKind.REJECTED),
        (prefill(BAD, 5, [2304]), FailureKind.REJECTED),
        (prefill(BAD, 5, [HUGE]), FailureKind.REJECTED),
        (prefill(BAD, 5, []), FailureKind.REJECTED),
        (prefill(BAD, 5, [7] * 17), FailureKind.REJECTED),
        (Row(BAD, 0, PROMPT, []), FailureKind.REJECTED),
        (Row(BAD, 3, PROMPT, [5]), FailureKind.REJECTED),
        (Row(BAD, HUGE, PROMPT, [5]), FailureKind.REJECTED),
        (Row(BAD, 510, PROMPT, list(range(6, 6 + 33)), reset=True), FailureKind.REJECTED),
        (Row(BAD, 0, None, [5], reset=True), FailureKind.REJECTED),
        (Row(GOOD, 0, PROMPT, [5], reset=True), FailureKind.REJECTED),
        (Row(BAD, 0, IMAGE, [5, 6, 7], spans=[SpanEntry(0, IMAGE_TOKENS, 0, key(9))]), FailureKind.REJECTED),
        (Row(BAD, 0, IMAGE, [5, 6, 7], spans=[SpanEntry(1, IMAGE_TOKENS, 0, key(1))]), FailureKind.REJECTED),
        (Row(BAD, 0, IMAGE, [5, 6, 7], spans=[SpanEntry(0, IMAGE_TOKENS, 1, key(1))]), FailureKind.IMAGE),
        (Row(BAD, 0, IMAGE, [5, 6, 7], spans=[SpanEntry(0, 2, HUGE, key(1))]), FailureKind.IMAGE),
        (Row(BAD, 0, IMAGE, [5, 6, 7], spans=[SpanEntry(HUGE, 1, 0, key(1))]), FailureKind.REJECTED),
        (Row(BAD, 0, PROMPT, [5], reset=True, both_ways=[(1, 4)]), FailureKind.REJECTED),
        (Row(BAD, 0, PROMPT, [5], reset=True, both_ways=[(HUGE, HUGE)]), FailureKind.REJECTED),
        (Row(BAD, 0, PROMPT, [5], reset=True, both_ways=[(1, 0)]), FailureKind.REJECTED),
        (Row(BAD, 0, PROMPT, [5], reset=True, both_ways=[(0, 2), (1, 2)]), FailureKind.REJECTED),
        (Row(BAD, 0, PROMPT, [5], reset=True, both_ways=[(2, 2), (0, 2)]), FailureKind.REJECTED),
    ],
)
def test_only_the_bad_row_fails(shard: Shard, wanted: int, bad: Row, kind: FailureKind) -> None:
    result = beside(shard, bad)
    assert [(sequence, failure.kind) for sequence, failure in result.failures] == [(bad.sequence, kind)]
    good = [GOOD + 10] if bad.sequence == GOOD else [GOOD, GOOD + 10]
    sampled = dict(zip(result.sampled.sequences, result.sampled.token_ids, strict=True))
    assert [sampled[sequence] for sequence in good] == [wanted] * len(good)


def test_ranges_stay_with_their_row(shard: Shard) -> None:
    def logprob(*rows: Row) -> float:
        shard.reset_sequences()
        result = shard.step(plan(rows_of(rows), new_sequences=[new(BAD), new(GOOD)]))
        return dict(zip(result.sampled.sequences, result.sampled.logprobs, strict=True))[GOOD]

    causal = prefill(GOOD, 3)
    both_ways = replace(causal, both_ways=[(0, 3)])
    assert logprob(both_ways) != pytest.approx(logprob(causal), abs=1e-3)
    assert logprob(prefill(BAD, 512), both_ways) == pytest.approx(logprob(both_ways), abs=1e-5)
    assert logprob(replace(prefill(BAD, 512), both_ways=[(0, 3)]), causal) == pytest.approx(logprob(causal), abs=1e-5)
    # A range of one token changes nothing.
    assert logprob(replace(causal, both_ways=[(1, 1)])) == pytest.approx(logprob(causal), abs=1e-5)


@pytest.mark.parametrize("position", [-1, 2048, 2**31 - 1])
def test_a_position_out_of_range(shard: Shard, position: int) -> None:
    rows = rows_of([prefill(GOOD, 3), prefill(BAD, 5)], positions=ints([0, 1, 2, 3, 0, position, 2, 3])[None])
    result = shard.step(plan(rows, new_sequences=[new(GOOD), new(BAD)]))
    assert [sequence for sequence, _ in result.failures] == [BAD]
    assert result.sampled.sequences == [GOOD]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.0),
        Sampling(temperature=float("nan")),
        Sampling(temperature=float("inf")),
        Sampling(top_p=0.0),
        Sampling(top_p=1.5),
        Sampling(typical_p=-1.0),
        Sampling(repetition_penalty=0.0),
        Sampling(frequency_penalty=float("nan")),
        Sampling(presence_penalty=float("-inf")),
        Sampling(num_top_tokens=HUGE),
        Sampling(banned_token_ids=(2304,)),
        Sampling(banned_token_ids=tuple(range(2304))),
    ],
)
def test_impossible_sampling(shard: Shard, sampling: Sampling) -> None:
    rows = rows_of([prefill(GOOD, 3), prefill(BAD, 5)])
    result = shard.step(plan(rows, new_sequences=[new(GOOD), new(BAD, sampling)]))
    assert {(sequence, failure.kind) for sequence, failure in result.failures} == {(BAD, FailureKind.REJECTED)}
    assert result.sampled.sequences == [GOOD]


def test_scores_nobody_can_give(shard: Shard) -> None:
    """Of a prompt that is not known, and of too many best tokens."""
    many = replace(new(BAD), prompt_num_top=HUGE)
    scored = RowFlag.SCORE | RowFlag.SAMPLE | RowFlag.RESET_BLOCKS
    rows = replace(rows_of([prefill(GOOD, 3), prefill(BAD, 5)]), flags_R=ints([scored, scored]))
    result = shard.step(plan(rows, new_sequences=[new(GOOD), many]))
    assert {(sequence, failure.kind) for sequence, failure in result.failures} == {(BAD, FailureKind.REJECTED)}
    assert (result.sampled.sequences, result.scores) == ([GOOD], [])


def test_a_failed_sequence_stays_failed_until_it_is_forgotten(shard: Shard) -> None:
    driver = Driver(shard)
    driver.step([prefill(BAD, 512)], new_sequences=[new(BAD)])
    assert [sequence for sequence, _ in driver.step([prefill(BAD, 5)]).failures] == [BAD]
    assert driver.step([], forget_sequences=[BAD]).failures == []
    assert driver.step([prefill(BAD, 5)], new_sequences=[new(BAD)]).sampled.sequences == [BAD]


def test_an_image_with_another_number_of_tokens(shard: Shard) -> None:
    shard.images.put(image(1, num_tokens=IMAGE_TOKENS - 1))
    row = Row(BAD, 0, IMAGE[1:], [5, 6, 7], spans=[SpanEntry(0, len(IMAGE) - 1, 0, key(1))])
    rows = rows_of([row, prefill(GOOD, 3)])
    result = shard.step(plan(rows, new_sequences=[new(GOOD), new(BAD)], encode_images=[EncodeImage(key(1), 0)]))
    ((sequence, failure),) = result.failures
    assert (sequence, failure.kind) == (BAD, FailureKind.IMAGE)
    assert str(IMAGE_TOKENS - 1) in failure.message and str(IMAGE_TOKENS) in failure.message
    assert result.sampled.sequences == [GOOD]


def test_pixels_that_never_came(shard: Shard) -> None:
    row = Row(BAD, 0, IMAGE, [5, 6, 7], spans=[SpanEntry(0, IMAGE_TOKENS, 0, key(8))])
    request = EncodeImage(key(8), 0)
    result = shard.step(plan(rows_of([row]), new_sequences=[new(BAD)], encode_images=[request]))
    assert [(sequence, failure.kind) for sequence, failure in result.failures] == [(BAD, FailureKind.REJECTED)]


def test_scores_that_are_not_finite_end_one_sequence(
    shard: Shard, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = shard.model.logits

    def poisoned(hidden: torch.Tensor) -> torch.Tensor:
        scores = logits(hidden)
        scores[1] = float("nan")
        return scores

    monkeypatch.setattr(shard.model, "logits", poisoned)
    result = beside(shard, prefill(BAD, 5))
    assert [(sequence, failure.kind) for sequence, failure in result.failures] == [(BAD, FailureKind.NUMERIC)]
    assert result.sampled.sequences == [GOOD, GOOD + 10]
    assert result.sampled.token_ids == [wanted, wanted]


def test_a_block_left_full_of_nan_does_not_poison_its_next_owner(shard: Shard, wanted: int) -> None:
    runner = shard._runner
    assert runner is not None
    with torch.inference_mode():
        runner._kv_cache.tensor[:, :, :512] = float("nan")
    result = beside(shard, Row(BAD, 0, [7] * 20, [8, 9], reset=True))
    assert result.failures == []
    assert result.sampled.token_ids[0] == wanted
    decode = [Row(GOOD, 4, None), Row(BAD, 20, None)]
    assert shard.step(plan(rows_of(decode), 1)).failures == []
    with torch.inference_mode():
        runner._kv_cache.tensor.zero_()


def test_a_failing_kernel_ends_the_step_and_not_the_shard(
    shard: Shard, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("a kernel")

    with monkeypatch.context() as patch:
        patch.setattr(shard.model, "forward", broken)
        result = beside(shard, prefill(BAD, 5))
    assert {failure.kind for _, failure in result.failures} == {FailureKind.INTERNAL}
    assert len(result.failures) == 3
    assert Driver(shard).generate([Prompt(PROMPT)], 1) == [[wanted]]


@pytest.mark.parametrize(("num_rows", "num_tokens"), [(33, 1), (1, 513)])
def test_a_plan_beyond_the_promised_step(shard: Shard, num_rows: int, num_tokens: int) -> None:
    rows = rows_of([prefill(sequence, 5, [7] * num_tokens) for sequence in range(num_rows)])
    with pytest.raises(PlanRefused):
        shard.step(plan(rows))


@pytest.mark.parametrize(
    "change",
    [{"block_size": 7}, {"max_sequence_tokens": 4096}, {"max_sequence_tokens": 0}, {"max_rows": 0}],
)
def test_a_warm_up_that_cannot_be_promised(shard: Shard, change: dict[str, int]) -> None:
    with pytest.raises(PlanRefused):
        shard.warm_up(warm_up(**change))


NUMBERS = st.one_of(st.integers(0, 40), st.sampled_from([511, 512, 2303, 2304, HUGE]))


@st.composite
def hostile_rows(draw: st.DrawFn) -> Row:
    count = draw(st.integers(0, 20))
    token_ids = draw(st.one_of(st.none(), st.lists(NUMBERS, min_size=count, max_size=count)))
    span = st.builds(SpanEntry, NUMBERS, NUMBERS, NUMBERS, st.sampled_from([key(1), key(9)]))
    return Row(
        sequence=draw(st.sampled_from([BAD, BAD + 1, GOOD, 99])),
        start=draw(NUMBERS),
        token_ids=token_ids,
        new_blocks=draw(st.lists(NUMBERS, max_size=40)),
        sample=draw(st.booleans()),
        reset=draw(st.booleans()),
        spans=draw(st.lists(span, max_size=3)),
        both_ways=draw(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=2)),
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bad=st.lists(hostile_rows(), max_size=4))
def test_no_plan_breaks_the_shard(shard: Shard, wanted: int, bad: list[Row]) -> None:
    shard.reset_sequences()
    shard.images.clear()
    shard.images.put(image(1))
    rows = rows_of([prefill(50, 500), *bad])
    sequences = [new(sequence) for sequence in (50, GOOD, BAD, BAD + 1)]
    result = shard.step(plan(rows, new_sequences=[*sequences], encode_images=[EncodeImage(key(1), 0)]))
    answers = dict(zip(result.sampled.sequences, result.sampled.token_ids, strict=True))
    if not any(500 in row.new_blocks for row in bad):
        assert answers[50] == wanted
    told = {sequence for sequence, _ in result.failures} | set(result.sampled.sequences)
    assert told >= {row.sequence for row in bad if row.sample}
    assert np.isfinite(result.sampled.logprobs).all()
