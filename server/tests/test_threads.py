"""How many cores each kind of work gets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from text_generation_server.config import ShardConfig
from text_generation_server.threads import CACHED_WEIGHT_BYTES, Threads


@pytest.mark.parametrize(
    ("cores", "flags", "weight_bytes", "expected"),
    [
        (8, {}, CACHED_WEIGHT_BYTES, Threads(7, 8)),
        (8, {}, CACHED_WEIGHT_BYTES + 1, Threads(8, 8)),
        (8, {"world_size": 4}, 1, Threads(1, 2)),
        (2, {"world_size": 4}, 1, Threads(1, 1)),
        (8, {"num_threads": 3}, 1, Threads(3, 3)),
    ],
)
def test_decoding_leaves_a_core_only_where_weights_stay_in_cache(
    monkeypatch: pytest.MonkeyPatch, cores: int, flags: dict[str, Any], weight_bytes: int, expected: Threads
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    config = ShardConfig(prepared=Path("p"), socket=Path("s"), **flags)
    assert Threads.choose(config, weight_bytes) == expected


def test_work_gets_what_it_was_given() -> None:
    def seen() -> list[int]:
        numbers = []
        for wide in (True, False, True):
            Threads(1, 2).use(wide=wide)
            numbers.append(torch.get_num_threads())
        return numbers

    # In a thread of its own, as in a shard: the setting is the thread's.
    assert ThreadPoolExecutor(1).submit(seen).result() == [2, 1, 2]
