"""Small sums over shared memory, with threads for ranks and a stand-in for the operation of GPUs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from text_generation_server import one_shot
from text_generation_server.distributed import Ranks
from text_generation_server.one_shot import MAX_BYTES, OneShot, is_right, meet

CPU = torch.device("cpu")
NUM_RANKS = 4


class Shared:
    """Memory of several ranks that all of them can read."""

    def __init__(self, wrong: bool = False) -> None:
        self._parts: list[Tensor] = [torch.empty(0)] * NUM_RANKS
        self._barrier = Barrier(NUM_RANKS, timeout=30)
        self._wrong = wrong
        self.sums = 0

    def of(self, rank: int) -> OneShot:
        def add_up(part: Tensor) -> Tensor:
            self._parts[rank] = part
            self._barrier.wait()
            total = torch.stack(self._parts).sum(0) + int(self._wrong and rank == 1)
            self.sums += rank == 0
            self._barrier.wait()
            return total

        return OneShot(torch.zeros(MAX_BYTES, dtype=torch.uint8), add_up)


def on_every_rank(work: Callable[[int], object]) -> list[object]:
    with ThreadPoolExecutor(NUM_RANKS) as threads:
        return list(threads.map(work, range(NUM_RANKS)))


@pytest.mark.parametrize("dtype", one_shot.TYPES)
def test_every_rank_gets_the_sum(dtype: torch.dtype) -> None:
    parts = torch.arange(NUM_RANKS * 3 * 8).view(NUM_RANKS, 3, 8).to(dtype)
    shared = Shared()

    def add_twice(rank: int) -> Tensor:
        ranks = Ranks(rank, NUM_RANKS, shared.of(rank))
        ranks.sum(parts[rank].clone())
        return ranks.sum(parts[rank].t().contiguous().t() if rank else parts[rank].clone())

    for total in on_every_rank(add_twice):
        assert torch.equal(torch.as_tensor(total), parts.sum(0))
    assert shared.sums == 2


@pytest.mark.parametrize(
    ("size", "dtype", "takes"),
    [
        (MAX_BYTES // 2, torch.bfloat16, True),
        (MAX_BYTES // 2 + 8, torch.bfloat16, False),
        (MAX_BYTES // 4, torch.float32, True),
        (4, torch.float32, True),
        (4, torch.bfloat16, False),
        (3, torch.float32, False),
        (0, torch.float32, False),
        (8, torch.float16, False),
        (8, torch.int64, False),
    ],
)
def test_what_is_left_to_nccl(size: int, dtype: torch.dtype, takes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Tensor] = []
    monkeypatch.setattr(dist, "all_reduce", left.append)
    ranks = Ranks(0, 2, OneShot(torch.zeros(MAX_BYTES, dtype=torch.uint8), lambda part: part * 2))
    given = torch.ones(size, dtype=dtype)
    total = ranks.sum(given)
    assert [one is given for one in left] == ([] if takes else [True])
    assert torch.equal(total, torch.full_like(given, 2 if takes else 1))


@pytest.mark.parametrize("wrong", [False, True])
def test_a_wrong_sum_is_found_before_anything_depends_on_it(wrong: bool) -> None:
    shared = Shared(wrong)
    found = on_every_rank(lambda rank: is_right(shared.of(rank), rank, NUM_RANKS, CPU))
    assert found == [True, not wrong, True, True]


@pytest.mark.parametrize(
    ("outcomes", "line"),
    [
        ((True, True, True), "sums of up to 256 KiB are made in one shot, larger ones by NCCL"),
        ((False, True, True), "all sums are made by NCCL: not every GPU can read the memory of the others"),
        ((True, False, True), "all sums are made by NCCL: the ranks cannot share memory"),
        ((True, True, False), "all sums are made by NCCL: its sums are wrong here"),
    ],
)
def test_one_line_says_which_it_is(
    outcomes: tuple[bool, bool, bool], line: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of GPUs that can read each other's memory, ranks that share it, and sums that are right."""
    peers, opens, right = outcomes
    shared = OneShot(torch.zeros(MAX_BYTES, dtype=torch.uint8), lambda part: part)
    monkeypatch.setattr(one_shot, "_all_are_peers", lambda _: peers)
    monkeypatch.setattr(one_shot, "_opened", lambda _: shared if opens else None)
    monkeypatch.setattr(one_shot, "_all_agree", lambda answer, _: answer)
    # One rank's own sum is what it gave.
    with caplog.at_level(logging.INFO):
        found = meet(0, 1 if right else 2, CPU)
    assert (found is shared) == all(outcomes)
    assert caplog.messages == [line]


def test_a_rank_that_cannot_is_reason_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    votes: list[int] = []

    def one_says_no(vote: Tensor, op: object) -> None:
        assert op == dist.ReduceOp.MIN
        votes.append(int(vote))
        vote.fill_(0)

    monkeypatch.setattr(dist, "all_reduce", one_says_no)
    monkeypatch.setattr(one_shot, "_all_are_peers", lambda _: True)
    assert meet(0, 2, CPU) is None
    assert votes == [1, 0]
