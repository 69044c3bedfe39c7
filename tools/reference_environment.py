"""Says whether this Python holds what goldens are made with, requirements/reference.lock; fails where it does not.

    python tools/reference_environment.py

Goldens from other versions would mix two changes in one difference: theirs and ours. A lock file that moved is a reason
to make all goldens anew and to read what became different.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

LOCK = Path(__file__).resolve().parent.parent / "requirements" / "reference.lock"
DECIDING = {"jinja2", "numpy", "pillow", "safetensors", "timm", "tokenizers", "torch", "torchvision", "transformers"}
"""Packages whose version shows in pixels, token ids or logits."""


def pins(lock: str) -> Iterator[Requirement]:
    """What a lock file pins for this Python."""
    for line in re.findall(r"^[\w.-]+==[^\\\n]+", lock, re.MULTILINE):
        pin = Requirement(line.strip())
        if pin.marker is None or pin.marker.evaluate():
            yield pin


def differences(lock: str) -> list[str]:
    """What is installed otherwise than a lock file says. The build of a version (`+cpu`) does not matter."""
    found = []
    for pin in pins(lock):
        if pin.name not in DECIDING:
            continue
        installed = installed_version(pin.name)
        if installed is None or not pin.specifier.contains(installed.partition("+")[0], prereleases=True):
            found.append(f"{pin}: {installed or 'nothing'} is installed")
    return found


def installed_version(package: str) -> str | None:
    """None without the package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> int:
    """Prints each difference."""
    found = differences(LOCK.read_text(encoding="utf-8"))
    for difference in found:
        print(f"requirements/reference.lock: {difference}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
