"""Chooses the next token of every sampled row at once.

Order, as in TGI: watermark, repetition penalty, frequency and presence penalty, logit bias, banned ids, grammar,
temperature, top-k, top-p, typical-p, choice. A random number depends on (seed, position) alone, so company in a batch
changes nothing.

Suffixes: S sampled rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from text_generation_server.config import WatermarkConfig
from text_generation_server.distributed import Ranks
from text_generation_server.grammar import Allowed
from text_generation_server.plan import Ints, Sampling
from text_generation_server.times import now
from text_generation_server.transfers import Transfers
from text_generation_server.watermark import Watermark

NEG_INF = float("-inf")
FIRST_CAPACITY = 64
LOST = 1.0
"""Stands for the log-probability of a row whose grammar is lost; no other is above 0."""
RANDOM_BITS = 52
"""Fewer than float64 holds, so that a uniform number times a total stays below the total."""

SETTINGS = np.dtype(
    [
        ("plain", np.bool_),
        ("greedy", np.bool_),
        ("raw_logprobs", np.bool_),
        ("penalised", np.bool_),
        ("biased", np.bool_),
        ("banning", np.bool_),
        ("watermarked", np.bool_),
        ("temperature", np.float32),
        ("top_k", np.int64),
        ("top_p", np.float32),
        ("typical_p", np.float32),
        ("num_top", np.int64),
        ("seed", np.uint64),
    ]
)


@dataclass
class Counts:
    """How often a penalised sequence has seen each token, and what it pays for that."""

    prompt_V: Tensor
    output_V: Tensor
    sampling: Sampling


@dataclass(frozen=True)
class Choice:
    """What each row chose, on the host. `top` arrays are [S, most top tokens], best first."""

    token_ids: Ints
    logprobs: NDArray[np.float64]
    finite: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    """Whether the row's grammar could not say what may come."""
    num_top: Ints
    top_token_ids: Ints
    top_logprobs: NDArray[np.float64]

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which rows hold a token that counts."""
        good: NDArray[np.bool_] = self.finite & ~self.lost
        return good

    def of_rows(self, keep_S: NDArray[np.bool_]) -> Choice:
        """The same, for some of the rows."""
        return Choice(*(getattr(self, column.name)[keep_S] for column in fields(self)))


class Sampler:
    """Sampling state by slot. The last token of each slot stays on the device, and is known to the host."""

    def __init__(
        self, vocab_size: int, device: torch.device, ranks: Ranks, watermark: WatermarkConfig | None = None
    ) -> None:
        self._watermark = Watermark(watermark or WatermarkConfig(), vocab_size, device)
        self._vocab_size = vocab_size
        self._device = device
        self._transfers = Transfers(device)
        self._ranks = ranks
        self._settings = np.zeros(FIRST_CAPACITY, dtype=SETTINGS)
        self._last_token = torch.zeros(FIRST_CAPACITY, dtype=torch.int64, device=self._device)
        self._known_token = np.zeros(FIRST_CAPACITY, dtype=np.int64)
        self._counts: dict[int, Counts] = {}
        self._banned: dict[int, Tensor] = {}
        self._biases: dict[int, tuple[Tensor, Tensor]] = {}
        self.waiting_ns = 0
        """When the last `sample` began to wait for the device."""

    def learn(self, slot: int, sampling: Sampling, prompt_token_ids: Ints) -> None:
        """Starts a slot anew."""
        self.forget(slot)
        while slot >= len(self._settings):
            self._grow()
        self._settings[slot] = _settings(sampling)
        if _is_penalised(sampling):
            self._counts[slot] = self._new_counts(sampling, prompt_token_ids)
        if sampling.banned_token_ids:
            self._banned[slot] = self._transfers.one(np.array(sampling.banned_token_ids, dtype=np.int64))
        if sampling.logit_bias:
            ids, biases = zip(*sampling.logit_bias, strict=True)
            tokens, added = np.array(ids, dtype=np.int64), np.array(biases, dtype=np.float32)
            self._biases[slot] = (self._transfers.one(tokens), self._transfers.one(added))

    def forget(self, slot: int) -> None:
        """Drops what a slot holds."""
        self._counts.pop(slot, None)
        self._banned.pop(slot, None)
        self._biases.pop(slot, None)

    def last_tokens(self, slots: Tensor) -> Tensor:
        """The token each slot sampled last."""
        return self._last_token.index_select(0, slots)

    def known_tokens(self, slots: Ints) -> Ints:
        """The same, on the host."""
        return self._known_token[slots]

    def sample(
        self,
        logits_SV: Tensor,
        slots_S: Ints,
        positions_S: Ints,
        allowed: Allowed | None = None,
        before_S: Ints | None = None,
    ) -> Choice:
        """Chooses, remembers, and copies back once. All ranks choose what rank 0 does, which alone knows `allowed`.

        `before_S` are the tokens that the sampled ones follow; only watermarks look at them.
        """
        settings_S = self._settings[slots_S]
        scores_SV = logits_SV
        warped_S = ~settings_S["plain"]
        if warped_S.any():
            scores_SV = logits_SV.clone()
            if before_S is not None and settings_S["watermarked"].any():
                self._mark(scores_SV, before_S, settings_S)
            scores_SV = self._warp(scores_SV, slots_S, settings_S, allowed)
        elif allowed is not None:
            scores_SV = self._mask(logits_SV.clone(), allowed)
        if allowed is not None:
            warped_S[allowed.rows_G] = True
        logprobs_SV = torch.log_softmax(scores_SV, -1)
        token_ids_S = self._choose(scores_SV, logprobs_SV, settings_S, positions_S)
        reported_SV = self._reported(logits_SV, logprobs_SV, settings_S["raw_logprobs"] & warped_S)
        packed_SP = _pack(logits_SV, reported_SV, token_ids_S, settings_S)
        if allowed is not None and allowed.lost_G.any():
            packed_SP[:, 2].index_fill_(0, self._transfers.one(allowed.rows_G[allowed.lost_G]), LOST)
        packed_SP = self._ranks.broadcast(packed_SP, 0)
        arriving = self._transfers.fetch(packed_SP)
        self._remember(slots_S, packed_SP[:, 0].long())
        self.waiting_ns = now()
        choice = _unpack(arriving.wait(), settings_S)
        self._known_token[slots_S] = choice.token_ids
        return choice

    def _choose(self, scores_SV: Tensor, logprobs_SV: Tensor, settings_S: NDArray[np.void], positions: Ints) -> Tensor:
        best_S = scores_SV.argmax(-1)
        if settings_S["greedy"].all():
            return best_S
        numbers = {"uniform": uniforms(settings_S["seed"], positions), "greedy": settings_S["greedy"]}
        placed = self._transfers.place(numbers)
        return torch.where(placed["greedy"], best_S, _draw(logprobs_SV, placed["uniform"]))

    def _remember(self, slots_S: Ints, token_ids_S: Tensor) -> None:
        self._last_token.index_copy_(0, self._transfers.one(slots_S), token_ids_S)
        if self._counts:
            self._count(slots_S, token_ids_S)

    def _count(self, slots_S: Ints, token_ids_S: Tensor) -> None:
        one = torch.ones(1, device=self._device)
        for row, slot in enumerate(slots_S.tolist()):
            if slot in self._counts:
                self._counts[slot].output_V.index_add_(0, token_ids_S[row : row + 1], one)

    def _warp(self, scores_SV: Tensor, slots_S: Ints, settings_S: NDArray[np.void], allowed: Allowed | None) -> Tensor:
        if settings_S["penalised"].any():
            self._penalise(scores_SV, slots_S, settings_S)
        for row in np.flatnonzero(settings_S["biased"]).tolist():
            ids, biases = self._biases[int(slots_S[row])]
            scores_SV[row].index_add_(0, ids, biases.to(scores_SV.dtype))
        for row in np.flatnonzero(settings_S["banning"]).tolist():
            scores_SV[row].index_fill_(0, self._banned[int(slots_S[row])], NEG_INF)
        if allowed is not None:
            scores_SV = self._mask(scores_SV, allowed)
        for name, neutral, warp in WARPERS:
            rows = np.flatnonzero(settings_S[name] != neutral)
            if len(rows):
                values = settings_S[name][rows]
                placed = self._transfers.place({"rows": rows, "values": values})
                index, values_S1 = placed["rows"], placed["values"][:, None]
                scores_SV.index_copy_(0, index, warp(scores_SV.index_select(0, index), values_S1, values.max()))
        return scores_SV

    def _mask(self, scores_SV: Tensor, allowed: Allowed) -> Tensor:
        forbidden_GV = ~allowed.unpack(self._vocab_size, self._device)
        if len(allowed.rows_G) == len(scores_SV):
            return scores_SV.masked_fill_(forbidden_GV, NEG_INF)
        rows_G = self._transfers.one(allowed.rows_G)
        masked_GV = scores_SV.index_select(0, rows_G).masked_fill_(forbidden_GV, NEG_INF)
        return scores_SV.index_copy_(0, rows_G, masked_GV)

    def _mark(self, scores_SV: Tensor, before_S: Ints, settings_S: NDArray[np.void]) -> None:
        rows_W = np.flatnonzero(settings_S["watermarked"])
        self._watermark.favour(scores_SV, self._transfers.one(rows_W), before_S[rows_W].tolist())

    def _reported(self, logits_SV: Tensor, logprobs_SV: Tensor, raw_S: NDArray[np.bool_]) -> Tensor:
        if not raw_S.any():
            return logprobs_SV
        return torch.where(self._transfers.one(raw_S)[:, None], torch.log_softmax(logits_SV, -1), logprobs_SV)

    def _penalise(self, scores_SV: Tensor, slots_S: Ints, settings_S: NDArray[np.void]) -> None:
        for row in np.flatnonzero(settings_S["penalised"]).tolist():
            scores_SV[row] = penalise(scores_SV[row], self._counts[int(slots_S[row])])

    def _new_counts(self, sampling: Sampling, prompt_token_ids: Ints) -> Counts:
        prompt_V = torch.zeros(self._vocab_size, device=self._device)
        ids = self._transfers.one(prompt_token_ids.copy())
        prompt_V.index_add_(0, ids, torch.ones(len(ids), device=self._device))
        return Counts(prompt_V, torch.zeros_like(prompt_V), sampling)

    def _grow(self) -> None:
        self._settings = np.concatenate((self._settings, np.zeros_like(self._settings)))
        self._last_token = torch.cat((self._last_token, torch.zeros_like(self._last_token)))
        self._known_token = np.concatenate((self._known_token, np.zeros_like(self._known_token)))


def _is_penalised(sampling: Sampling) -> bool:
    return (sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty) != (1.0, 0.0, 0.0)


def _settings(sampling: Sampling) -> tuple[object, ...]:
    filters = (sampling.temperature, sampling.top_k, sampling.top_p, sampling.typical_p)
    changes = (
        _is_penalised(sampling),
        bool(sampling.logit_bias),
        bool(sampling.banned_token_ids),
        sampling.watermark,
    )
    plain = sampling.greedy and filters == (1.0, 0, 1.0, 1.0) and not any(changes)
    flags = (plain, sampling.greedy, sampling.raw_logprobs, *changes)
    return (*flags, *filters, sampling.num_top_tokens, sampling.seed)


def penalise(scores_V: Tensor, counts: Counts) -> Tensor:
    """Repetition over prompt and output, then frequency and presence."""
    sampling = counts.sampling
    total_V = counts.prompt_V + counts.output_V
    factor = sampling.repetition_penalty
    repeated_V = torch.where(scores_V < 0, scores_V * factor, scores_V / factor)
    scores_V = torch.where(total_V > 0, repeated_V, scores_V)
    frequency_V = total_V / total_V.sum().clamp(min=1.0) if sampling.relative_penalty else counts.output_V
    return scores_V - sampling.frequency_penalty * frequency_V - sampling.presence_penalty * (counts.output_V > 0)


def _temperature(scores_SV: Tensor, temperature_S1: Tensor, _: float) -> Tensor:
    return scores_SV / temperature_S1


def _top_k(scores_SV: Tensor, k_S1: Tensor, most: float) -> Tensor:
    k_S1 = k_S1.clamp(max=scores_SV.shape[-1])
    best = scores_SV.topk(min(int(most), scores_SV.shape[-1]), -1).values
    return scores_SV.masked_fill(scores_SV < best.gather(-1, k_S1 - 1), NEG_INF)


def _top_p(scores_SV: Tensor, p_S1: Tensor, _: float) -> Tensor:
    ascending, order = scores_SV.sort(-1)
    removed = ascending.softmax(-1).cumsum(-1) <= 1 - p_S1
    removed[:, -1] = False
    return scores_SV.masked_fill(removed.scatter(-1, order, removed), NEG_INF)


def _typical_p(scores_SV: Tensor, p_S1: Tensor, _: float) -> Tensor:
    logprobs = torch.log_softmax(scores_SV, -1)
    entropy = -(logprobs * logprobs.exp()).nansum(-1, keepdim=True)
    surprise, order = (-logprobs - entropy).abs().sort(-1)
    mass = scores_SV.gather(-1, order).softmax(-1).cumsum(-1)
    last = (mass < p_S1).sum(-1, keepdim=True).clamp(max=mass.shape[-1] - 1)
    removed = surprise > surprise.gather(-1, last)
    removed[:, 0] = False
    return scores_SV.masked_fill(removed.scatter(-1, order, removed), NEG_INF)


Warper = Callable[[Tensor, Tensor, float], Tensor]
"""Of scores, each row's value, and the largest of those, which the host knows without asking."""

