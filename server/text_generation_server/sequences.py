"""What a shard remembers of each sequence between plans: its blocks, its length, and whether it has failed.

Sequences sit in numbered slots, so that a step gathers them with one index instead of a loop.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from text_generation_server.plan import Failure

MAX_SEQUENCES = 1 << 16
"""Slots at most; a router that forgets to forget is told, not obeyed."""

FIRST_CAPACITY = 64


class TooManySequences(Exception):
    """Every slot is taken."""


class SequenceTable:
    """Slots of living sequences, and the failures of dead ones until they are forgotten."""

    def __init__(self, max_blocks: int) -> None:
        """`max_blocks` is what one sequence may own."""
        self.blocks = np.zeros((FIRST_CAPACITY, max_blocks), dtype=np.int32)
        self.num_blocks = np.zeros(FIRST_CAPACITY, dtype=np.int64)
        self.lengths = np.zeros(FIRST_CAPACITY, dtype=np.int64)
        self.has_sampled = np.zeros(FIRST_CAPACITY, dtype=np.bool_)
        self.failures: dict[int, Failure] = {}
        self._slots: dict[int, int] = {}
        self._free = list(range(FIRST_CAPACITY))

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, sequence: int) -> int:
        """Gives a sequence a slot. Naming it again starts it anew."""
        self.failures.pop(sequence, None)
        slot = self._slots.get(sequence)
        if slot is None:
            slot = self._slots[sequence] = self._take_slot()
        self.num_blocks[slot] = self.lengths[slot] = 0
        self.has_sampled[slot] = False
        return slot

    def forget(self, sequence: int) -> int | None:
        """Frees the slot, and returns it if there was one."""
        self.failures.pop(sequence, None)
        slot = self._slots.pop(sequence, None)
        if slot is not None:
            self._free.append(slot)
        return slot

    def slots_of(self, sequences: list[int]) -> NDArray[np.int64]:
        """The slot of each sequence, -1 where it is unknown."""
        get = self._slots.get
        return np.array([get(sequence, -1) for sequence in sequences], dtype=np.int64)

    def knows(self, sequence: int) -> bool:
        """Whether the sequence has a slot."""
        return sequence in self._slots

    def append_blocks(self, slot: int, blocks: NDArray[np.int64], reset: bool) -> None:
        """Grows a block table, or starts it anew."""
        first = 0 if reset else int(self.num_blocks[slot])
        self.blocks[slot, first : first + len(blocks)] = blocks
        self.num_blocks[slot] = first + len(blocks)

    def _take_slot(self) -> int:
        if not self._free:
            self._grow()
        return self._free.pop()

    def _grow(self) -> None:
        capacity = len(self.lengths)
        if capacity >= MAX_SEQUENCES:
            raise TooManySequences(f"{capacity} sequences are alive")
        self.blocks = np.concatenate((self.blocks, np.zeros_like(self.blocks)))
        self.num_blocks = np.concatenate((self.num_blocks, np.zeros_like(self.num_blocks)))
        self.lengths = np.concatenate((self.lengths, np.zeros_like(self.lengths)))
        self.has_sampled = np.concatenate((self.has_sampled, np.zeros_like(self.has_sampled)))
        self._free = list(range(capacity, 2 * capacity))
