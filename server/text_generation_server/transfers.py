"""Numbers on their way between the host and the device, without the host waiting for the device to come to them.

To a GPU they go through page-locked memory, which alone can be copied while the host goes on. Its reuse is PyTorch's
business: the allocator of such memory notes an event for each copy that does not block, and gives a piece to nobody
before its event has passed. On a CPU nothing is copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 64
"""Bytes that each array of a copy begins at a multiple of, so that kernels load them in wide pieces."""

TYPES: dict[np.dtype[Any], torch.dtype] = {
    np.dtype(np.int64): torch.int64,
    np.dtype(np.int32): torch.int32,
    np.dtype(np.float64): torch.float64,
    np.dtype(np.float32): torch.float32,
    np.dtype(np.uint8): torch.uint8,
    np.dtype(np.bool_): torch.bool,
}


class Transfers:
    """To one device and back from it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._copies = device.type != "cpu"

    def place(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """Each array on the device: one copy for all of them. On a CPU they share memory with what was given."""
        if not self._copies:
            return {name: _shared(array) for name, array in arrays.items()}
        ends = np.cumsum([_aligned(array.nbytes) for array in arrays.values()]).tolist()
        host = page_locked(ends[-1] if ends else 0, torch.uint8)
        starts = dict(zip(arrays, [0, *ends], strict=False))
        for name, array in arrays.items():
            _write(host, starts[name], array)
        there = host.to(self.device, non_blocking=True)
        return {name: _read(there, starts[name], array) for name, array in arrays.items()}

    def one(self, array: NDArray[Any]) -> Tensor:
        """`place` for a single array."""
        return self.place({"": array})[""]

    def overwrite(self, target: Tensor, array: NDArray[Any]) -> None:
        """Writes an array of the same type over the beginning of a flat tensor, which stays where it is."""
        host = torch.from_numpy(array)
        if self._copies:
            host = page_locked(len(array), target.dtype).copy_(host)
        target[: len(array)].copy_(host, non_blocking=True)

    def stacked(self, parts: Sequence[Tensor]) -> Tensor:
        """Equally shaped tensors of the host as one on the device."""
        if not self._copies:
            return torch.stack(list(parts))
        host = page_locked(len(parts) * parts[0].numel(), parts[0].dtype).view(len(parts), *parts[0].shape)
        return torch.stack(list(parts), out=host).to(self.device, non_blocking=True)

    def fetch(self, tensor: Tensor) -> Arriving:
        """Starts to copy a tensor to the host."""
        if not self._copies:
            return Arriving(tensor, None)
        host = page_locked(tensor.numel(), tensor.dtype).view(tensor.shape).copy_(tensor, non_blocking=True)
        return Arriving(host, recorded_event())


class Arriving:
    """A tensor that is on its way to the host."""

    def __init__(self, host: Tensor, done: torch.Event | None) -> None:
        self._host = host
        self._done = done

    def wait(self) -> NDArray[Any]:
        """Waits for this copy, and what was computed for it, alone."""
        if self._done is not None:
            self._done.synchronize()
        array: NDArray[Any] = self._host.numpy()
        return array


def page_locked(count: int, dtype: torch.dtype) -> Tensor:
    """Memory of the host that a GPU can copy from and to by itself."""
    return torch.empty(count, dtype=dtype, pin_memory=True)


def recorded_event() -> torch.Event:
    """What tells when all that the device was given so far is done."""
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event


def _shared(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _write(host: Tensor, start: int, array: NDArray[Any]) -> None:
    target = host.numpy()[start : start + array.nbytes].view(array.dtype)
    target[:] = array.reshape(-1)


def _read(there: Tensor, start: int, array: NDArray[Any]) -> Tensor:
    return there[start : start + array.nbytes].view(TYPES[array.dtype]).view(array.shape)


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT
