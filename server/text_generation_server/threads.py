"""How many CPU cores a piece of work gets.

Decoding a small model reads weights that stay in cache: a second thread only waits, and takes the core the router
needs. Encoding images and long prompts is arithmetic, which every core shortens.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from text_generation_server.config import ShardConfig

CACHED_WEIGHT_BYTES = 64 << 20
"""Weights up to this size stay in cache from step to step."""

MIN_WIDE_TOKENS = 64
"""Steps of this many tokens are bound by arithmetic, not by reading weights."""


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
