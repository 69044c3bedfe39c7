"""The collectives a rank needs, and nothing at all when it is alone.

A world of one has no process group: every method returns its argument. What models use, `sum` and `concatenate`, asks
the host for nothing and can be captured.
"""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from text_generation_server.one_shot import OneShot, meet

COLLECTIVE_TIMEOUT = timedelta(seconds=30)
"""A lost rank must not hang the others longer than this."""


class RanksApart(Exception):
    """The ranks did not meet."""


class Ranks:
    """This rank's place among the ranks, and how they talk."""

    def __init__(self, rank: int = 0, world_size: int = 1, one_shot: OneShot | None = None) -> None:
        self.rank = rank
        self.world_size = world_size
        self._one_shot = one_shot

    def sum(self, partial: Tensor) -> Tensor:
        """Adds up every rank's tensor, in place or not: what was given is of no use any more."""
        if self.world_size == 1:
            return partial
        if self._one_shot is not None and self._one_shot.takes(partial):
            return self._one_shot.sum(partial)
        dist.all_reduce(partial)
        return partial

    def concatenate(self, part: Tensor) -> Tensor:
        """Joins every rank's equally shaped tensor along the last axis."""
        if self.world_size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.world_size)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts, dim=-1)

    def largest(self, values: list[int], device: torch.device) -> list[int]:
        """The element-wise maximum of every rank's list; lists are equally long."""
        if self.world_size == 1 or not values:
            return values
        numbers = torch.tensor(values, device=device)
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
        return [int(number) for number in numbers.tolist()]

    def broadcast(self, tensor: Tensor, source: int) -> Tensor:
        """Overwrites `tensor` with what rank `source` holds."""
        if self.world_size > 1:
            dist.broadcast(tensor, source)
        return tensor


def join(rank: int, world_size: int, master_port: int, device: torch.device) -> Ranks:
    """Meets the other ranks on loopback: NCCL between GPUs, and `OneShot` if they can; gloo between CPUs."""
    if world_size == 1:
        return Ranks()
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"tcp://127.0.0.1:{master_port}",
            rank=rank,
            world_size=world_size,
            timeout=COLLECTIVE_TIMEOUT,
        )
    except RuntimeError as error:
        raise RanksApart(f"rank {rank} did not meet the others on port {master_port}: {error}") from error
    return Ranks(rank, world_size, meet(rank, world_size, device) if device.type == "cuda" else None)


def leave() -> None:
    """Ends the process group, if one was started.

    A process that ends with its group open may be aborted: the group's threads still run while it is taken down.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
