"""The parts there are. A new one is a file and a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module

from gpu_check.place import Place
from gpu_check.rows import Row


@dataclass(frozen=True)
class Part:
    """One part. `limit_s` is for its whole process, start included."""

    letter: str
    title: str
    module: str
    limit_s: int

    def load(self) -> Callable[[Place], Iterator[Row]]:
        """The function; what it needs is imported only now."""
        found: Callable[[Place], Iterator[Row]] = import_module(self.module).parts
        return found


PARTS = (
    Part("a", "kernels equal their PyTorch twins", "gpu_check.kernels", 120),
    Part("b", "captured steps give the tokens of launched ones", "gpu_check.graphs", 90),
    Part("c", "families in bfloat16 against transformers in float32", "gpu_check.families", 150),
    Part("d", "decode steps against copy bandwidth", "gpu_check.speed", 90),
    Part("e", "pictures against the peak of matrix products", "gpu_check.pictures", 60),
    Part("f", "what the device does between kernels, and streams beside pictures", "gpu_check.streams", 90),
    Part("g", "a second turn about a picture, launched", "gpu_check.turns", 90),
    Part("h", "memory that was promised, and memory that runs out", "gpu_check.room", 90),
)
