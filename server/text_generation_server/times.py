"""When the parts of a step began and ended. A plan that is not timed has none, and then nothing is written down."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import IntEnum


class Part(IntEnum):
    """What a step is made of, numbered as on the wire."""

    RECEIVE = 0
    LEARN = 1
    ENCODE = 2
    LAUNCH = 3
    WAIT = 4
    SEND = 5


def now() -> int:
    """Nanoseconds of `CLOCK_MONOTONIC`, which all processes of a machine share: the router reads it too."""
    return time.perf_counter_ns()


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Parts of one step in the order of their ends. It travels with the plan, then with the result."""

    parts: list[tuple[Part, int, int]] = field(default_factory=list)

    def add(self, part: Part, began_ns: int, ended_ns: int) -> None:
        """Writes a part down."""
        self.parts.append((part, began_ns, ended_ns))

    def add_chain(self, began_ns: int, *ends_ns: tuple[Part, int]) -> None:
        """Parts that follow each other without a gap; empty ones are left out."""
        for part, ended_ns in ends_ns:
            if ended_ns > began_ns:
                self.add(part, began_ns, ended_ns)
                began_ns = ended_ns
