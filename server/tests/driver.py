"""A router in miniature: builds plans for a shard, keeps block tables, and reads results. No test lives here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import text_generation_server
from text_generation_server.config import PreparedModel, ShardConfig
from text_generation_server.images import Image
from text_generation_server.plan import (
    EncodeImage,
    Grammar,
    ImageHeader,
    Ints,
    NewSequence,
    PromptScores,
    Ranges,
    RowFlag,
    Rows,
    Sampling,
    Spans,
    StepPlan,
    StepResult,
    ViewSize,
    WarmupRequest,
)
from text_generation_server.shard import Shard

PREPARED = Path(text_generation_server.__file__).parent / "embedded" / "prepared.json"
FACTS = json.loads(PREPARED.read_text(encoding="utf-8"))
VIEW = ViewSize(**FACTS["processor"]["size"])
IMAGE_TOKENS: int = FACTS["config"]["image_seq_length"]
IMAGE_TOKEN: int = FACTS["config"]["image_token_index"]
GREEDY = Sampling()


def ints(numbers: Iterable[int]) -> Ints:
    return np.array(list(numbers), dtype=np.int64)


LARGEST = ImageHeader(b"", VIEW, (VIEW,), IMAGE_TOKENS)


def warm_up(**changes: int) -> WarmupRequest:
    """What the embedded model is warmed up with."""
    request = {
        "block_size": 16,
        "max_step_tokens": 512,
        "max_rows": 32,
        "max_sequence_tokens": 512,
        "max_step_image_tokens": 144,
        "max_blocks": 512,
        "embedding_cache_tokens": 1024,
    }
    return WarmupRequest(largest_image=LARGEST, **(request | changes))


def load(
    rank: int = 0,
    world_size: int = 1,
    master_port: int = 0,
    prepared: Path = PREPARED,
    **choices: str,
) -> Shard:
    """A model, warmed up: the embedded one, unless it is named. `choices` are dtype, device and attention."""
    config = ShardConfig(
        prepared=prepared,
        socket=Path("unused"),
        rank=rank,
        world_size=world_size,
        master_port=master_port,
        num_threads=1,
        **({"device": "cpu", "attention": "torch"} | choices),  # type: ignore[arg-type]
    )
    shard = Shard(config, PreparedModel.read(prepared))
    # On a CPU an image of the largest size would only fill caches, and each model has another one.
    large = {"max_step_tokens": 8192, "max_sequence_tokens": 2048, "max_blocks": 4096}
    block_size = shard.backend.supported_block_sizes[0]
    request = warm_up(block_size=block_size, **({} if prepared == PREPARED else large))
    shard.warm_up(request if prepared == PREPARED else replace(request, largest_image=None))
    return shard


def picture(seed: int) -> NDArray[np.uint8]:
    """A smooth random RGB picture of the embedded model's view size."""
    coarse = torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, (1, 3, 6, 6)))
    smooth = torch.nn.functional.interpolate(coarse, size=(VIEW.height, VIEW.width), mode="bilinear")
    return np.ascontiguousarray(smooth[0].permute(1, 2, 0).numpy(), dtype=np.uint8)


def key(seed: int) -> bytes:
    return seed.to_bytes(32, "little")


def image(seed: int, num_tokens: int = IMAGE_TOKENS) -> Image:
    header = ImageHeader(key(seed), VIEW, (VIEW,), num_tokens)
    return Image(header, [torch.from_numpy(picture(seed))])


class Run(NamedTuple):
    """`length` image tokens from `offset` of a prompt on: the embeddings of an image from `image_offset` on."""

    offset: int
    length: int
    image_offset: int
    image: Image


@dataclass
class Prompt:
    """Token ids with images in them. Positions are those of transformers, where they do not count from zero."""

    token_ids: list[int]
    runs: list[Run] = field(default_factory=list)
    positions: Ints | None = None
    both_ways: list[tuple[int, int]] = field(default_factory=list)

    @staticmethod
    def of(*parts: list[int] | int) -> Prompt:
        """Of the embedded model. Lists are text, numbers are seeds of pictures."""
        prompt = Prompt([])
        for part in parts:
            if isinstance(part, int):
                prompt.runs.append(Run(len(prompt.token_ids), IMAGE_TOKENS, 0, image(part)))
                part = [IMAGE_TOKEN] * IMAGE_TOKENS
            prompt.token_ids += part
        return prompt

    @property
    def images(self) -> dict[bytes, Image]:
        """Each image once, in order of appearance."""
        return {run.image.header.key: run.image for run in self.runs}

    def continued(self, tokens: list[int]) -> Prompt:
        """This prompt with what was generated behind it, as after a preemption."""
        positions = self.positions_of(0, len(self.token_ids) + len(tokens))
        return Prompt(self.token_ids + tokens, self.runs, positions, self.both_ways)

    def positions_of(self, start: int, stop: int) -> Ints | None:
        """[axes, tokens] of tokens `start..stop`; generated ones count up from the largest of the prompt."""
        if self.positions is None:
            return None
        generated = np.arange(stop - len(self.token_ids)) + self.positions.max() + 1
        axes = np.tile(generated, (len(self.positions), 1))
        return np.concatenate([self.positions, axes], axis=1)[:, start:stop]


