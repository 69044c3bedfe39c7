"""What the model says of a prompt's own tokens: how probable each is after those before it.

Always from the model's own logits, whatever a sequence asks of its sampler.

Suffixes: P tokens of a piece, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from text_generation_server.plan import Ints, NewSequence, PromptScores
from text_generation_server.transfers import Transfers

PIECE_SCORES = 1 << 24
"""Logits that are held at once. A long chunk of a model with a large vocabulary has more than memory should bear."""

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A row whose tokens score the next one of the prompt."""

    sequence: int
    slot: int
    start: int
    """Index in the sequence of the row's first token."""
    first: int
    """Index of that token among those of the step."""
    num_tokens: int


@dataclass(frozen=True, slots=True)
class _Prompt:
    token_ids: Ints
    num_top: int


@dataclass(frozen=True, slots=True)
class _Part:
    """What a row scores: `count` tokens of its prompt. The last token of a prompt has no next one."""

    row: ScoredRow
    prompt: _Prompt
    count: int

    @property
    def hidden(self) -> range:
        return range(self.row.first, self.row.first + self.count)

    @property
    def targets(self) -> Ints:
        return self.prompt.token_ids[self.row.start + 1 :][: self.count]


class PromptScorer:
    """The prompts that are to be scored, by slot."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._tokens_a_piece = max(1, PIECE_SCORES // vocab_size)
        self._transfers = Transfers(device)
        self._prompts: dict[int, _Prompt] = {}

    def learn(self, slot: int, new: NewSequence) -> None:
        """Starts a slot anew."""
        self.forget(slot)
        if new.prompt_num_top is not None:
            self._prompts[slot] = _Prompt(new.prompt_token_ids.copy(), new.prompt_num_top)

    def forget(self, slot: int) -> None:
        """Drops what a slot holds."""
        self._prompts.pop(slot, None)

    def score(self, rows: Sequence[ScoredRow], hidden_TH: Tensor, logits: Logits) -> list[PromptScores]:
        """The scores of each row that has any. Every rank must call it: `logits` may be spread over them."""
        parts = list(self._parts(rows))
        if not parts:
            return []
        hidden = np.concatenate([np.arange(part.hidden.start, part.hidden.stop) for part in parts])
        placed = self._transfers.place({"hidden": hidden, "targets": np.concatenate([part.targets for part in parts])})
        most = max(part.prompt.num_top for part in parts)
        pieces = zip(*(torch.split(indices, self._tokens_a_piece) for indices in placed.values()), strict=True)
        columns = [_columns(logits(hidden_TH.index_select(0, piece)), wanted, most) for piece, wanted in pieces]
        return list(_of_parts(parts, torch.from_numpy(self._transfers.fetch(torch.cat(columns)).wait())))

    def _parts(self, rows: Sequence[ScoredRow]) -> Iterator[_Part]:
        for row in rows:
            prompt = self._prompts.get(row.slot)
            if prompt is not None and row.start + 1 < len(prompt.token_ids):
                yield _Part(row, prompt, min(row.num_tokens, len(prompt.token_ids) - 1 - row.start))


def _columns(logits_PV: Tensor, targets_P: Tensor, most: int) -> Tensor:
    """Log-probability of each target, then the best ids, then theirs. Float64 holds all of them exactly."""
    logprobs_PV = torch.log_softmax(logits_PV, -1)
    best = logprobs_PV.topk(min(most, logprobs_PV.shape[-1]), -1)
    columns = (logprobs_PV.gather(-1, targets_P[:, None]), best.indices, best.values)
    return torch.cat([column.double() for column in columns], -1)


def _of_parts(parts: Sequence[_Part], columns: Tensor) -> Iterator[PromptScores]:
    width = (columns.shape[1] - 1) // 2
    for part, rows in zip(parts, torch.split(columns, [part.count for part in parts]), strict=True):
        num_top = min(part.prompt.num_top, width)
        yield PromptScores(
            sequence=part.row.sequence,
            first=part.row.start + 1,
            logprobs=rows[:, 0].tolist(),
            num_top=num_top,
            top_token_ids=rows[:, 1 : 1 + num_top].long().flatten().tolist(),
            top_logprobs=rows[:, 1 + width : 1 + width + num_top].flatten().tolist(),
        )
