"""A stand-in for CUDA graphs: it replays by running the function again, and fails where a graph would go wrong.

A graph launches with the sizes, numbers and addresses it was captured with. So everything that the function launches is
written down (operations of PyTorch, and kernels of Triton under its interpreter), and a replay must launch the very
same. No test lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pretend import is_made_of_others
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from triton.runtime.interpreter import GridExecutor

aten = torch.ops.aten
ASKING = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.is_nonzero, aten.equal, aten.unique_dim}
"""Operations whose answer the host needs, so that it waits for the device."""


class Asked(RuntimeError):
    """Something that cannot be captured: the host would have to wait."""


class Launches(TorchDispatchMode):
    """Writes down what is launched. A tensor that was made meanwhile has no address that counts; all others have."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[Any, ...]] = []
        self._made: set[int] = set()
        self.paused = False
        """While the interpreter works."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        if is_made_of_others(func):
            with self:
                return func.decompose(*args, **kwargs)
        if func.overloadpacket in ASKING or _indexes_by_mask(func, args):
            raise Asked(f"{func} waits for the device")
        self.written.append((str(func), self._described(args), self._described(dict(kwargs))))
        output = func(*args, **kwargs)
        given = {_storage(tensor) for tensor in _tensors((args, kwargs))}
        self._made |= {_storage(tensor) for tensor in _tensors(output)} - given
        return output

    @contextmanager
    def kernel(self, name: str, grid: Any, args: Any, constants: Any) -> Iterator[None]:
        """A kernel is given addresses, no sizes. What the interpreter does itself is not launched anywhere."""
        addresses = tree_map_only(Tensor, lambda tensor: self._describe(tensor)[2:], args)
        self.written.append((name, grid, repr(addresses), repr(constants)))
        self.paused = True
        try:
            yield
        finally:
            self.paused = False

    def _described(self, values: Any) -> Any:
        return repr(tree_map_only(Tensor, self._describe, values))

    def _describe(self, tensor: Tensor) -> tuple[Any, ...]:
        # What oneDNN has packed has no address; it is a weight, and lives as long as the model.
        address = id(tensor) if tensor.is_mkldnn else tensor.data_ptr()
        strides = () if tensor.is_mkldnn else tensor.stride()
        return (tuple(tensor.shape), strides, str(tensor.dtype), None if _storage(tensor) in self._made else address)


@contextmanager
def watched() -> Iterator[Launches]:
    """Inside, launches are written down."""
    launch, launches = GridExecutor.__call__, Launches()

    def noted(self: Any, *args: Any, **constants: Any) -> None:
        with launches.kernel(self.fn.__name__, self.grid, args, constants):
            launch(self, *args, **constants)

    GridExecutor.__call__ = noted
    try:
        with launches:
            yield launches
    finally:
        GridExecutor.__call__ = launch


class StandIn:
    """A graph that is none."""

    def __init__(self, function: Callable[[], None]) -> None:
        function()
        with watched() as launches:
            function()
        self._function, self._written = function, launches.written
        self.replays = 0

    def replay(self) -> None:
        """Fails where the function would launch anything else now than when it was captured."""
        with watched() as launches:
            self._function()
        assert len(launches.written) == len(self._written)
        for captured, now in zip(self._written, launches.written, strict=True):
            assert captured == now, f"captured: {captured}\nnow: {now}"
        self.replays += 1


class StandInRecorder:
    """Captures stand-ins. Each takes as much memory as `costs` says of its turn."""

    def __init__(self, costs: Callable[[int], int] = lambda _: 0) -> None:
        self.graphs: list[StandIn] = []
        self.started_anew = 0
        self._costs, self._taken = costs, 0

    def capture(self, function: Callable[[], None]) -> StandIn:
        """See `Recorder`."""
        graph = StandIn(function)
        self._taken += self._costs(len(self.graphs))
        self.graphs.append(graph)
        return graph

    def taken_bytes(self) -> int:
        """See `Recorder`."""
        return self._taken

    def start_anew(self) -> None:
        """See `Recorder`."""
        self.started_anew += 1
        self._taken = 0

    @property
    def replays(self) -> int:
        """Of all graphs together."""
        return sum(graph.replays for graph in self.graphs)


def _indexes_by_mask(func: Any, args: tuple[Any, ...]) -> bool:
    indexing = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_)
    return indexing and any(index.dtype == torch.bool for index in _tensors(args[1]))


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> int:
    return id(tensor) if tensor.is_mkldnn else tensor.untyped_storage().data_ptr()