class SpanEntry(NamedTuple):
    """`length` tokens from `offset` of the row's chunk on take the image from `image_offset` on."""

    offset: int
    length: int
    image_offset: int
    image: bytes


@dataclass
class Row:
    """One row before it becomes an entry of every array. `token_ids` is None for the token sampled last."""

    sequence: int
    start: int
    token_ids: list[int] | None
    new_blocks: list[int] = field(default_factory=list)
    sample: bool = True
    score: bool = False
    reset: bool = False
    spans: list[SpanEntry] = field(default_factory=list)
    positions: Ints | None = None
    both_ways: list[tuple[int, int]] = field(default_factory=list)
    """Offset and length of each."""

    @property
    def flags(self) -> int:
        bits = RowFlag.SAMPLE * self.sample | RowFlag.RESET_BLOCKS * self.reset | RowFlag.SCORE * self.score
        return int(bits | RowFlag.USE_SAMPLED_TOKEN * (self.token_ids is None))


def rows_of(rows: Sequence[Row], positions: Ints | None = None) -> Rows:
    """The arrays of a step. `positions` overrules those of the rows."""
    if positions is None:
        positions = positions_of(rows)
    spans = [(number, span) for number, row in enumerate(rows) for span in row.spans]
    ranges = [(number, one) for number, row in enumerate(rows) for one in row.both_ways]
    tokens = [row.token_ids if row.token_ids is not None else [0] for row in rows]
    return Rows(
        sequences=[row.sequence for row in rows],
        num_tokens_R=ints(len(ids) for ids in tokens),
        starts_R=ints(row.start for row in rows),
        flags_R=ints(row.flags for row in rows),
        num_new_blocks_R=ints(len(row.new_blocks) for row in rows),
        new_blocks=ints(block for row in rows for block in row.new_blocks),
        token_ids_T=ints(token for ids in tokens for token in ids),
        positions_AT=positions,
        spans=Spans(
            rows=ints(number for number, _ in spans),
            offsets=ints(span.offset for _, span in spans),
            lengths=ints(span.length for _, span in spans),
            image_offsets=ints(span.image_offset for _, span in spans),
            images=[span.image for _, span in spans],
        ),
        both_ways=Ranges(
            rows=ints(number for number, _ in ranges),
            offsets=ints(offset for _, (offset, _) in ranges),
            lengths=ints(length for _, (_, length) in ranges),
        ),
    )


def positions_of(rows: Sequence[Row]) -> Ints | None:
    """Positions of all rows, those that say nothing counting up; None when no row says anything."""
    given = [row.positions for row in rows if row.positions is not None]
    if not given:
        return None
    counted = [np.arange(row.start, row.start + len(row.token_ids or [0])) for row in rows]
    axes = len(given[0])
    filled = (
        np.tile(up, (axes, 1)) if row.positions is None else row.positions
        for row, up in zip(rows, counted, strict=True)
    )
    return np.concatenate(list(filled), axis=1)


class Scores(NamedTuple):
    """What was said of a prompt's tokens but the first, and the best in the place of each."""

    logprobs: list[float]
    top: list[list[tuple[int, float]]]

    def add(self, row: PromptScores) -> None:
        assert row.first == len(self.logprobs) + 1
        self.logprobs.extend(row.logprobs)
        best = iter(zip(row.top_token_ids, row.top_logprobs, strict=True))
        self.top.extend([next(best) for _ in range(row.num_top)] for _ in row.logprobs)
        assert next(best, None) is None


