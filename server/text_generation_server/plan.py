"""What crosses the wire, as values this side computes with. Shapes agree here; whether numbers are in range does not.

Suffixes: R rows of the step, T tokens of the step, A position axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from text_generation_server.times import StepTimes

Ints = NDArray[np.int64]


class FailureKind(IntEnum):
    """Why a sequence is over, numbered as on the wire."""

    INTERNAL = 0
    IMAGE = 1
    NUMERIC = 2
    OUT_OF_MEMORY = 3
    REJECTED = 4


class Failure(NamedTuple):
    """What one sequence is told. The message is for people: no paths, no library text."""

    kind: FailureKind
    message: str


class RowFlag(IntFlag):
    """Bits of `Rows.flags_R`, numbered as on the wire."""

    USE_SAMPLED_TOKEN = 1
    SAMPLE = 2
    RESET_BLOCKS = 4
    SCORE = 8


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one sequence chooses its tokens. The defaults switch every filter off."""

    greedy: bool = True
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int = 0
    num_top_tokens: int = 0
    raw_logprobs: bool = False
    relative_penalty: bool = False
    banned_token_ids: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    """What is added to the scores of single tokens, no token twice."""
    watermark: bool = False
    """Whether the token before favours some of the vocabulary."""

    @property
    def may_skip(self) -> bool:
        """Whether a token that is the only one allowed can be taken without its scores: nothing is said of them and
        nothing counts tokens."""
        penalties = (self.repetition_penalty, self.frequency_penalty, self.presence_penalty)
        return not self.raw_logprobs and not self.num_top_tokens and penalties == (1.0, 0.0, 0.0)


class GrammarKind(IntEnum):
    """What the text of a grammar is, numbered as on the wire."""

    JSON_SCHEMA = 0
    REGEX = 1
    LARK = 2


class Grammar(NamedTuple):
    """What a whole answer may be."""

    kind: GrammarKind
    text: str


@dataclass(frozen=True, slots=True)
class NewSequence:
    """A sequence seen for the first time. Prompt ids come only when a penalty or scores need them."""

    id: int
    sampling: Sampling
    prompt_token_ids: Ints
    grammar: Grammar | None = None
    prompt_num_top: int | None = None
    """Best tokens to report beside each scored token of the prompt; None if none will be scored."""
    max_new_tokens: int | None = None
    """How long the answer may become, for those that a grammar holds: JSON ends in time."""


@dataclass(frozen=True, slots=True)
class EncodeImage:
    """An image to encode now; `rank` holds its pixels."""

    key: bytes
    rank: int


@dataclass(frozen=True, slots=True)
class Spans:
    """Placeholders: `lengths[j]` tokens of row `rows[j]`, from `offsets[j]` of its chunk on."""

    rows: Ints
    offsets: Ints
    lengths: Ints
    image_offsets: Ints
    images: list[bytes]

    def of_rows(self, keep_R: NDArray[np.bool_]) -> Spans:
        """The spans of the kept rows, renumbered."""
        kept, rows = _of_rows(self.rows, keep_R)
        numbers = (self.offsets[kept], self.lengths[kept], self.image_offsets[kept])
        return Spans(rows, *numbers, [self.images[j] for j in kept])


@dataclass(frozen=True, slots=True)
class Ranges:
    """Tokens that attend to each other both ways: `lengths[j]` of row `rows[j]`, from `offsets[j]` of its chunk on."""

    rows: Ints
    offsets: Ints
    lengths: Ints

    def of_rows(self, keep_R: NDArray[np.bool_]) -> Ranges:
        """The ranges of the kept rows, renumbered."""
        kept, rows = _of_rows(self.rows, keep_R)
        return Ranges(rows, self.offsets[kept], self.lengths[kept])

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Row, offset and length of each."""
        return zip(self.rows.tolist(), self.offsets.tolist(), self.lengths.tolist(), strict=True)


def _of_rows(rows: Ints, keep_R: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Which entries belong to kept rows, and what those rows are called then."""
    kept = np.flatnonzero(keep_R[rows])
    renumbered_R = np.cumsum(keep_R) - 1
    return kept, renumbered_R[rows[kept]]


_NOTHING = np.empty(0, dtype=np.int64)
NO_RANGES = Ranges(_NOTHING, _NOTHING, _NOTHING)


