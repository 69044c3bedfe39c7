"""Turns a plan into the numbers of one step, and turns away rows that ask for something out of range.

Nothing is computed here, and nothing reaches the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from text_generation_server.attention.base import Bounds, StepLayout
from text_generation_server.merge import Span
from text_generation_server.plan import Failure, FailureKind, Ints, RowFlag, Rows
from text_generation_server.scoring import ScoredRow
from text_generation_server.sequences import SequenceTable

Bools = NDArray[np.bool_]
FindImage = Callable[[bytes], "Tensor | Failure"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a row may name."""

    vocab_size: int
    position_axes: int
    max_positions: int
    max_sequence_tokens: int
    num_blocks: int
    block_size: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step. Everything but the images of spans is on the host."""

    token_ids_T: Ints
    positions_AT: Ints
    slots_T: Ints
    num_tokens_R: Ints
    starts_R: Ints
    blocks_RB: NDArray[np.int32]
    both_ways: Mapping[int, Sequence[tuple[int, int]]]
    spans: list[Span]
    new_blocks: Ints
    reused_tokens: Ints
    """Which tokens are the last sampled ones."""
    reused_slots: Ints
    sample_sequences: list[int]
    sample_slots: Ints
    sample_tokens: Ints
    """Which tokens are sampled after."""
    sample_positions: Ints
    """How many tokens each sampled sequence has: the position its new token takes."""
    scored: list[ScoredRow]

    @property
    def only_decodes(self) -> bool:
        """Whether every row computes one token of text, samples behind it, and asks for nothing else."""
        num_rows = len(self.num_tokens_R)
        one_each = len(self.token_ids_T) == num_rows == len(self.sample_sequences)
        return one_each and not (self.spans or self.both_ways or self.scored)

    def layout(self, slots_T: Tensor, captured: Bounds | None = None) -> StepLayout:
        """What attention is told. `slots_T` are ours, on the device."""
        return StepLayout(
            num_tokens_R=self.num_tokens_R,
            starts_R=self.starts_R,
            blocks_RB=self.blocks_RB,
            slots_T=slots_T,
            both_ways=self.both_ways,
            captured=captured,
        )

    def filled_up(self, num_rows: int, zero_block: int) -> Batch:
        """With rows behind that compute on zeros and leave nothing: they own the zero block and have no slot.

        Only for a step that `only_decodes`. The new rows are not sampled.
        """
        count = num_rows - len(self.num_tokens_R)
        if not count:
            return self
        ones, zeros = np.ones(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        blocks = np.full((count, self.blocks_RB.shape[1]), zero_block, dtype=np.int32)
        return replace(
            self,
            token_ids_T=np.concatenate((self.token_ids_T, zeros)),
            positions_AT=np.concatenate((self.positions_AT, np.tile(zeros, (len(self.positions_AT), 1))), axis=1),
            slots_T=np.concatenate((self.slots_T, -ones)),
            num_tokens_R=np.concatenate((self.num_tokens_R, ones)),
            starts_R=np.concatenate((self.starts_R, zeros)),
            blocks_RB=np.concatenate((self.blocks_RB, blocks)),
        )


def nothing(position_axes: int) -> Batch:
    """A step without rows, to be filled up."""
    none = np.empty(0, dtype=np.int64)
    return Batch(
        token_ids_T=none,
        positions_AT=np.empty((position_axes, 0), dtype=np.int64),
        slots_T=none,
        num_tokens_R=none,
        starts_R=none,
        blocks_RB=np.empty((0, 1), dtype=np.int32),
        both_ways={},
        spans=[],
        new_blocks=none,
        reused_tokens=none,
        reused_slots=none,
        sample_sequences=[],
        sample_slots=none,
        sample_tokens=none,
        sample_positions=none,
        scored=[],
    )


@dataclass(frozen=True)
class Packed:
    """The batch (None when no row is left) and the sequences turned away."""

    batch: Batch | None
    sequences: list[int]
    failures: list[tuple[int, Failure]]


def pack(rows: Rows, table: SequenceTable, find_image: FindImage, limits: Limits) -> Packed:
    """Checks, updates the block tables, lays out. Refused sequences are remembered in the table as failed."""
    failures: list[tuple[int, Failure]] = []
    for check in (_unusable, _out_of_range, _misplaced_ranges, _without_image):
        found = check(rows, table, find_image, limits)
        if found:
            failures += [(rows.sequences[row], failure) for row, failure in found.items()]
            rows = rows.keep(np.array([row not in found for row in range(len(rows.sequences))], dtype=np.bool_))
    for sequence, failure in failures:
        table.failures.setdefault(sequence, failure)
    if not rows.sequences:
        return Packed(None, [], failures)
    return Packed(_lay_out(rows, table, find_image, limits), rows.sequences, failures)


Found = dict[int, Failure]


def _unusable(rows: Rows, table: SequenceTable, _: FindImage, __: Limits) -> Found:
    """Rows of sequences that are unknown, over already, or named twice."""
    if len(set(rows.sequences)) == len(rows.sequences) and not table.failures:
        known = [table.knows(sequence) for sequence in rows.sequences]
        return {} if all(known) else _failures(~np.array(known), "the sequence is unknown")
    found: Found = {}
    seen: set[int] = set()
    for row, sequence in enumerate(rows.sequences):
        if sequence in table.failures:
            found[row] = table.failures[sequence]
        elif not table.knows(sequence):
            found[row] = _rejected("the sequence is unknown")
        elif sequence in seen:
            found[row] = _rejected("the sequence has two rows in a step")
        seen.add(sequence)
    return found


def _out_of_range(rows: Rows, table: SequenceTable, _: FindImage, limits: Limits) -> Found:
    found: Found = {}
    for bad_R, message in _range_checks(rows, table, limits):
        if bad_R.any():
            found = _failures(bad_R, message) | found
    return found


def _range_checks(rows: Rows, table: SequenceTable, limits: Limits) -> Iterator[tuple[Bools, str]]:
    slots_R = table.slots_of(rows.sequences)
    reset_R = rows.any_flag(RowFlag.RESET_BLOCKS)
    ends_R = rows.starts_R + rows.num_tokens_R
    blocks_R = np.where(reset_R, 0, table.num_blocks[slots_R]) + rows.num_new_blocks_R
    yield rows.num_tokens_R < 1, "the row has no tokens"
    yield ends_R > limits.max_sequence_tokens, f"the sequence is longer than {limits.max_sequence_tokens} tokens"
    yield ~reset_R & (rows.starts_R > table.lengths[slots_R]), "the row starts behind the tokens that were computed"
    yield blocks_R > table.blocks.shape[1], "the block table is too long"
    yield blocks_R * limits.block_size < ends_R, "the row's tokens have no blocks"
    yield _any_in_row(rows.new_blocks >= limits.num_blocks, rows.num_new_blocks_R), "a block is out of range"
    yield _any_in_row(rows.token_ids_T >= limits.vocab_size, rows.num_tokens_R), "a token id is out of range"
    yield rows.any_flag(RowFlag.USE_SAMPLED_TOKEN) & ~table.has_sampled[slots_R], "no token was sampled yet"
    if rows.positions_AT is not None:
        outside_AT = (rows.positions_AT < 0) | (rows.positions_AT >= limits.max_positions)
        outside_T: Bools = np.logical_or.reduce(outside_AT)
        yield _any_in_row(outside_T, rows.num_tokens_R), "a position is out of range"


def _misplaced_ranges(rows: Rows, _: SequenceTable, __: FindImage, ___: Limits) -> Found:
    found: Found = {}
    free_from: dict[int, int] = {}
    for row, offset, length in rows.both_ways:
        if length < 1 or offset < free_from.get(row, 0):
            found[row] = _rejected("ranges that attend both ways are empty or out of order")
        elif offset + length > rows.num_tokens_R[row]:
            found[row] = _rejected("a range that attends both ways reaches beyond its row")
        free_from[row] = offset + length
    return found


def _without_image(rows: Rows, _: SequenceTable, find_image: FindImage, __: Limits) -> Found:
    spans = rows.spans
    found: Found = {}
    for row, offset, length, image_offset, key in _each_span(rows):
        image = find_image(key)
        if offset + length > rows.num_tokens_R[row]:
            found.setdefault(row, _rejected("an image reaches beyond its row"))
        elif isinstance(image, Failure):
            found.setdefault(row, image)
        elif image_offset + length > len(image):
            message = f"the image has {len(image)} tokens where {image_offset + length} are reserved"
            found.setdefault(row, Failure(FailureKind.IMAGE, message))
    return found if len(spans.rows) else {}


def _each_span(rows: Rows) -> Iterator[tuple[int, int, int, int, bytes]]:
    spans = rows.spans
    numbers = (spans.rows.tolist(), spans.offsets.tolist(), spans.lengths.tolist(), spans.image_offsets.tolist())
    return zip(*numbers, spans.images, strict=True)


def _any_in_row(bad: Bools, counts_R: Ints) -> Bools:
    """Which rows own a bad entry of an array that holds `counts_R[r]` entries for row r."""
    if not bad.any():
        return np.zeros(len(counts_R), dtype=np.bool_)
    owners = np.repeat(np.arange(len(counts_R)), counts_R)
    return np.bincount(owners[bad], minlength=len(counts_R)) > 0


def _failures(bad_R: Bools, message: str) -> Found:
    return {int(row): _rejected(message) for row in np.flatnonzero(bad_R)}


def _rejected(message: str) -> Failure:
    return Failure(FailureKind.REJECTED, message)


def _lay_out(rows: Rows, table: SequenceTable, find_image: FindImage, limits: Limits) -> Batch:
    slots_R = table.slots_of(rows.sequences)
    new_blocks = _update_tables(rows, table, slots_R, limits.block_size)
    blocks_RB = table.blocks[slots_R, : int(table.num_blocks[slots_R].max())]
    ends_R = np.cumsum(rows.num_tokens_R)
    positions_T = _count_up(rows, ends_R)
    reused_R = np.flatnonzero(rows.any_flag(RowFlag.USE_SAMPLED_TOKEN))
    sampled_R = np.flatnonzero(rows.any_flag(RowFlag.SAMPLE))
    return Batch(
        token_ids_T=rows.token_ids_T,
        positions_AT=_positions(rows, positions_T, limits.position_axes),
        slots_T=_slots(rows, blocks_RB, positions_T, limits.block_size),
        num_tokens_R=rows.num_tokens_R,
        starts_R=rows.starts_R,
        blocks_RB=blocks_RB,
        both_ways=_ranges_by_row(rows),
        spans=_spans(rows, ends_R, find_image),
        new_blocks=new_blocks,
        reused_tokens=ends_R[reused_R] - 1,
        reused_slots=slots_R[reused_R],
        sample_sequences=[rows.sequences[row] for row in sampled_R.tolist()],
        sample_slots=slots_R[sampled_R],
        sample_tokens=ends_R[sampled_R] - 1,
        sample_positions=(rows.starts_R + rows.num_tokens_R)[sampled_R],
        scored=_scored(rows, slots_R, ends_R),
    )


def _update_tables(rows: Rows, table: SequenceTable, slots_R: Ints, block_size: int) -> Ints:
    """Applies the block deltas; returns the blocks that hold nothing of use yet."""
    reset_R = rows.any_flag(RowFlag.RESET_BLOCKS)
    changed = np.flatnonzero(reset_R | (rows.num_new_blocks_R > 0))
    ends_R = np.cumsum(rows.num_new_blocks_R)
    fresh = []
    for row in changed.tolist():
        blocks = rows.new_blocks[ends_R[row] - rows.num_new_blocks_R[row] : ends_R[row]]
        table.append_blocks(int(slots_R[row]), blocks, bool(reset_R[row]))
        # Blocks before the row's start come from the prefix cache and are full.
        first_fresh = -(-int(rows.starts_R[row]) // block_size)
        fresh.append(blocks[max(0, first_fresh - int(table.num_blocks[slots_R[row]]) + len(blocks)) :])
    table.lengths[slots_R] = rows.starts_R + rows.num_tokens_R
    return np.concatenate(fresh) if fresh else np.empty(0, dtype=np.int64)


def _scored(rows: Rows, slots_R: Ints, ends_R: Ints) -> list[ScoredRow]:
    marked = np.flatnonzero(rows.any_flag(RowFlag.SCORE))
    if not len(marked):
        return []
    columns = (slots_R, rows.starts_R, ends_R - rows.num_tokens_R, rows.num_tokens_R)
    numbers = zip(*(column[marked].tolist() for column in columns), strict=True)
    return [ScoredRow(rows.sequences[row], *of_row) for row, of_row in zip(marked.tolist(), numbers, strict=True)]


def _count_up(rows: Rows, ends_R: Ints) -> Ints:
    """Each token's index in its sequence."""
    if len(rows.token_ids_T) == len(rows.sequences):
        return rows.starts_R
    first_R = ends_R - rows.num_tokens_R
    positions_T: Ints = np.arange(len(rows.token_ids_T)) + np.repeat(rows.starts_R - first_R, rows.num_tokens_R)
    return positions_T


def _positions(rows: Rows, positions_T: Ints, axes: int) -> Ints:
    if rows.positions_AT is not None:
        return rows.positions_AT
    return np.tile(positions_T, (axes, 1))


def _slots(rows: Rows, blocks_RB: NDArray[np.int32], positions_T: Ints, block_size: int) -> Ints:
    """Where each token's key and value go."""
    owners_T = np.repeat(np.arange(len(blocks_RB)), rows.num_tokens_R)
    blocks_T = blocks_RB[owners_T, positions_T // block_size].astype(np.int64)
    return blocks_T * block_size + positions_T % block_size


def _ranges_by_row(rows: Rows) -> dict[int, list[tuple[int, int]]]:
    ranges: dict[int, list[tuple[int, int]]] = {}
    for row, offset, length in rows.both_ways:
        ranges.setdefault(row, []).append((offset, length))
    return ranges


def _spans(rows: Rows, ends_R: Ints, find_image: FindImage) -> list[Span]:
    spans = []
    for row, offset, length, image_offset, key in _each_span(rows):
        image = find_image(key)
        if isinstance(image, Tensor):
            start = int(ends_R[row] - rows.num_tokens_R[row]) + offset
            spans.append(Span(start, length, image, image_offset))
    return spans
