"""When the parts of a step began and ended: asked for by plans, said by results, on the clock that the router reads."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from driver import Driver, Prompt, rows_of

from text_generation_server import wire
from text_generation_server.pb import shard_pb2 as pb
from text_generation_server.plan import EncodeImage, NewSequence, Rows, SampledTokens, Sampling, StepPlan, StepResult
from text_generation_server.shard import Shard
from text_generation_server.times import Part, StepTimes, now

PROMPT = Prompt.of([5, 6], 3, [7])


def plan(rows: Rows, **fields: Any) -> StepPlan:
    """A plan that asks for times."""
    nothing: dict[str, Any] = {
        name: [] for name in ("forget_sequences", "forget_images", "new_sequences", "encode_images")
    }
    return StepPlan(1, 0, rows=rows, times=StepTimes(), **(nothing | fields))


def timed(driver: Driver, plan: StepPlan) -> list[Part]:
    """The parts of a step, which must follow each other within the time that it took."""
    began = now()
    answer = wire.result_message(driver.shard.step(plan))
    assert not answer.failures
    spans = zip(answer.part_began_ns, answer.part_ended_ns, strict=True)
    moments = [began, *(moment for span in spans for moment in span), now()]
    assert moments == sorted(moments)
    return [Part(part) for part in answer.part]


def test_the_clock_is_that_of_the_machine() -> None:
    assert "CLOCK_MONOTONIC" in time.get_clock_info("perf_counter").implementation
    assert abs(now() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)) < 100_000_000


def test_a_plan_that_is_not_timed_says_nothing(shard: Shard) -> None:
    parsed = wire.parse_plan(pb.StepPlan(epoch=1, step=0), 1)
    assert parsed.times is None
    answer = wire.result_message(shard.step(parsed))
    assert not (answer.part or answer.part_began_ns or answer.part_ended_ns)


def test_every_part_of_a_step_is_said(driver: Driver) -> None:
    for image in PROMPT.images.values():
        driver.shard.images.put(image)
    new = [NewSequence(1, Sampling(), np.array(PROMPT.token_ids))]
    encode = [EncodeImage(key, 0) for key in PROMPT.images]
    prefill = rows_of([driver.chunk(1, PROMPT, 0, len(PROMPT.token_ids))])
    found = timed(driver, plan(prefill, new_sequences=new, encode_images=encode))
    assert found == [Part.LEARN, Part.ENCODE, Part.LAUNCH, Part.WAIT, Part.SEND]
    decode = rows_of([driver.decode(1, len(PROMPT.token_ids), PROMPT)])
    assert timed(driver, plan(decode)) == [Part.LEARN, Part.LAUNCH, Part.WAIT, Part.SEND]


def test_parsing_is_a_part() -> None:
    parsed = wire.parse_plan(pb.StepPlan(epoch=1, step=0, timed=True), 1)
    assert parsed.times is not None
    assert [part for part, _, _ in parsed.times.parts] == [Part.RECEIVE]


def test_empty_parts_are_left_out() -> None:
    times = StepTimes()
    times.add_chain(10, (Part.LEARN, 10), (Part.LAUNCH, 20), (Part.WAIT, 20))
    assert times.parts == [(Part.LAUNCH, 10, 20)]
    answer = wire.result_message(StepResult(1, 0, SampledTokens(), [], times=times))
    assert [Part(part) for part in answer.part] == [Part.LAUNCH, Part.SEND]
