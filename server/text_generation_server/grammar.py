"""Which tokens grammars allow next: matchers of guided sequences by sampler slot, worked on beside the step.

A token that is on the host is taken by its matcher, which computes the mask of the next one. Where many sequences are
guided, worker threads do that while the model runs, and the step waits for them only right before it samples. A few
masks take less time than handing them over: the thread that launched the model computes those itself, right before it
samples, while a device is still at it. Matchers are used by one thread at a time: no new work is given to one before
the work before it was waited for. Where a grammar leaves no choice for several tokens, they are named with the sample
they follow, and the next row computes all of them.

The router has compiled every grammar before it comes here, with the same limits. What remains is what a grammar may
do later on: each step of a matcher has fuel, and a step waits for all its masks only so long. Then the sequences whose
masks are not there fail.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray
from torch import Tensor

from text_generation_server.closing import Budget, Closers, Words, largest_jump
from text_generation_server.plan import Grammar, GrammarKind, Ints
from text_generation_server.threads import deep_threads
from text_generation_server.transfers import Transfers

MAX_COMPILED = 32
"""Grammars whose matcher is kept for sequences that come with the same one."""

MAX_FORCED = 64
"""Tokens that are taken at once."""

MAX_WORKERS = 4
FEW = 4
"""Masks that are not handed over. One takes 10 to 30 us, a worker that has to be woken 100 and more."""

FIRST_MASK_S = 1.0
"""Longest wait for a grammar to be compiled; the router has done it in less."""
MASK_S = 0.25
"""Longest wait of a step for other masks, all together: everybody in it waits too. The fuel of a mask is used up in a
tenth of that."""

LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=100_000,
    step_max_items=25_000,
    max_lexer_states=25_000,
    max_grammar_size=100_000,
    verbose_errors=False,
)
"""As in the router's `grammar/check.rs`. A lexer state is a kilobyte or two, and each sequence has its own."""


