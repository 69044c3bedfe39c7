"""What a plan's bytes mean, where the two languages could read them differently."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from text_generation_server.pb import shard_pb2 as pb
from text_generation_server.wire import MalformedPlan, parse_plan


def plan(positions: Sequence[int]) -> pb.StepPlan:
    """Two rows, of two tokens and of the one sampled last."""
    return pb.StepPlan(
        row_sequence=[1, 2],
        row_num_tokens=[2, 1],
        row_start=[0, 5],
        row_flags=[0, pb.ROW_FLAG_USE_SAMPLED_TOKEN],
        row_num_new_blocks=[0, 0],
        token_ids=np.array([10, 11], "<u4").tobytes(),
        positions=np.array(positions, "<i4").tobytes(),
    )


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([], None),
        ([0, 1, 9], [[0, 1, 9]] * 3),
        ([0, 1, 9, 2, 3, 9, 4, 5, 9], [[0, 1, 9], [2, 3, 9], [4, 5, 9]]),
    ],
)
def test_one_run_of_positions_serves_every_axis(positions: list[int], expected: list[list[int]] | None) -> None:
    parsed = parse_plan(plan(positions), 3).rows.positions_AT
    assert (None if parsed is None else parsed.tolist()) == expected


@pytest.mark.parametrize("count", [1, 2, 4, 6, 10])
def test_any_other_number_of_positions_is_malformed(count: int) -> None:
    with pytest.raises(MalformedPlan, match="positions"):
        parse_plan(plan([0] * count), 3)


def test_a_sampled_row_takes_no_token_id() -> None:
    assert parse_plan(plan([]), 3).rows.token_ids_T.tolist() == [10, 11, 0]


def test_ranges_name_their_row() -> None:
    message = plan([])
    assert list(parse_plan(message, 1).rows.both_ways) == []
    message.both_ways_row[:], message.both_ways_offset[:], message.both_ways_length[:] = [0, 1], [1, 0], [1, 1]
    assert list(parse_plan(message, 1).rows.both_ways) == [(0, 1, 1), (1, 0, 1)]


@pytest.mark.parametrize("columns", [([0], [1], []), ([], [1], [1]), ([2], [0], [1])])
def test_ranges_of_no_row_are_malformed(columns: tuple[list[int], list[int], list[int]]) -> None:
    message = plan([])
    message.both_ways_row[:], message.both_ways_offset[:], message.both_ways_length[:] = columns
    with pytest.raises(MalformedPlan, match="both_ways|range"):
        parse_plan(message, 1)


def test_biases_belong_to_their_tokens() -> None:
    message = plan([])
    ids = np.array([7, 300], "<u4").tobytes()
    message.new_sequences.add(id=1, sampling=pb.Sampling(logit_bias_token_ids=ids, logit_bias=[1.5, -100.0]))
    assert parse_plan(message, 1).new_sequences[0].sampling.logit_bias == ((7, 1.5), (300, -100.0))
    message.new_sequences[0].sampling.logit_bias.append(0.5)
    with pytest.raises(MalformedPlan, match="logit_bias"):
        parse_plan(message, 1)