class Driver:
    """Runs prompts on one shard. Blocks are handed out in a scattered order and never shared."""

    def __init__(self, shard: Shard, num_blocks: int = 512, block_size: int = 16) -> None:
        self.shard = shard
        self.block_size = block_size
        self.free = list(np.random.default_rng(7).permutation(num_blocks))
        self.owned: dict[int, int] = {}
        self.next_step = 0

    def step(self, rows: Sequence[Row], **parts: list[Any]) -> StepResult:
        plan = StepPlan(
            epoch=1,
            step=self.next_step,
            forget_sequences=parts.get("forget_sequences", []),
            forget_images=parts.get("forget_images", []),
            new_sequences=parts.get("new_sequences", []),
            encode_images=parts.get("encode_images", []),
            rows=rows_of(rows),
        )
        self.next_step += 1
        return self.shard.step(plan)

    def learn(
        self,
        sequence: int,
        prompt: Prompt,
        sampling: Sampling = GREEDY,
        grammar: Grammar | None = None,
        **asked: int,
    ) -> None:
        """Announces a sequence and encodes its images."""
        for one in prompt.images.values():
            self.shard.images.put(one)
        new = NewSequence(sequence, sampling, ints(prompt.token_ids), grammar, **asked)
        ranks = self.shard.ranks
        encode = [EncodeImage(name, number % ranks.world_size) for number, name in enumerate(prompt.images)]
        self.owned.pop(sequence, None)
        assert not self.step([], new_sequences=[new], encode_images=encode).failures

    def chunk(self, sequence: int, prompt: Prompt, start: int, stop: int) -> Row:
        """The row that computes tokens `start..stop` of a prompt, and samples if they are the last."""
        spans = []
        for run in prompt.runs:
            first, last = max(start, run.offset), min(stop, run.offset + run.length)
            if first < last:
                image_offset = run.image_offset + first - run.offset
                spans.append(SpanEntry(first - start, last - first, image_offset, run.image.header.key))
        return Row(
            sequence,
            start,
            prompt.token_ids[start:stop],
            self.blocks(sequence, stop),
            sample=stop == len(prompt.token_ids),
            reset=start == 0,
            spans=spans,
            positions=prompt.positions_of(start, stop),
            both_ways=[(first - start, length) for first, length in prompt.both_ways if start <= first < stop],
        )

    def decode(self, sequence: int, length: int, prompt: Prompt | None = None) -> Row:
        """The row that computes token number `length`, the one sampled last, at the position that follows `prompt`."""
        positions = None if prompt is None else prompt.positions_of(length, length + 1)
        return Row(sequence, length, None, self.blocks(sequence, length + 1), positions=positions)

    def blocks(self, sequence: int, num_tokens: int) -> list[int]:
        """New blocks, so that the sequence has room for this many tokens."""
        needed = -(-num_tokens // self.block_size) - self.owned.get(sequence, 0)
        self.owned[sequence] = self.owned.get(sequence, 0) + max(0, needed)
        return [int(self.free.pop()) for _ in range(needed)]

    def generate(
        self, prompts: Sequence[Prompt], num_tokens: int, cuts: Sequence[int] = (), sampling: Sequence[Sampling] = ()
    ) -> list[list[int]]:
        """Runs the prompts side by side, each cut at `cuts`, and returns what each sampled."""
        return [[token for token, _ in one] for one in self.generate_scored(prompts, num_tokens, cuts, sampling)]

    def generate_scored(
        self, prompts: Sequence[Prompt], num_tokens: int, cuts: Sequence[int] = (), sampling: Sequence[Sampling] = ()
    ) -> list[list[tuple[int, float]]]:
        """Like `generate`, with log-probabilities."""
        outputs: list[list[tuple[int, float]]] = [[] for _ in prompts]
        first = 1000 * (self.next_step + 1)
        for number, prompt in enumerate(prompts):
            self.learn(first + number, prompt, sampling[number] if sampling else GREEDY)
        for start, stop in self.pieces(prompts, cuts):
            rows = [
                self.chunk(first + number, prompt, start, min(stop, len(prompt.token_ids)))
                for number, prompt in enumerate(prompts)
                if start < len(prompt.token_ids)
            ]
            self.collect(self.step(rows), first, outputs)
        for index in range(num_tokens - 1):
            rows = [
                self.decode(first + number, len(prompt.token_ids) + index, prompt)
                for number, prompt in enumerate(prompts)
            ]
            self.collect(self.step(rows), first, outputs)
        self.step([], forget_sequences=[first + number for number in range(len(prompts))])
        return outputs

    def score(self, prompts: Sequence[Prompt], cuts: Sequence[int] = (), num_top: int = 0) -> list[Scores]:
        """Runs the prompts side by side, each cut at `cuts`, and returns the scores of their tokens but the first."""
        first = 1000 * (self.next_step + 1)
        scores = [Scores([], []) for _ in prompts]
        for number, prompt in enumerate(prompts):
            self.learn(first + number, prompt, prompt_num_top=num_top)
        for start, stop in self.pieces(prompts, cuts):
            chunks = [
                self.chunk(first + number, prompt, start, min(stop, len(prompt.token_ids)))
                for number, prompt in enumerate(prompts)
                if start < len(prompt.token_ids)
            ]
            result = self.step([replace(chunk, score=True) for chunk in chunks])
            assert not result.failures, result.failures
            for row in result.scores:
                scores[row.sequence - first].add(row)
        self.step([], forget_sequences=[first + number for number in range(len(prompts))])
        return scores

    @staticmethod
    def pieces(prompts: Sequence[Prompt], cuts: Sequence[int]) -> list[tuple[int, int]]:
        bounds = [0, *cuts, max(len(prompt.token_ids) for prompt in prompts)]
        return [(start, stop) for start, stop in zip(bounds, bounds[1:], strict=False) if start < stop]

    @staticmethod
    def collect(result: StepResult, first: int, outputs: list[list[tuple[int, float]]]) -> None:
        assert not result.failures, result.failures
        sampled = result.sampled
        for sequence, token, logprob in zip(sampled.sequences, sampled.token_ids, sampled.logprobs, strict=True):
            outputs[sequence - first].append((token, logprob))
