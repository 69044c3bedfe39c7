"""Decode steps captured once and replayed: what the host does for a step no longer grows with the model's launches.

A ladder of batch sizes is captured at warm-up. A batch takes the next size, and the rows that fill it up own the
cache's zero block: they compute on zeros, and write nothing to the cache. Only steps of rows that all compute and
sample one token are replayed; everything else, sampling too, is launched as ever. A size that was not captured at
warm-up is never captured later: no request waits for a capture.

All graphs share one pool of memory, because only one of them runs at a time. So the largest is captured first, and the
others find room in what it took. Then they come from the smallest on, because small batches gain most; when the pool
outgrows its bound, what is left of the ladder is not captured, and those batches take the largest, if that does not
fill them up too far.

The vision encoder is not captured: encoders of `transformers` ask the device for sizes of their images.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from text_generation_server.attention.base import AttentionBackend, Bounds
from text_generation_server.batch import Batch, nothing
from text_generation_server.distributed import Ranks
from text_generation_server.models import Model
from text_generation_server.transfers import Transfers

MAX_SIZE = 256
"""Rows of the largest graph that is captured unasked. A larger batch computes long enough to hide its launches."""

STEP = 8
MIN_FILL = 8
"""Rows that may fill up a batch however small it is: so few cost what reading the weights costs anyway."""

MAX_BYTES = 1 << 30
MAX_SHARE = 16
"""Graphs take at most the `MAX_SHARE`-th part of what is there for keys and values, and at most `MAX_BYTES`."""

SIZES_A_LINE = 8
"""Graphs that are captured between two lines of the log."""

Reused = Callable[[Batch], "tuple[Tensor, Tensor] | None"]
"""Which tokens of a batch were sampled last, and what they are."""

FITS, TOO_LARGE, FAILED = range(3)
"""What ranks tell each other of a capture; the largest counts."""

log = logging.getLogger(__name__)


class CannotCapture(Exception):
    """The model does something that no graph can hold."""


class Replayable(Protocol):
    """What was captured."""

    def replay(self) -> None:
        """Launches all of it."""


class Recorder(Protocol):
    """Captures what a function launches."""

    def capture(self, function: Callable[[], None]) -> Replayable:
        """Runs the function, so that everything it needs is compiled and loaded, and then captures it.

        Raises:
            RuntimeError: it does something that cannot be captured, or there is no memory.
        """

    def taken_bytes(self) -> int:
        """Memory taken since the recorder was made. What was captured and dropped counts no more."""

    def start_anew(self) -> None:
        """Called when everything that was captured so far was dropped."""


class CudaRecorder:
    """CUDA's own graphs."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.start_anew()
        self._free_bytes = self._free()

    def capture(self, function: Callable[[], None]) -> Replayable:
        """See `Recorder`."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            function()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # What other threads do meanwhile (NCCL's watchdog, uploads) has nothing to do with the capture.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            function()
        return graph

    def taken_bytes(self) -> int:
        """See `Recorder`. By what the device has left: the driver's own memory for graphs is in no pool."""
        return self._free_bytes - self._free()

    def start_anew(self) -> None:
        """See `Recorder`."""
        self._pool = torch.cuda.graph_pool_handle()

    def _free(self) -> int:
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self._device)[0]


RECORDERS: dict[str, Callable[[torch.device], Recorder]] = {"cuda": CudaRecorder}
"""By type of device; others capture nothing."""


@dataclass(frozen=True)
class Captured:
    """What graphs are made of: a model, the attention it goes through, and the ranks that must do the same."""

    model: Model
    attention: AttentionBackend
    ranks: Ranks
    transfers: Transfers

    @property
    def device(self) -> torch.device:
        """Where all of it is."""
        return self.attention.cache_L2BSKD.device

    @property
    def zero_block(self) -> int:
        """The block of the cache that is never written."""
        return self.attention.cache_L2BSKD.shape[2] - 1


