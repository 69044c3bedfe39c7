"""Token embedding and output head, both cut along the vocabulary.

A vocabulary that does not divide is padded: the last rank's spare rows are zero and never looked up or sampled.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.distributed import Ranks
from text_generation_server.layers.linear import Linear
from text_generation_server.weights import Weights


def vocabulary_rows(weights: Weights, ranks: Ranks, name: str, shape: tuple[int, int]) -> Tensor:
    """This rank's rows of a matrix with one row a token, zero-padded to the common share."""
    share = -(-shape[0] // ranks.world_size)
    start = min(ranks.rank * share, shape[0])
    stop = min(start + share, shape[0])
    rows = weights.rows(name, shape, start, stop)
    return F.pad(rows, (0, 0, 0, share - len(rows))) if len(rows) < share else rows


class TokenEmbedding:
    """Looks up the rows this rank holds and adds up the ranks, then multiplies by `scale`."""

    def __init__(self, weight_VH: Tensor, ranks: Ranks, scale: float = 1.0) -> None:
        self.weight_VH = weight_VH
        # In the weights' precision, as the models of the line were trained.
        self._scale = None if scale == 1.0 else torch.tensor(scale, dtype=weight_VH.dtype, device=weight_VH.device)
        self._ranks = ranks
        self._first = ranks.rank * len(weight_VH)

    def __call__(self, token_ids_T: Tensor) -> Tensor:
        hidden_TH = self._look_up(token_ids_T)
        return hidden_TH if self._scale is None else hidden_TH * self._scale

    def _look_up(self, token_ids_T: Tensor) -> Tensor:
        if self._ranks.world_size == 1:
            return F.embedding(token_ids_T, self.weight_VH)
        local_T = token_ids_T - self._first
        absent_T = (local_T < 0) | (local_T >= len(self.weight_VH))
        hidden_TH = F.embedding(local_T.masked_fill(absent_T, 0), self.weight_VH)
        return self._ranks.sum(hidden_TH.masked_fill_(absent_T[:, None], 0))


class OutputHead:
    """Logits of the whole vocabulary, on every rank."""

    def __init__(self, weight_VH: Tensor, ranks: Ranks, vocab_size: int, softcap: float | None) -> None:
        self._linear = Linear(weight_VH)
        self._ranks = ranks
        self._vocab_size = vocab_size
        self._softcap = softcap

    def __call__(self, hidden_RH: Tensor) -> Tensor:
        logits_RV = self._ranks.concatenate(self._linear(hidden_RH))[:, : self._vocab_size].float()
        if self._softcap is None:
            return logits_RV
        return torch.tanh(logits_RV / self._softcap) * self._softcap
