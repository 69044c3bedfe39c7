"""The photographs that ship with scikit-image and scikit-learn, and what the encoder's published head calls them.

No photograph is trained on, so the head's own name for one is the most that can be asked for.
"""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from embedded_model.concepts import photo_names
from embedded_model.encoder import Encoder
from embedded_model.fetch import archive
from embedded_model.pictures import SIDE
from embedded_model.sources import PHOTOGRAPHS

FOLDERS = ("skimage/data/", "sklearn/datasets/images/")
# Below this share of all names together the head has no opinion.
SURE = 0.3


def photographs(downloads: Path) -> Iterator[tuple[str, Image.Image]]:
    """File names and pictures."""
    for package in PHOTOGRAPHS:
        path = archive(downloads, package)
        if path is None:
            raise FileNotFoundError(f"{package.name} was not fetched")
        with zipfile.ZipFile(path) as files:
            for name in files.namelist():
                if name.startswith(FOLDERS) and name.endswith((".png", ".jpg")):
                    yield name.rpartition("/")[2], Image.open(io.BytesIO(files.read(name))).convert("RGB")


def named(encoder: Encoder, picture: Image.Image) -> tuple[str, float]:
    """The name that the head gives a picture, and how sure it is; classes of one name count together."""
    pixels = np.array(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    shares = encoder.classes(encoder.features(torch.from_numpy(pixels)[None]))[0]
    by_name: dict[str, float] = {}
    for name, share in zip(photo_names(), shares.tolist(), strict=True):
        by_name[name] = by_name.get(name, 0.0) + share
    best = max(by_name, key=lambda name: by_name[name])
    return best, by_name[best]