class DecodeGraphs:
    """The graphs of one warm-up, and the memory they read and write."""

    def __init__(self, parts: Captured, recorder: Recorder, max_blocks: int) -> None:
        """`max_blocks` is what one sequence may own."""
        self._parts = parts
        self._recorder = recorder
        self._max_blocks = max_blocks
        self._graphs: dict[int, Replayable] = {}

    @property
    def sizes(self) -> list[int]:
        """What was captured, ascending."""
        return sorted(self._graphs)

    def capture(self, sizes: Iterable[int], max_bytes: int) -> None:
        """Captures what fits into `max_bytes`, in the order that the module explains."""
        started = time.monotonic()
        waiting = deque(sorted(set(sizes)))
        total = len(waiting)
        try:
            while waiting:
                size = waiting.popleft() if self._graphs else waiting.pop()
                if self._capture_one(size, max_bytes):
                    self._tell(total)
                elif self._graphs:
                    break
                else:
                    self._recorder.start_anew()
        except CannotCapture as error:
            log.warning("CUDA graphs: %s, nor is anything else", error)
        took = (", ".join(map(str, self.sizes)) or "none", self._recorder.taken_bytes() >> 20, max_bytes >> 20)
        log.info("CUDA graphs of batches of %s: %d MB of at most %d, %.1f s", *took, time.monotonic() - started)

    def size_for(self, batch: Batch) -> int | None:
        """The size that a batch is replayed as; None if it is not."""
        if not batch.only_decodes:
            return None
        rows = len(batch.sample_sequences)
        size = min((size for size in self._graphs if size >= rows), default=None)
        return size if size is not None and size - rows <= max(rows, MIN_FILL) else None

    def replay(self, batch: Batch, size: int, reused: Reused) -> Tensor:
        """The logits of the batch's rows, [R, vocabulary]. They hold until the next replay."""
        filled = batch.filled_up(size, self._parts.zero_block)
        inputs = self._inputs.of(size)
        self._inputs.fill(filled)
        sampled = reused(batch)
        if sampled is not None:
            inputs.token_ids_T.index_copy_(0, *sampled)
        self._parts.attention.begin_step(filled.layout(inputs.slots_T, self._bounds))
        self._graphs[size].replay()
        return self._logits_RV[: len(batch.sample_sequences)]

    def _capture_one(self, size: int, max_bytes: int) -> bool:
        """Whether it was done within the bound. All ranks do the same, or they would wait for each other.

        Raises:
            CannotCapture: not for want of memory.
        """
        outcome, graph = self._attempt(size, max_bytes)
        outcome = self._parts.ranks.largest([outcome], self._parts.device)[0]
        if graph is not None and outcome == FITS:
            self._graphs[size] = graph
        elif outcome == FAILED:
            raise CannotCapture(f"a batch of {size} cannot be captured")
        return outcome == FITS

    def _attempt(self, size: int, max_bytes: int) -> tuple[int, Replayable | None]:
        try:
            self._prepare(size)
            graph = self._recorder.capture(lambda: self._compute(size))
        except torch.OutOfMemoryError:
            return TOO_LARGE, None
        except RuntimeError:
            log.exception("CUDA graphs: a batch of %d", size)
            return FAILED, None
        return (FITS, graph) if self._recorder.taken_bytes() <= max_bytes else (TOO_LARGE, None)

    def _prepare(self, size: int) -> None:
        if not self._graphs:
            self._make_room(size)
        filled = nothing(self._parts.model.shape.position_axes).filled_up(size, self._parts.zero_block)
        self._inputs.fill(filled)
        self._parts.attention.begin_step(filled.layout(self._inputs.of(size).slots_T, self._bounds))

    def _tell(self, total: int) -> None:
        if len(self._graphs) % SIZES_A_LINE == 0:
            log.info("CUDA graphs: %d of %d batch sizes are captured", len(self._graphs), total)

    def _make_room(self, size: int) -> None:
        shape = self._parts.model.shape
        self._bounds = Bounds(size, self._max_blocks)
        self._inputs = Inputs(self._parts, size)
        self._logits_RV = torch.zeros(size, shape.vocab_size, device=self._parts.device)

    def _compute(self, size: int) -> None:
        inputs, model = self._inputs.of(size), self._parts.model
        hidden_RH = model.forward(model.embed(inputs.token_ids_T), inputs.positions_AT, self._parts.attention)
        self._logits_RV[:size].copy_(model.logits(hidden_RH))


class Inputs:
    """What a captured step reads beside attention's buffers: one copy a step, into memory that stays where it is."""

    def __init__(self, parts: Captured, max_rows: int) -> None:
        self._transfers = parts.transfers
        self._axes = parts.model.shape.position_axes
        self._numbers = torch.zeros((2 + self._axes) * max_rows, dtype=torch.int64, device=parts.device)

    def fill(self, batch: Batch) -> None:
        """Writes the numbers of a batch that was filled up to one of the sizes."""
        numbers = np.concatenate((batch.token_ids_T, batch.slots_T, batch.positions_AT.reshape(-1)))
        self._transfers.overwrite(self._numbers, numbers)

    def of(self, size: int) -> StepInputs:
        """Where the numbers of that size are."""
        token_ids_T, slots_T, positions = torch.split(
            self._numbers[: (2 + self._axes) * size], [size, size, self._axes * size]
        )
        return StepInputs(token_ids_T, slots_T, positions.view(self._axes, size))


class StepInputs(NamedTuple):
    """See `Batch`; on the device."""

    token_ids_T: Tensor
    slots_T: Tensor
    positions_AT: Tensor


def ladder(asked: Sequence[int] | None, max_rows: int) -> list[int]:
    """Batch sizes to capture: those that were asked for, or ours. None is larger than a batch may be."""
    most = min(max_rows, MAX_SIZE)
    sizes = [1, 2, 4, *range(STEP, most + STEP, STEP)] if asked is None else asked
    return sorted({min(size, most if asked is None else max_rows) for size in sizes})


def max_bytes(cache_bytes: int) -> int:
    """What graphs may take of the memory that is there for keys and values."""
    return min(MAX_BYTES, cache_bytes // MAX_SHARE)
