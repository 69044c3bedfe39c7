"""Attention backends by name. A new one is a file and a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import torch

from text_generation_server.attention import flash_attn
from text_generation_server.attention.base import NO_GPU, AttentionBackend, AttentionShape

MAX_TRITON_HEAD_DIM = 256


class UnknownBackend(Exception):
    """No backend, and no group of some, has this name."""


class UnsuitableBackend(Exception):
    """The backend that was asked for cannot serve this model on this device."""


@dataclass(frozen=True)
class Chosen:
    """A backend, and why it is the one."""

    name: str
    reason: str

    def load(self) -> type[AttentionBackend]:
        """The class. What it is made of is imported only now."""
        module, _, member = BACKENDS[self.name].path.partition(":")
        found: type[AttentionBackend] = getattr(import_module(module), member)
        return found


Obstacle = Callable[[torch.device, torch.dtype, AttentionShape], str | None]


@dataclass(frozen=True)
class Row:
    """Where a backend is, and what says why it cannot serve a model on a device."""

    path: str
    obstacle: Obstacle


def choose(name: str, device: torch.device, dtype: torch.dtype, shape: AttentionShape) -> Chosen:
    """The backend behind a flag's value: the first of a group, or the one of that name, if it can do what is asked.

    Raises:
        UnknownBackend: there is nothing of that name.
        UnsuitableBackend: nothing of that name can do what this model needs here.
    """
    if name not in BACKENDS and name not in GROUPS:
        known = ", ".join([*GROUPS, *BACKENDS])
        raise UnknownBackend(f"attention backend {name} is not known; there is {known}")
    obstacles: dict[str, str] = {}
    for candidate in GROUPS.get(name, (name,)):
        obstacle = BACKENDS[candidate].obstacle(device, dtype, shape)
        if obstacle is NO_GPU and name == candidate == "triton" and _interprets():
            obstacle = None
        if obstacle is None:
            return Chosen(candidate, _reason(name, candidate, obstacles))
        obstacles[candidate] = obstacle
    raise UnsuitableBackend(f"attention backend {name} cannot be used: {_all_of(obstacles)}")


def _reason(asked: str, found: str, obstacles: Mapping[str, str]) -> str:
    if obstacles:
        return _all_of(obstacles)
    return "asked for" if asked == found else WHY_FIRST[asked]


def _all_of(obstacles: Mapping[str, str]) -> str:
    return "; ".join(dict.fromkeys(obstacles.values()))


def _obstacle_for_torch(device: torch.device, dtype: torch.dtype, shape: AttentionShape) -> None:
    del device, dtype, shape


def _obstacle_for_triton(device: torch.device, dtype: torch.dtype, shape: AttentionShape) -> str | None:
    del dtype
    if find_spec("triton") is None:
        return "Triton is not installed"
    if device.type == "cpu":
        return NO_GPU
    if shape.head_dim > MAX_TRITON_HEAD_DIM or shape.head_dim % 2:
        return f"Triton's kernels take even head widths up to {MAX_TRITON_HEAD_DIM}, not {shape.head_dim}"
    return None


def _interprets() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)


HERE = "text_generation_server.attention"
BACKENDS = {
    "torch": Row(f"{HERE}.torch:TorchAttention", _obstacle_for_torch),
    "triton": Row(f"{HERE}.triton:TritonAttention", _obstacle_for_triton),
    "flash_attn_2": Row(f"{HERE}.flash_attn:FlashAttention2", partial(flash_attn.obstacle, 2)),
    "flash_attn_3": Row(f"{HERE}.flash_attn:FlashAttention3", partial(flash_attn.obstacle, 3)),
}

# Nothing has been measured. Triton's kernels come first because they are always there, take blocks of any size, and so
# share prefixes finely (flash-attn 2 shares whole blocks of 256 tokens), and because a package that somebody installs
# should not change what serves a model. An interpreter is for tests, which ask for it by its name.
GROUPS = {"auto": ("triton", "flash_attn_3", "flash_attn_2", "torch"), "flash_attn": ("flash_attn_3", "flash_attn_2")}
WHY_FIRST = {
    "auto": "its kernels suit the device; flash_attn is used where it is asked for",
    "flash_attn": "the newest version that this device runs",
}
