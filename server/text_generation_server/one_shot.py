"""Sums of small tensors over the GPUs of one machine, in one launch: each reads what all others have written.

NCCL's sums take tens of microseconds however little there is to add up, and a decode step has two in each layer. Here
every rank copies its part into memory that the others can read (PyTorch's symmetric memory), and adds up all of them by
itself; the operation lets no rank go on before everybody has read. It asks the host for nothing, so it can be captured.
Above `MAX_BYTES` each rank would read too much. That limit is a guess: it was never measured, nor was any of this run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

MAX_BYTES = 256 << 10
TYPES = (torch.float32, torch.bfloat16)
"""What the operation adds up."""

ALIGNMENT = 16
"""Bytes that it reads at once."""

log = logging.getLogger(__name__)

Sum = Callable[[Tensor], Tensor]
"""Of every rank's equally long part of the shared memory."""


class OneShot:
    """The memory that is shared, and the operation that adds up. Calls come in the same order on every rank."""

    def __init__(self, shared: Tensor, add_up: Sum) -> None:
        """`shared` is [bytes], uint8, at the same place of every rank's memory."""
        self._shared = {dtype: shared.view(dtype) for dtype in TYPES}
        self._add_up = add_up

    def takes(self, partial: Tensor) -> bool:
        """Whether the tensor is small enough, and of a kind that can be added up. The same on every rank."""
        fits = partial.nbytes <= MAX_BYTES and partial.nbytes % ALIGNMENT == 0
        return fits and partial.dtype in TYPES and partial.numel() > 0

    def sum(self, partial: Tensor) -> Tensor:
        """The sum of every rank's tensor, as a new one."""
        part = self._shared[partial.dtype][: partial.numel()]
        part.copy_(partial.reshape(-1))
        return self._add_up(part).view(partial.shape)


def meet(rank: int, world_size: int, device: torch.device) -> OneShot | None:
    """Shares memory with the other ranks, if all GPUs can read each other's and the sums are right; says which it is.

    Every rank calls it, and all get the same answer. The process group must be there.
    """
    found = None
    obstacle = "not every GPU can read the memory of the others"
    if _all_agree(_all_are_peers(world_size), device):
        obstacle = "the ranks cannot share memory"
        found = _opened(device)
    if _all_agree(found is not None, device):
        obstacle = "its sums are wrong here"
        if _all_agree(found is not None and is_right(found, rank, world_size, device), device):
            log.info("sums of up to %d KiB are made in one shot, larger ones by NCCL", MAX_BYTES >> 10)
            return found
    log.info("all sums are made by NCCL: %s", obstacle)
    return None


def is_right(one_shot: OneShot, rank: int, world_size: int, device: torch.device) -> bool:
    """Tries a sum of each type whose result is known, twice, because the second finds what the first left behind."""
    right = []
    for dtype in TYPES:
        for factor in (1, 2):
            part = torch.full((64,), factor * (rank + 1), dtype=dtype, device=device)
            expected = factor * world_size * (world_size + 1) // 2
            # Whatever comes of it here, the others wait for the next one.
            right.append(bool((one_shot.sum(part) == expected).all()))
    return all(right)


def _all_are_peers(world_size: int) -> bool:
    pairs = ((one, other) for one in range(world_size) for other in range(world_size) if one != other)
    return all(torch.cuda.can_device_access_peer(*pair) for pair in pairs)


def _opened(device: torch.device) -> OneShot | None:
    try:
        # Only where there are GPUs: it belongs to their part of torch.
        from torch.distributed import _symmetric_memory as symmetric

        group = dist.group.WORLD.group_name  # type: ignore[union-attr]
        shared = symmetric.empty(MAX_BYTES, dtype=torch.uint8, device=device)
        symmetric.rendezvous(shared, group)
    except (ImportError, RuntimeError) as error:
        log.warning("memory cannot be shared among ranks: %s", error)
        return None
    return OneShot(shared, lambda part: torch.ops.symm_mem.one_shot_all_reduce(part, "sum", group))


def _all_agree(answer: bool, device: torch.device) -> bool:
    votes = torch.tensor(int(answer), device=device)
    dist.all_reduce(votes, op=dist.ReduceOp.MIN)
    return bool(votes)
