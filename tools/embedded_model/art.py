"""Drawings: rasterised once from the icon sets into one file a style, then read from there."""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from embedded_model.concepts import Concept, concepts
from embedded_model.fetch import archive
from embedded_model.sources import ICONS, Package, style

SIDE = 160
MARGIN = 4
# How opaque a pixel must be to belong to the drawing; below it is a shadow's edge.
VISIBLE = 8
# Sets that number the variants of a drawing, or write its words together.
NUMBERED = re.compile(r"-\d+$")
INK = "#333333"


def rasterise(downloads: Path, folder: Path) -> None:
    """Writes one file for each style that has none yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in ICONS:
        path = folder / f"{style(package)}.npz"
        if path.is_file():
            continue
        drawings = list(_drawings(_icons(downloads, package)))
        np.savez_compressed(
            path, pixels=np.stack([pixels for _, pixels in drawings]), names=np.array([name for name, _ in drawings])
        )
        print(f"{path.stem}: {len(drawings)} drawings of {len({name for name, _ in drawings})} concepts", flush=True)


class Art:
    """Drawings by style and concept, RGBA."""

    def __init__(self, folder: Path, styles: tuple[str, ...]) -> None:
        self._drawings: dict[str, dict[str, list[Image.Image]]] = {}
        for name in styles:
            stored = np.load(folder / f"{name}.npz")
            by_concept = self._drawings.setdefault(name, {})
            for concept, pixels in zip(stored["names"], stored["pixels"], strict=True):
                by_concept.setdefault(str(concept), []).append(Image.fromarray(pixels))

    def counts(self) -> dict[str, dict[str, int]]:
        """How many drawings there are, by style and concept: what a scene can be planned with."""
        return {
            name: {concept: len(drawings) for concept, drawings in by.items()} for name, by in self._drawings.items()
        }

    def drawing(self, style_name: str, concept: str, number: int) -> Image.Image:
        return self._drawings[style_name][concept][number]


def _icons(downloads: Path, package: Package) -> Mapping[str, Any]:
    path = archive(downloads, package)
    if path is None:
        raise FileNotFoundError(f"{package.name} was not fetched")
    with tarfile.open(path) as files:
        member = files.extractfile("package/icons.json")
        if member is None:
            raise FileNotFoundError(f"{path.name} holds no icons")
        loaded: Mapping[str, Any] = json.load(member)
    return loaded


def _drawings(icons: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Concept and pixels of everything in a set that we have a name for."""
    for concept in concepts().values():
        for key in _keys(icons, concept):
            pixels = _render(_svg(icons, key))
            if pixels is not None:
                yield concept.name, pixels


def _keys(icons: Mapping[str, Any], concept: Concept) -> list[str]:
    """The set's own names for a concept, each once."""
    aliases: Mapping[str, Any] = icons.get("aliases", {})
    spelled: dict[str, str] = {}
    for key in icons["icons"]:
        spelled.setdefault(key.replace("-", ""), key)
        spelled.setdefault(NUMBERED.sub("", key).replace("-", ""), key)
    found = []
    for label in (*concept.labels, concept.name):
        slug = _slug(label)
        parent = aliases.get(slug, {}).get("parent")
        candidates = (slug, parent, f"{slug}-face", spelled.get(slug.replace("-", "")))
        key = next((key for key in candidates if key in icons["icons"]), None)
        if key is not None and key not in found:
            found.append(key)
    return found


def _slug(label: str) -> str:
    plain = label.lower().replace("’", "").replace("'", "").replace(".", "")
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _svg(icons: Mapping[str, Any], key: str) -> str:
    icon = icons["icons"][key]
    left, top, width, height = (
        icon.get(part, icons.get(part, default))
        for part, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    body = icon["body"].replace("currentColor", INK)
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="{left} {top} {width} {height}" width="{SIDE}" height="{SIDE}">{body}</svg>'


def _render(svg: str) -> np.ndarray | None:
    """[SIDE, SIDE, 4], the drawing as large as fits; nothing when the set's file draws nothing."""
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    visible = image.getchannel("A").point([0] * VISIBLE + [255] * (256 - VISIBLE)).getbbox()
    if visible is None:
        return None
    image = image.crop(visible)
    scale = (SIDE - 2 * MARGIN) / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGBA", (SIDE, SIDE))
    canvas.paste(image.resize(size, Image.Resampling.LANCZOS), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.asarray(canvas)
