"""What the encoder sees in each picture, kept on disk and mapped into memory: the newest so many pictures.

Eight bits a feature are enough: they lie between 0 and 6, and are mostly 0.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embedded_model.concepts import photo_names
from embedded_model.corpus import Corpus, Prepared
from embedded_model.encoder import WIDTH, Encoder
from embedded_model.photographs import CEILING, Imagination
from embedded_model.supervision import CELLS

LEVELS = 255
# How many drawn pictures it takes to know how often each feature fires.
MEASURED = 256


class Features:
    """A ring of pictures by number: number n lies in slot n modulo the size."""

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self._cells = _mapped(folder / f"features-{size}.npy", (size, CELLS, WIDTH), np.uint8)
        # Where the thing of a photograph is; nothing for drawn pictures.
        self._blobs = _mapped(folder / f"blobs-{size}.npy", (size, CELLS), np.float16)

    def known(self, written: int) -> range:
        """Numbers of the pictures kept when so many were written."""
        return range(max(0, written - self.size), written)

    def write(self, number: int, features: Tensor, blob: Tensor | None = None) -> None:
        """`features` [CELLS, WIDTH]."""
        slot = number % self.size
        self._cells[slot] = (features * (LEVELS / CEILING)).round().clamp(0, LEVELS).to(torch.uint8).cpu().numpy()
        self._blobs[slot] = 0 if blob is None else blob.cpu().numpy()

    def read(self, numbers: list[int]) -> Tensor:
        """[pictures, CELLS, WIDTH]."""
        slots = [number % self.size for number in numbers]
        return torch.from_numpy(self._cells[slots]).float() * (CEILING / LEVELS)

    def blob(self, number: int) -> Tensor:
        return torch.from_numpy(self._blobs[number % self.size].astype(np.float32))

    def flush(self) -> None:
        self._cells.flush()
        self._blobs.flush()


class Eye:
    """Fills `Features`: drawn pictures through the encoder, photographs from imagination."""

    def __init__(self, encoder: Encoder, corpus: Corpus, seed: int) -> None:
        self._encoder = encoder
        self._corpus = corpus
        self._seed = seed
        self._imagination = self._measured()

    def see(self, prepared: Prepared, features: Features) -> None:
        numbers = prepared.plan.fresh
        drawn = [number for number in numbers if self._corpus.scene(number).photo_class is None]
        if drawn:
            for number, seen in zip(drawn, self._encoder.features(torch.from_numpy(prepared.pixels)), strict=True):
                features.write(number, seen)
        photographs = [number for number in numbers if number not in set(drawn)]
        if photographs:
            self._imagine(photographs, features)

    def _imagine(self, numbers: list[int], features: Features) -> None:
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + numbers[0])
        classes = torch.tensor([self._corpus.scene(number).photo_class for number in numbers])
        for number, seen, blob in zip(numbers, *self._imagination.draw(classes, random), strict=True):
            features.write(number, seen, blob)

    def _measured(self) -> Imagination:
        """From the first pictures, so that a run that goes on imagines like one that began."""
        drawn = [number for number in range(2 * MEASURED) if self._corpus.scene(number).photo_class is None][:MEASURED]
        pixels = torch.from_numpy(np.stack([self._corpus.pixels(number) for number in drawn]))
        seen = torch.cat([self._encoder.features(part) for part in pixels.split(32)]).cpu()
        names = photo_names()
        unique = {name: index for index, name in enumerate(dict.fromkeys(names))}
        weight, bias = (tensor.cpu() for tensor in self._encoder.head)
        return Imagination((weight, bias), torch.tensor([unique[name] for name in names]), seen)


def _mapped(path: Path, shape: tuple[int, ...], dtype: type) -> "np.memmap[Any, Any]":
    if path.is_file():
        return np.lib.format.open_memmap(path, "r+")
    return np.lib.format.open_memmap(path, "w+", dtype, shape)