WARPERS: tuple[tuple[str, float, Warper], ...] = (
    ("temperature", 1.0, _temperature),
    ("top_k", 0, _top_k),
    ("top_p", 1.0, _top_p),
    ("typical_p", 1.0, _typical_p),
)


def uniforms(seeds: NDArray[np.uint64], positions: Ints) -> NDArray[np.float64]:
    """One number in [0, 1) for each (seed, position): two rounds of the splitmix64 finaliser."""
    mixed = _mix(seeds + _mix(positions.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)))
    return (mixed >> np.uint64(64 - RANDOM_BITS)).astype(np.float64) / (1 << RANDOM_BITS)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _draw(logprobs_SV: Tensor, uniform_S: Tensor) -> Tensor:
    # The first id whose cumulated probability exceeds the number: never an id of probability 0.
    cumulated_SV = logprobs_SV.exp().cumsum(-1, dtype=torch.float64)
    target_S1 = uniform_S[:, None] * cumulated_SV[:, -1:]
    drawn_S1 = torch.searchsorted(cumulated_SV, target_S1, right=True)
    return drawn_S1[:, 0].clamp(max=logprobs_SV.shape[-1] - 1)


def _pack(logits_SV: Tensor, logprobs_SV: Tensor, token_ids_S: Tensor, settings_S: NDArray[np.void]) -> Tensor:
    """Columns: id, whether the logits were finite, log-probability, then top ids, then their log-probabilities."""
    ids_S1 = token_ids_S[:, None]
    # A sum is finite only if all its terms are.
    columns = [ids_S1, logits_SV.sum(-1, keepdim=True).isfinite(), logprobs_SV.gather(-1, ids_S1)]
    most = int(settings_S["num_top"].max())
    if most:
        best = logprobs_SV.topk(min(most, logprobs_SV.shape[-1]), -1)
        columns += [best.indices, best.values]
    return torch.cat([column.double() for column in columns], -1)


def _unpack(packed_SP: NDArray[np.float64], settings_S: NDArray[np.void]) -> Choice:
    width = (packed_SP.shape[1] - 3) // 2
    return Choice(
        token_ids=packed_SP[:, 0].astype(np.int64),
        finite=packed_SP[:, 1] != 0,
        logprobs=packed_SP[:, 2],
        lost=packed_SP[:, 2] == LOST,
        num_top=np.minimum(settings_S["num_top"], width),
        top_token_ids=packed_SP[:, 3 : 3 + width].astype(np.int64),
        top_logprobs=packed_SP[:, 3 + width :],
    )
