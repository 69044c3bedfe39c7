"""Attention backends by name. A new one is a file and a row."""

from __future__ import annotations

from importlib import import_module

from text_generation_server.attention.base import AttentionBackend

BACKENDS = {"torch": "text_generation_server.attention.torch:TorchAttention"}
DEFAULT = "torch"


class UnknownBackend(Exception):
    """No row of `BACKENDS` has this name."""


def find_backend(name: str) -> type[AttentionBackend]:
    """The class behind a flag's value; "auto" is the best that is installed."""
    row = BACKENDS.get(DEFAULT if name == "auto" else name)
    if row is None:
        raise UnknownBackend(f"attention backend {name} is not known; there is {', '.join(BACKENDS)}")
    module, _, member = row.partition(":")
    found: type[AttentionBackend] = getattr(import_module(module), member)
    return found
