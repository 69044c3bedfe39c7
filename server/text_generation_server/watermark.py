"""The soft watermark of Kirchenbauer et al. 2023 (arXiv 2301.10226): the token before decides which share of the
vocabulary is favoured, so that whoever can repeat that decision can tell the text from others.

The lists are those of the paper's own programs (`simple_1`, the hash key below) on a CPU, whatever the device of the
model, so that their detectors read them: one list for one previous token, everywhere and always.

Suffixes: S sampled rows, W watermarked ones among them, V vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from text_generation_server.config import WatermarkConfig
from text_generation_server.transfers import Transfers

HASH_KEY = 15_485_863
MAX_KEPT = 256
"""Lists that are kept, a byte a token of the vocabulary each. Drawing one takes milliseconds."""


class Watermark:
    """Favours tokens in rows that ask for it."""

    def __init__(self, config: WatermarkConfig, vocab_size: int, device: torch.device) -> None:
        self._config = config
        self._vocab_size = vocab_size
        self._transfers = Transfers(device)
        self._kept: OrderedDict[int, Tensor] = OrderedDict()

    def favour(self, scores_SV: Tensor, rows_W: Tensor, previous_W: Sequence[int]) -> None:
        """Raises the scores of the tokens that the one before each row favours, in place."""
        green_WV = torch.stack([self._green(token) for token in previous_W])
        scores_SV.index_add_(0, rows_W, green_WV.to(scores_SV.dtype), alpha=self._config.delta)

    def _green(self, previous: int) -> Tensor:
        green_V = self._kept.pop(previous, None)
        if green_V is None:
            green_V = self._transfers.one(green_list(previous, self._vocab_size, self._config.gamma).numpy())
        self._kept[previous] = green_V
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return green_V


def green_list(previous: int, vocab_size: int, gamma: float) -> Tensor:
    """[V] booleans: which tokens are favoured behind `previous`, so many that their share is `gamma`."""
    generator = torch.Generator().manual_seed(HASH_KEY * previous)
    favoured = torch.randperm(vocab_size, generator=generator)[: int(vocab_size * gamma)]
    return torch.zeros(vocab_size, dtype=torch.bool).index_fill_(0, favoured, True)
