"""Runs the rows of plans over state that the warm-up sized: block tables, KV cache, sampler.

Everything here belongs to one thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from text_generation_server.attention.base import AttentionBackend
from text_generation_server.batch import Batch, FindImage, Limits, pack
from text_generation_server.config import WatermarkConfig
from text_generation_server.cuda_graphs import Captured, DecodeGraphs, Recorder
from text_generation_server.distributed import Ranks
from text_generation_server.grammar import Allowed, Grammars, GuidedSlots
from text_generation_server.kv_cache import KvCache
from text_generation_server.merge import merge
from text_generation_server.models import Model
from text_generation_server.plan import (
    Failure,
    FailureKind,
    Ints,
    NewSequence,
    PromptScores,
    Rows,
    SampledTokens,
    WarmupRequest,
)
from text_generation_server.sampler import Choice, Sampler
from text_generation_server.scoring import PromptScorer
from text_generation_server.sequences import SequenceTable, TooManySequences
from text_generation_server.transfers import Transfers
from text_generation_server.validation import check_sequence

Failures = list[tuple[int, Failure]]

NOT_FINITE = Failure(FailureKind.NUMERIC, "the model's scores are not finite")
GRAMMAR_LOST = Failure(FailureKind.INTERNAL, "the grammar became too complex, or cannot be followed any further")


@dataclass(frozen=True)
class Place:
    """What a shard is part of and works with, whatever it is warmed up for. `grammars` only on rank 0."""

    ranks: Ranks
    backend: type[AttentionBackend]
    grammars: Grammars | None
    watermark: WatermarkConfig


@dataclass(frozen=True)
class Computed:
    """What a step yields beside failures."""

    sampled: SampledTokens = field(default_factory=SampledTokens)
    scores: list[PromptScores] = field(default_factory=list)


class StepRunner:
    """The part of a shard that lives from one warm-up to the next."""

    def __init__(self, model: Model, place: Place, request: WarmupRequest, kv_cache: KvCache) -> None:
        self.request = request
        self._model = model
        self._ranks = place.ranks
        self._grammars = place.grammars
        self._watermark = place.watermark
        self._kv_cache = kv_cache
        self._transfers = Transfers(kv_cache.tensor.device)
        self._graphs: DecodeGraphs | None = None
        self._attention = place.backend(model.shape.attention, kv_cache.tensor)
        self._limits = Limits(
            vocab_size=model.shape.vocab_size,
            position_axes=model.shape.position_axes,
            max_positions=model.shape.max_positions,
            max_sequence_tokens=request.max_sequence_tokens,
            num_blocks=kv_cache.num_blocks,
            block_size=request.block_size,
        )
        self.reset()

    @property
    def waiting_ns(self) -> int:
        """When the host last began to wait for what the device sampled, as `times.now` counts."""
        return self._sampler.waiting_ns

    def capture(self, recorder: Recorder, sizes: Sequence[int], max_bytes: int) -> None:
        """Captures decode steps of these batch sizes, as far as they fit into `max_bytes`."""
        parts = Captured(self._model, self._attention, self._ranks, self._transfers)
        self._graphs = DecodeGraphs(parts, recorder, self._max_blocks)
        self._graphs.capture(sizes, max_bytes)

    def reset(self) -> None:
        """Forgets every sequence. The KV cache needs no cleaning: blocks are cleared when they are handed out."""
        self._table = SequenceTable(self._max_blocks)
        self._sampler = Sampler(self._model.shape.vocab_size, self._transfers.device, self._ranks, self._watermark)
        self._guided = GuidedSlots(self._grammars)
        self._scorer = PromptScorer(self._model.shape.vocab_size, self._transfers.device)

    def forget(self, sequences: Sequence[int]) -> None:
        """Drops sequences; unknown ones are fine."""
        for sequence in sequences:
            slot = self._table.forget(sequence)
            if slot is not None:
                self._sampler.forget(slot)
                self._guided.forget(slot)
                self._scorer.forget(slot)

    def learn(self, sequences: Sequence[NewSequence]) -> Failures:
        """Takes in new sequences; returns those that ask for something impossible."""
        failures = [(new.id, failure) for new in sequences if (failure := self._learn_one(new))]
        self._table.failures.update(failures)
        return failures

    def run(self, rows: Rows, find_image: FindImage) -> tuple[Computed, Failures]:
        """Computes the rows that can be computed, and says of every other sequence why not."""
        packed = pack(rows, self._table, find_image, self._limits)
        if packed.batch is None:
            return Computed(), packed.failures
        try:
            logits_SV, scores = self._forward(packed.batch)
            choice, allowed = self._sample(packed.batch, logits_SV)
        except RuntimeError as error:
            failure = self._survivable(error)
            failed = [(sequence, failure) for sequence in packed.sequences]
            self._table.failures.update(failed)
            return Computed(), packed.failures + failed
        sampled, failed = self._report(packed.batch, choice)
        if allowed is not None and allowed.forced:
            sequences = packed.batch.sample_sequences
            sampled.insert({sequences[row]: forced for row, forced in allowed.forced.items()})
        return Computed(sampled, scores), packed.failures + failed + self._failed_scores(scores)

    @property
    def _max_blocks(self) -> int:
        """What one sequence may own."""
        return -(-self.request.max_sequence_tokens // self.request.block_size)

    def _learn_one(self, new: NewSequence) -> Failure | None:
        problem = check_sequence(new, self._limits.vocab_size)
        if problem is not None:
            return Failure(FailureKind.REJECTED, problem)
        try:
            slot = self._table.add(new.id)
        except TooManySequences:
            return Failure(FailureKind.OUT_OF_MEMORY, "too many sequences are alive")
        self._sampler.learn(slot, new.sampling, new.prompt_token_ids)
        self._guided.learn(slot, new.grammar, new.sampling.may_skip, new.max_new_tokens)
        self._scorer.learn(slot, new)
        return None

    def _forward(self, batch: Batch) -> tuple[Tensor | None, list[PromptScores]]:
        """The logits of the tokens that sample, None when there are none, and the scores of prompts."""
        if len(batch.new_blocks):
            self._kv_cache.clear(self._transfers.one(batch.new_blocks))
        size = None if self._graphs is None else self._graphs.size_for(batch)
        if self._graphs is not None and size is not None:
            return self._graphs.replay(batch, size, self._reused), []
        names = ("token_ids_T", "positions_AT", "slots_T", "sample_tokens")
        placed = self._transfers.place({name: getattr(batch, name) for name in names})
        hidden_TH, added = merge(self._model.embed(self._token_ids(batch, placed["token_ids_T"])), batch.spans)
        self._attention.begin_step(batch.layout(placed["slots_T"]))
        hidden_TH = self._model.forward(hidden_TH, placed["positions_AT"], self._attention, added)
        scores = self._scorer.score(batch.scored, hidden_TH, self._model.logits)
        if not batch.sample_sequences:
            return None, scores
        # The head is the largest matrix of a small model; only tokens that sample pay for it.
        return self._model.logits(hidden_TH.index_select(0, placed["sample_tokens"])), scores

    def _sample(self, batch: Batch, logits_SV: Tensor | None) -> tuple[Choice | None, Allowed | None]:
        if logits_SV is None:
            return None, None
        allowed = self._guided.allowed(batch.sample_slots, batch.sample_positions)
        places = (batch.sample_slots, batch.sample_positions)
        choice = self._sampler.sample(logits_SV, *places, allowed, self._before(batch))
        self._guided.accept(batch.sample_slots, batch.sample_positions, choice.token_ids, choice.good)
        return choice, allowed

    def _reused(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Which tokens of the step were sampled last, and what they are."""
        if not len(batch.reused_tokens):
            return None
        placed = self._transfers.place({"tokens": batch.reused_tokens, "slots": batch.reused_slots})
        return placed["tokens"], self._sampler.last_tokens(placed["slots"])

    def _token_ids(self, batch: Batch, token_ids_T: Tensor) -> Tensor:
        reused = self._reused(batch)
        if reused is None:
            return token_ids_T
        tokens, last = reused
        return last if len(last) == len(token_ids_T) else token_ids_T.index_copy(0, tokens, last)

    def _before(self, batch: Batch) -> Ints:
        """The token that each sampled one follows."""
        token_ids_T = batch.token_ids_T.copy()
        token_ids_T[batch.reused_tokens] = self._sampler.known_tokens(batch.reused_slots)
        return token_ids_T[batch.sample_tokens]

    def _report(self, batch: Batch, choice: Choice | None) -> tuple[SampledTokens, Failures]:
        if choice is None:
            return SampledTokens(), []
        self._table.has_sampled[batch.sample_slots] = True
        good = choice.good
        if good.all():
            return _sampled(batch.sample_sequences, choice), []
        rows = list(zip(batch.sample_sequences, choice.finite.tolist(), choice.lost.tolist(), strict=True))
        failures = [
            (sequence, GRAMMAR_LOST if lost else NOT_FINITE) for sequence, finite, lost in rows if lost or not finite
        ]
        self._table.failures.update(failures)
        kept = [sequence for sequence, finite, lost in rows if finite and not lost]
        return _sampled(kept, choice.of_rows(good)), failures

    def _failed_scores(self, scores: list[PromptScores]) -> Failures:
        failures = [(row.sequence, NOT_FINITE) for row in scores if not all(map(math.isfinite, row.logprobs))]
        self._table.failures.update(failures)
        return failures

    def _survivable(self, error: RuntimeError) -> Failure:
        # A rank that went on alone would leave the others waiting in a collective, and a lost device comes back only
        # with a new process.
        if self._ranks.world_size > 1 or isinstance(error, torch.AcceleratorError):
            raise error
        if isinstance(error, torch.OutOfMemoryError):
            return Failure(FailureKind.OUT_OF_MEMORY, "there is no memory for this step")
        return Failure(FailureKind.INTERNAL, "the step failed")


def _first(choice: Choice) -> NDArray[np.bool_]:
    """Which entries of the top tokens were asked for."""
    wanted: NDArray[np.bool_] = np.arange(choice.top_token_ids.shape[1]) < choice.num_top[:, None]
    return wanted


def _sampled(sequences: list[int], choice: Choice) -> SampledTokens:
    counts = choice.num_top.tolist()
    return SampledTokens(
        sequences=sequences,
        token_ids=choice.token_ids.tolist(),
        logprobs=choice.logprobs.tolist(),
        num_top=counts,
        top_token_ids=choice.top_token_ids[_first(choice)].tolist(),
        top_logprobs=choice.top_logprobs[_first(choice)].tolist(),
    )
