"""A device that is none: tensors that say they are on it and compute on the CPU, and a list of what makes a host wait.

On a real one the host waits where it copies from memory that is not page-locked, where it copies back, and where it
asks for a number. No test lives here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from text_generation_server import transfers
from text_generation_server.layers import fused

aten = torch.ops.aten
DEVICE = torch.device("cuda", 0)

ASKING = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.is_nonzero, aten.equal}


class There(Tensor):
    """A tensor on the device."""

    held: Tensor

    @staticmethod
    def __new__(cls: type[There], inner: Tensor) -> There:
        there: There = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        there.held = inner
        return there

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise AssertionError(f"{func} outside of `Pretending`")


class Pretending(TorchDispatchMode):
    """Runs everything on the CPU, and notes what would have made the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.uploads = 0
        self.page_locked: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if is_made_of_others(func):
            with self:
                return func.decompose(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = any(isinstance(tensor, There) for tensor in given)
        target = kwargs.get("device")
        self._note(func, args, kwargs)
        if target is not None and torch.device(target).type == DEVICE.type:
            kwargs["device"], there = torch.device("cpu"), True
        elif func.overloadpacket is aten._to_copy and target is not None:
            there = False
        kwargs.pop("pin_memory", None)
        output = func(*_unwrapped(args), **_unwrapped(kwargs))
        written = [result.alias_info is not None and result.alias_info.is_write for result in func._schema.returns]
        if any(written):
            return kwargs.get("out", args[0])
        return tree_map_only(Tensor, There, output) if there else output

    def _note(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        packet = func.overloadpacket
        if packet is aten._to_copy and kwargs.get("device") is not None:
            self._copied(args[0], torch.device(kwargs["device"]), bool(kwargs.get("non_blocking")), str(func))
        elif packet is aten.copy_:
            non_blocking = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))
            self._copied(args[1], args[0].device, non_blocking, str(func))
        elif packet in ASKING and isinstance(args[0], There):
            self.waits.append(str(func))
        elif packet in (aten.index, aten.index_put, aten.index_put_) and isinstance(args[0], There):
            masks = [index for index in args[1] if index is not None and index.dtype == torch.bool]
            from_host = [index for index in args[1] if index is not None and not isinstance(index, There)]
            self.waits += [f"{func} by {len(masks)} masks and {len(from_host)} of the host"] * bool(masks or from_host)

    def _copied(self, source: Tensor, target: torch.device, non_blocking: bool, what: str) -> None:
        here, there = not isinstance(source, There), target.type == DEVICE.type
        if here and there:
            self.uploads += 1
            locked = source.untyped_storage().data_ptr() in self.page_locked
            # A single number goes along with the launch.
            if source.dim() and not (locked and non_blocking):
                self.waits.append(f"{what} of {tuple(source.shape)} to the device")
        elif not here and not there and not non_blocking:
            self.waits.append(f"{what} of {tuple(source.shape)} to the host")


class Event:
    """Counts who waits for it."""

    def __init__(self, waits: list[str]) -> None:
        self._waits = waits

    def synchronize(self) -> None:
        """See `torch.Event`."""
        self._waits.append("an event")


@contextmanager
def pretending(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretending]:
    """Inside, there is the device."""
    mode = Pretending()
    kept = []

    def page_locked(count: int, dtype: torch.dtype) -> Tensor:
        memory = torch.empty(count, dtype=dtype)
        kept.append(memory)
        mode.page_locked.add(memory.untyped_storage().data_ptr())
        return memory

    torch._C._ensureCUDADeviceGuardSet()
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    # Ours that are compiled would look for a GPU.
    monkeypatch.setattr(fused, "_on_gpu", lambda _: False)
    monkeypatch.setattr(transfers, "page_locked", page_locked)
    monkeypatch.setattr(transfers, "recorded_event", lambda: Event(mode.waits))
    with mode:
        yield mode


def is_made_of_others(func: Any) -> bool:
    """Whether the operation is nothing of its own: in inference mode such ones come here whole."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


def _unwrapped(values: Any) -> Any:
    return tree_map_only(There, lambda tensor: tensor.held, values)
