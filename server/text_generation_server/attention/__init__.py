"""Attention backends by name. A new one is a file and a row."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import torch

from text_generation_server.attention.base import AttentionBackend, AttentionShape

BACKENDS = {
    "torch": "text_generation_server.attention.torch:TorchAttention",
    "triton": "text_generation_server.attention.triton:TritonAttention",
}
MAX_TRITON_HEAD_DIM = 256
NEEDS_GPU = "Triton's kernels need a GPU"


class UnknownBackend(Exception):
    """No row of `BACKENDS` has this name."""


class UnsuitableBackend(Exception):
    """The backend that was asked for cannot serve this model on this device."""


@dataclass(frozen=True)
class Chosen:
    """A backend, and why it is the one."""

    name: str
    reason: str

    def load(self) -> type[AttentionBackend]:
        """The class. What it is made of is imported only now."""
        module, _, member = BACKENDS[self.name].partition(":")
        found: type[AttentionBackend] = getattr(import_module(module), member)
        return found


def choose(name: str, device: torch.device, shape: AttentionShape) -> Chosen:
    """The backend behind a flag's value; "auto" is judged by what device and model can do, nothing is measured.

    Raises:
        UnknownBackend: the name has no row.
        UnsuitableBackend: it was named, and cannot do what this model needs here.
    """
    if name != "auto" and name not in BACKENDS:
        raise UnknownBackend(f"attention backend {name} is not known; there is {', '.join(BACKENDS)}")
    obstacle = _obstacle_for_triton(device, shape)
    # Its interpreter is for tests, which ask for it.
    if name == "triton" and obstacle is not None and not (obstacle is NEEDS_GPU and _interprets()):
        raise UnsuitableBackend(f"attention backend triton cannot be used: {obstacle}")
    if name != "auto":
        return Chosen(name, "asked for")
    return Chosen("triton", "its kernels suit the device") if obstacle is None else Chosen("torch", obstacle)


def _obstacle_for_triton(device: torch.device, shape: AttentionShape) -> str | None:
    if find_spec("triton") is None:
        return "Triton is not installed"
    if device.type == "cpu":
        return NEEDS_GPU
    if shape.head_dim > MAX_TRITON_HEAD_DIM or shape.head_dim % 2:
        return f"Triton's kernels take even head widths up to {MAX_TRITON_HEAD_DIM}, not {shape.head_dim}"
    return None


def _interprets() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)
