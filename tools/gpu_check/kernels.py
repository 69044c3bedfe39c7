"""Part a: the product's own kernels, compiled, against their PyTorch twins: the cases of `server/tests`."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_check.place import Place
from gpu_check.pytests import run
from gpu_check.rows import Row

FILES = ("test_triton.py", "test_fused.py")
DRY = "equals_torch and bfloat16 or test_pixels"


def parts(place: Place) -> Iterator[Row]:
    """One row a file."""
    for name in FILES:
        yield run(place, name, ("-k", DRY) if place.tiny else ())