@dataclass(frozen=True)
class Mask:
    """What one sequence may sample next, a bit a token from the lowest on; or nothing, if its grammar was lost."""

    words: Words | None
    forced: tuple[int, ...] = ()
    """Tokens that come before that, each the only one allowed in its place."""

    def at(self, index: int) -> Words | None:
        """The mask of the `index`-th token from the first forced one on."""
        if self.words is None or index >= len(self.forced):
            return self.words
        only = np.zeros_like(self.words)
        token = self.forced[index]
        only.view(np.uint8)[token // 8] = 1 << token % 8
        return only


LOST = Mask(None)


@dataclass(frozen=True)
class Allowed:
    """What the guided rows among the sampled ones may choose. `words_GW` says nothing where `lost_G`."""

    rows_G: Ints
    words_GW: Words
    lost_G: NDArray[np.bool_]
    forced: dict[int, tuple[int, ...]]
    """By row, the tokens that can only follow the one it samples. They need not be sampled."""

    def unpack(self, vocab_size: int, device: torch.device) -> Tensor:
        """[G, V] booleans. Rows of the output head that have no token are never allowed; lost rows may do anything."""
        bytes_GB = self.words_GW.view(np.uint8)
        if device.type == "cpu":
            allowed_GV = torch.from_numpy(np.unpackbits(bytes_GB, axis=1, bitorder="little").view(np.bool_))
        else:
            bits = torch.arange(8, dtype=torch.uint8, device=device)
            allowed_GV = ((Transfers(device).one(bytes_GB)[:, :, None] >> bits) & 1).flatten(1).bool()
        missing = vocab_size - allowed_GV.shape[1]
        if missing > 0:
            allowed_GV = torch.nn.functional.pad(allowed_GV, (0, missing))
        return allowed_GV[:, :vocab_size]


@dataclass(frozen=True)
class Compiled:
    """A matcher at the beginning of a grammar, the mask there, and how many tokens the shortest answer has."""

    matcher: LLMatcher
    first: Mask
    shortest: int
    jump: int
    """See `Budget`. Both say nothing of a grammar that is no schema."""


class Grammars:
    """Compiles grammars for one model. What that needs is built on a thread of its own, from the start."""

    def __init__(self, tokenizer: str, end_tokens: Sequence[int]) -> None:
        """`tokenizer` is in the `tokenizers` library's own format, as JSON."""
        count = min(MAX_WORKERS, os.cpu_count() or 1)
        # Apart, so that no mask waits behind a grammar that is still compiled.
        self._compilers, self._workers = deep_threads(count, "compiler"), deep_threads(count, "grammar")
        self._tokenizer = self._compilers.submit(LLTokenizer, tokenizer, eos_token=list(end_tokens))
        self._closers = self._compilers.submit(lambda: Closers(self._tokenizer.result()))
        self._compiled: OrderedDict[Grammar, Compiled] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Returns when grammars can be compiled, or never will be."""
        self._closers.exception()

    def begin(self, grammar: Grammar, skips: bool, num_tokens: int | None) -> Guide:
        """Starts to compile. `skips` lets forced tokens come without being sampled; JSON ends within `num_tokens`."""
        return Guide(self._workers, self._compilers.submit(self._start, grammar, num_tokens), skips)

    def _start(self, grammar: Grammar, num_tokens: int | None) -> Start:
        with self._lock:
            known = self._compiled.get(grammar)
            if known is not None:
                self._compiled.move_to_end(grammar)
        compiled = known or self._compile(grammar)
        if compiled is None:
            return Start(None, LOST)
        matcher, first = compiled.matcher.deep_copy(), compiled.first
        if num_tokens is None or grammar.kind != GrammarKind.JSON_SCHEMA:
            return Start(matcher, first)
        budget = Budget(self._closers.result(), num_tokens, compiled.shortest, compiled.jump)
        return Start(matcher, _within(budget, matcher, first), budget)

    def _compile(self, grammar: Grammar) -> Compiled | None:
        if self._closers.exception() is not None:
            return None
        matcher = LLMatcher(self._tokenizer.result(), _written(grammar), log_level=0, limits=LIMITS)
        first = next_mask(matcher)
        if first.words is None:
            return None
        shortest, jump = 0, 0
        if grammar.kind == GrammarKind.JSON_SCHEMA:
            shortest = len(first.forced) + self._closers.result().tokens_to_end(matcher)
            jump = largest_jump(json.loads(grammar.text))
        with self._lock:
            self._compiled[grammar] = compiled = Compiled(matcher, first, shortest, jump)
            while len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
        return compiled


class Start(NamedTuple):
    """What a worker hands over: the matcher (None: lost), the mask behind what it took, the tokens that are left."""

    matcher: LLMatcher | None
    mask: Mask
    budget: Budget | None = None


class Guide:
    """One sequence's way through its grammar, by the positions of its tokens."""

    def __init__(self, workers: ThreadPoolExecutor, start: Future[Start], skips: bool) -> None:
        self._workers = workers
        self._work: Future[Start] | None = start
        self._start = Start(None, LOST)
        self._taken: int | None = None
        self._skips = skips
        self._limit_s = FIRST_MASK_S
        self._begin: int | None = None

    def words(self, position: int, since: float) -> Words | None:
        """Waits for the mask of the token that takes the position; None if the grammar was lost.

        `since` is when the step began to wait, as `time.monotonic` counts.
        """
        if self._begin is None:
            self._begin = position
        if self._taken is not None:
            self._start, self._taken = _advanced(self._start, self._taken), None
        elif self._work is not None:
            self._start, self._work = self._wait(self._work, since + self._limit_s - time.monotonic()), None
        return self._start.mask.at(position - self._begin)

    def forced(self, position: int) -> tuple[int, ...]:
        """What can only follow the token that takes the position, if it need not be sampled. Only after `words`."""
        return self._start.mask.forced[1:] if self._skips and position == self._begin else ()

    def accept(self, token: int, position: int) -> bool:
        """Takes a token that its mask allowed, and says whether there is a mask to compute. Only after `words`."""
        start = self._start
        if start.matcher is None or self._begin is None or position < self._begin + len(start.mask.forced):
            return False
        self._taken = token
        self._begin = position + 1
        self._limit_s = MASK_S
        return True

    def hand_over(self) -> None:
        """Lets a worker compute the mask. Only after `accept` said that there is one to compute."""
        assert self._taken is not None
        self._work, self._taken = self._workers.submit(_advance, self._start, self._taken), None

    @staticmethod
    def _wait(work: Future[Start], limit_s: float) -> Start:
        try:
            failed = work.exception(max(limit_s, 0)) is not None
        except TimeoutError:
            failed = True
        return Start(None, LOST) if failed else work.result()


class GuidedSlots:
    """The guides of sampler slots. Belongs to the thread that computes."""

    def __init__(self, grammars: Grammars | None) -> None:
        """Without grammars nothing is masked: rank 0 does that for every rank."""
        self._grammars = grammars
        self._guides: dict[int, Guide] = {}

    def learn(self, slot: int, grammar: Grammar | None, skips: bool = False, num_tokens: int | None = None) -> None:
        """Starts a slot anew. `num_tokens` is how long the answer may become."""
        self.forget(slot)
        if grammar is not None and self._grammars is not None:
            self._guides[slot] = self._grammars.begin(grammar, skips, num_tokens)

    def forget(self, slot: int) -> None:
        """Drops what a slot holds, though a thread may still be at it."""
        self._guides.pop(slot, None)

    def allowed(self, slots_S: Ints, positions_S: Ints) -> Allowed | None:
        """Waits for the masks of the rows that are about to be sampled; None if no row is guided."""
        if not self._guides:
            return None
        rows = enumerate(zip(slots_S.tolist(), positions_S.tolist(), strict=True))
        guided = [(row, self._guides[slot], position) for row, (slot, position) in rows if slot in self._guides]
        if not guided:
            return None
        since = time.monotonic()
        masks = [guide.words(position, since) for _, guide, position in guided]
        width = max((len(words) for words in masks if words is not None), default=1)
        words_GW = np.full((len(masks), width), -1, dtype=np.int32)
        for row, words in enumerate(masks):
            if words is not None:
                words_GW[row] = words
        return Allowed(
            rows_G=np.array([row for row, *_ in guided], dtype=np.int64),
            words_GW=words_GW,
            lost_G=np.array([words is None for words in masks]),
            forced={row: forced for row, guide, position in guided if (forced := guide.forced(position))},
        )

    def accept(self, slots_S: Ints, positions_S: Ints, token_ids_S: Ints, good_S: NDArray[np.bool_]) -> None:
        """Tells the grammars what was sampled, and starts to compute what may come next. Failed rows are dropped."""
        if not self._guides:
            return
        columns = (column.tolist() for column in (slots_S, positions_S, token_ids_S, good_S))
        waiting = []
        for slot, position, token, good in zip(*columns, strict=True):
            guide = self._guides.get(slot)
            if guide is None:
                continue
            if not good:
                self.forget(slot)
            elif guide.accept(token, position):
                waiting.append(guide)
        if len(waiting) > FEW:
            for guide in waiting:
                guide.hand_over()


def next_mask(matcher: LLMatcher) -> Mask:
    """What the grammar allows behind all that it forces: end tokens alone once it is over.

    A matcher that forces a token masks all others, so that taking it at once changes nothing.
    """
    forced: list[int] = []
    while len(forced) < MAX_FORCED and (following := matcher.compute_ff_tokens()):
        if not matcher.consume_token(following[0]):
            return LOST
        forced.append(following[0])
    words = np.frombuffer(matcher.compute_bitmask(), dtype=np.int32)
    # A grammar in an error allows the end tokens too: the text would look whole.
    return LOST if matcher.is_error() else Mask(words, tuple(forced))


def _advanced(before: Start, token: int) -> Start:
    """As a worker would hand it over."""
    try:
        return _advance(before, token)
    except Exception:
        return Start(None, LOST)


def _advance(before: Start, token: int) -> Start:
    matcher, budget = before.matcher, before.budget
    if matcher is None or not matcher.consume_token(token):
        return Start(matcher, LOST)
    mask = next_mask(matcher)
    if budget is None:
        return Start(matcher, mask)
    budget.spend(1)
    return Start(matcher, _within(budget, matcher, mask), budget)


def _within(budget: Budget, matcher: LLMatcher, mask: Mask) -> Mask:
    """The mask, with the answer's end in sight."""
    budget.spend(len(mask.forced))
    return mask if mask.words is None else replace(mask, words=budget.narrow(matcher, mask.words))


def _written(grammar: Grammar) -> str:
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            return LLMatcher.grammar_from_json_schema(grammar.text)
        case GrammarKind.REGEX:
            return LLMatcher.grammar_from_regex(grammar.text)
        case GrammarKind.LARK:
            return LLMatcher.grammar_from_lark(grammar.text)