@dataclass(frozen=True, slots=True)
class Rows:
    """The scheduled sequences. `token_ids_T` is 0 where a row takes the token it sampled last."""

    sequences: list[int]
    num_tokens_R: Ints
    starts_R: Ints
    flags_R: Ints
    num_new_blocks_R: Ints
    new_blocks: Ints
    token_ids_T: Ints
    positions_AT: Ints | None
    spans: Spans
    both_ways: Ranges = NO_RANGES

    def keep(self, keep_R: NDArray[np.bool_]) -> Rows:
        """These rows without some of them."""
        keep_T = np.repeat(keep_R, self.num_tokens_R)
        return Rows(
            sequences=[sequence for sequence, kept in zip(self.sequences, keep_R, strict=True) if kept],
            num_tokens_R=self.num_tokens_R[keep_R],
            starts_R=self.starts_R[keep_R],
            flags_R=self.flags_R[keep_R],
            num_new_blocks_R=self.num_new_blocks_R[keep_R],
            new_blocks=self.new_blocks[np.repeat(keep_R, self.num_new_blocks_R)],
            token_ids_T=self.token_ids_T[keep_T],
            positions_AT=None if self.positions_AT is None else self.positions_AT[:, keep_T],
            spans=self.spans.of_rows(keep_R),
            both_ways=self.both_ways.of_rows(keep_R),
        )

    def any_flag(self, flag: RowFlag) -> NDArray[np.bool_]:
        """Which rows carry the flag."""
        marked: NDArray[np.bool_] = (self.flags_R & int(flag)) != 0
        return marked


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: forget, then learn, then encode, then compute."""

    epoch: int
    step: int
    forget_sequences: list[int]
    forget_images: list[bytes]
    new_sequences: list[NewSequence]
    encode_images: list[EncodeImage]
    rows: Rows
    times: StepTimes | None = None
    """For what is to be said of its parts, if anybody asks."""


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """What the sampled rows chose, in row order. `top` arrays hold `num_top[i]` entries for row i.

    Behind a row may stand further entries of its sequence: tokens that can only follow.
    """

    sequences: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    num_top: list[int] = field(default_factory=list)
    top_token_ids: list[int] = field(default_factory=list)
    top_logprobs: list[float] = field(default_factory=list)

    def insert(self, forced: Mapping[int, Sequence[int]]) -> None:
        """Puts behind the entry of each of these sequences the tokens that can only follow it. They are certain."""
        for index in reversed(range(len(self.sequences))):
            sequence = self.sequences[index]
            tokens = forced.get(sequence, ())
            behind = slice(index + 1, index + 1)
            self.sequences[behind] = [sequence] * len(tokens)
            self.token_ids[behind] = tokens
            self.logprobs[behind] = [0.0] * len(tokens)
            self.num_top[behind] = [0] * len(tokens)


@dataclass(frozen=True, slots=True)
class PromptScores:
    """Log-probabilities of prompt tokens from number `first` on. `top` fields hold `num_top` entries for each."""

    sequence: int
    first: int
    logprobs: list[float]
    num_top: int
    top_token_ids: list[int]
    top_logprobs: list[float]


@dataclass(frozen=True, slots=True)
class StepResult:
    """The answer to one plan. Times are microseconds on this shard's clock."""

    epoch: int
    step: int
    sampled: SampledTokens
    failures: list[tuple[int, Failure]]
    encode_us: int = 0
    compute_us: int = 0
    total_us: int = 0
    scores: list[PromptScores] = field(default_factory=list)
    times: StepTimes | None = None


@dataclass(frozen=True, slots=True)
class ViewSize:
    """Pixels of one view."""

    width: int
    height: int

    @property
    def num_bytes(self) -> int:
        """RGB8 without padding."""
        return self.width * self.height * 3


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """An image before its pixels. `num_tokens` is what the router reserved for it."""

    key: bytes
    original: ViewSize
    views: tuple[ViewSize, ...]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class WarmupRequest:
    """The largest step that will ever come."""

    block_size: int
    max_step_tokens: int
    max_rows: int
    max_sequence_tokens: int
    max_step_image_tokens: int
    largest_image: ImageHeader | None
    """Without a key; None for a text model."""
    max_blocks: int
    embedding_cache_tokens: int
