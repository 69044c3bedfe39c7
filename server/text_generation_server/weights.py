"""Reads safetensors by name, each rank only the slices it computes with.

No other format, no pickle, no second copy: a slice is read, cast and moved, then forgotten here.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

INDEX_FILE = "model.safetensors.index.json"
PROGRESS_INTERVAL_S = 0.2

log = logging.getLogger(__name__)


class WeightError(Exception):
    """A tensor is missing, misshapen or unreadable. The text names it."""


def log_progress(done_bytes: int, total_bytes: int) -> None:
    """One log line the launcher can draw a bar from."""
    progress = {"done": done_bytes, "total": total_bytes}
    log.info("loading weights: %d of %d MB", done_bytes >> 20, total_bytes >> 20, extra={"progress": progress})


class Weights:
    """The checkpoint of one folder. Use as a context manager; files close at its end."""

    def __init__(
        self,
        model_dir: Path,
        dtype: torch.dtype,
        device: torch.device,
        report: Callable[[int, int], None] = log_progress,
    ) -> None:
        self.model_dir = model_dir
        self.dtype = dtype
        self.device = device
        self._report = report
        self._stack = ExitStack()
        paths = _weight_files(model_dir)
        # Where a tensor is and what its file calls it, by the name models use.
        self._tensors = {name: (handle, name) for path in paths for name, handle in self._open(path)}
        self.total_bytes = sum(path.stat().st_size for path in paths)
        self._done_bytes = 0
        self._reported_at = 0.0

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._report(self.total_bytes, self.total_bytes)

    def _open(self, path: Path) -> list[tuple[str, Any]]:
        # safetensors checks the header against the file's length and every tensor's dtype x shape.
        try:
            handle = self._stack.enter_context(safe_open(path, framework="pt"))
        except (SafetensorError, OSError) as error:
            raise WeightError(f"{path.name} is not a sound safetensors file: {error}") from error
        return [(name, handle) for name in handle.keys()]  # noqa: SIM118 (a handle is not iterable)

    def rename(self, prefixes: Mapping[str, str]) -> None:
        """Makes tensors whose names begin with a key known by its value in the key's place; the longest key counts.

        Raises:
            WeightError: two tensors would have the same name.
        """
        renamed: dict[str, tuple[Any, str]] = {}
        for name, found in self._tensors.items():
            key = max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default=None)
            new = name if key is None else prefixes[key] + name.removeprefix(key)
            if new in renamed:
                raise WeightError(f"{found[1]} and {renamed[new][1]} are two names of one tensor")
            renamed[new] = found
        self._tensors = renamed

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds this tensor."""
        return name in self._tensors

    def whole(self, name: str, shape: Sequence[int]) -> Tensor:
        """The whole tensor, which must have this shape."""
        return self._read(name, shape, ()).to(self.dtype)

    def exact(self, name: str, shape: Sequence[int]) -> Tensor:
        """The whole tensor in float32, for arithmetic that comes before the cast."""
        return self._read(name, shape, ()).float()

    def rows(self, name: str, shape: Sequence[int], start: int, stop: int) -> Tensor:
        """Rows `start..stop` of a tensor whose whole shape is `shape`."""
        return self._read(name, shape, (slice(start, stop),)).to(self.dtype)

    def columns(self, name: str, shape: Sequence[int], start: int, stop: int) -> Tensor:
        """Columns `start..stop` of a matrix whose whole shape is `shape`."""
        return self._read(name, shape, (slice(None), slice(start, stop))).to(self.dtype)

    def _read(self, name: str, shape: Sequence[int], index: tuple[slice, ...]) -> Tensor:
        part = self._slice(name, shape)
        try:
            tensor: Tensor = part[index] if index else part[...]
        except (SafetensorError, RuntimeError) as error:
            raise WeightError(f"{name} cannot be read: {error}") from error
        self._count(tensor)
        return tensor.to(self.device)

    def _slice(self, name: str, shape: Sequence[int]) -> Any:  # noqa: ANN401 (safetensors has no stubs for it)
        if name not in self._tensors:
            raise WeightError(f"{name} is not in the checkpoint")
        handle, stored_name = self._tensors[name]
        part = handle.get_slice(stored_name)
        found = list(part.get_shape())
        if found != list(shape):
            raise WeightError(f"{stored_name} has shape {found}; the config asks for {list(shape)}")
        return part

    def _count(self, tensor: Tensor) -> None:
        self._done_bytes += tensor.nbytes
        now = time.monotonic()
        if now - self._reported_at >= PROGRESS_INTERVAL_S:
            self._reported_at = now
            self._report(min(self._done_bytes, self.total_bytes), self.total_bytes)


def _weight_files(model_dir: Path) -> list[Path]:
    index = model_dir / INDEX_FILE
    try:
        if index.is_file():
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        else:
            names = sorted(path.name for path in model_dir.glob("*.safetensors"))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightError(f"{INDEX_FILE} is not a weight index: {type(error).__name__}") from error
    paths = [model_dir / _plain_name(name) for name in names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing or not paths:
        raise WeightError(f"the model folder lacks {', '.join(missing) or 'any .safetensors file'}")
    return paths


def _plain_name(name: object) -> str:
    # An index comes with the model; it must not name files elsewhere.
    if not isinstance(name, str) or Path(name).name != name:
        raise WeightError(f"{INDEX_FILE} names a file outside the model folder")
    return name
