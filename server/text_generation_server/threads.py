"""How many CPU cores a piece of work gets, and how much stack.

Decoding a small model reads weights that stay in cache: a second thread only waits, and takes the core the router
needs. Encoding images and long prompts is arithmetic, which every core shortens.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from text_generation_server.config import ShardConfig

CACHED_WEIGHT_BYTES = 64 << 20
"""Weights up to this size stay in cache from step to step."""

MIN_WIDE_TOKENS = 64
"""Steps of this many tokens are bound by arithmetic, not by reading weights."""

STACK_BYTES = 128 << 20
"""llguidance calls itself for each level of a grammar. Only what is used of it is ever in memory."""


@dataclass
class Threads:
    """Cores for each kind of work. Belongs to the one thread that computes: the setting is torch's, for that thread."""

    narrow: int
    wide: int

    @staticmethod
    def choose(config: ShardConfig, weight_bytes: int) -> Threads:
        """All cores of this rank's share; decoding leaves one to the router where the weights stay in cache."""
        if config.num_threads:
            return Threads(config.num_threads, config.num_threads)
        share = max(1, len(os.sched_getaffinity(0)) // config.world_size)
        return Threads(share if weight_bytes > CACHED_WEIGHT_BYTES else max(1, share - 1), share)

    def use(self, *, wide: bool) -> None:
        """Sets what the next operations of this thread get."""
        wanted = self.wide if wide else self.narrow
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)


def deep_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Threads with `STACK_BYTES` each. All of them start at once, so that no other thread gets that stack."""
    workers, everybody = ThreadPoolExecutor(count, name), threading.Barrier(count)
    usual = threading.stack_size(STACK_BYTES)
    try:
        for _ in range(count):
            workers.submit(everybody.wait)
    finally:
        threading.stack_size(usual)
    return workers
