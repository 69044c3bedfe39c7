"""Writes the goldens of router/src/images: what Pillow and the Hugging Face processors make of the same bytes.

Run it from the repository root, with Pillow and transformers installed, when a rule changes or a case is added:

    python tools/goldens_images.py

`resize.txt` holds random resizes of pixels that the test generates itself; `decode.txt` the checksum of every file in
`corpus/`, upright and converted to RGB by the processors' own `convert_to_rgb`. The corpus is written here as well and
is committed, because encoders change. Nothing here is used at run time. What a family's processor makes of an image is
in `goldens_families.py`.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageOps
from transformers.image_transforms import convert_to_rgb

GOLDENS = Path(__file__).parent.parent / "router" / "tests" / "goldens" / "images"
CORPUS = GOLDENS / "corpus"
FILTERS = {"box": 4, "bilinear": 2, "hamming": 5, "bicubic": 3, "lanczos": 1}
NUM_RESIZES = 2000
EXIF_ORIENTATION = 0x0112


def mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: good noise that both languages compute alike."""
    mixed = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def checksum(pixels: np.ndarray) -> str:
    """Sum of byte times noise of its index, modulo 2^64."""
    data = pixels.reshape(-1).astype(np.uint64)
    return f"{int(np.sum(data * mix(np.arange(data.size, dtype=np.uint64)), dtype=np.uint64)):016x}"


def generate(seed: int, width: int, height: int, kind: str) -> np.ndarray:
    """Pixels of one of three kinds; the test has the same function."""
    size = height * width * 3
    if kind == "smooth":
        y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
        return ((x * 3 + y * 5 + c * 40 + x * y // 7 + seed) % 256).astype(np.uint8)
    noise = mix(np.arange(size, dtype=np.uint64) + np.uint64(seed * 1_000_003)) >> np.uint64(56)
    if kind == "binary":
        noise = (noise >> np.uint64(7)) * np.uint64(255)
    return noise.astype(np.uint8).reshape(height, width, 3)


def side(draw: random.Random) -> int:
    return draw.choice([1, 2, draw.randint(1, 12), draw.randint(1, 90), draw.randint(1, 90)])


def sizes(draw: random.Random) -> tuple[int, int, int, int]:
    """Width and height before and after."""
    shape = draw.randrange(6)
    if shape == 0:  # every side rounded to a multiple of 28
        width, height = draw.randint(20, 150), draw.randint(20, 150)
        return width, height, max(28, round(width / 28) * 28), max(28, round(height / 28) * 28)
    if shape == 1:  # extreme ratio
        width, height = draw.randint(1, 5), draw.randint(100, 700)
        return (
            (width, height, side(draw), side(draw)) if draw.random() < 0.5 else (height, width, side(draw), side(draw))
        )
    width, height = side(draw), side(draw)
    if shape == 2:  # one side stays
        return (width, height, width, side(draw)) if draw.random() < 0.5 else (width, height, side(draw), height)
    return width, height, side(draw), side(draw)


def inner(draw: random.Random, width: int, height: int, share: float) -> tuple[int, int, int, int]:
    """A rectangle as x, y, width, height: the whole, or a random part."""
    if draw.random() > share:
        return 0, 0, width, height
    x, y = draw.randrange(width), draw.randrange(height)
    return x, y, draw.randint(1, width - x), draw.randint(1, height - y)


def resize_cases() -> Iterator[str]:
    draw = random.Random(13)
    names = list(FILTERS)
    for seed in range(NUM_RESIZES):
        name, kind = names[seed % len(names)], draw.choice(["noise", "binary", "smooth"])
        width, height, out_width, out_height = sizes(draw)
        source = inner(draw, width, height, 0.2)
        kept = inner(draw, out_width, out_height, 0.3)
        image = Image.fromarray(generate(seed, width, height, kind))
        image = image.crop((source[0], source[1], source[0] + source[2], source[1] + source[3]))
        image = image.resize((out_width, out_height), FILTERS[name])
        image = image.crop((kept[0], kept[1], kept[0] + kept[2], kept[1] + kept[3]))
        numbers = " ".join(map(str, (width, height, *source, out_width, out_height, *kept)))
        yield f"{name} {kind} {numbers} {checksum(np.array(image))}"


def scene(width: int, height: int) -> Image.Image:
    """Gradients, edges, text-like detail and noise, different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) * 3 % 256], axis=-1)
    noise = (mix(np.arange(base.size, dtype=np.uint64)) % np.uint64(24)).astype(np.int64).reshape(base.shape)
    image = Image.fromarray(np.clip(base + noise - 12, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 4, height // 5), fill=(220, 30, 40))
    draw.ellipse(
        (width // 2, height // 3, width * 5 // 6, height * 4 // 5), fill=(20, 90, 200), outline=(255, 255, 255)
    )
    draw.line((0, height - 1, width - 1, 0), fill=(0, 0, 0))
    return image


def alpha_of(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.where((x // 5 + y // 5) % 3 == 0, 0, (x * 7 + y * 3) % 256).astype(np.uint8))


def encoded(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[EXIF_ORIENTATION] = orientation
    return block.tobytes()


def xmp(orientation: int) -> bytes:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    )


def jpegs() -> Iterator[tuple[str, bytes]]:
    names = {0: "444", 1: "422", 2: "420"}
    for sampling, name in names.items():
        for progressive in (False, True):
            for quality, (width, height) in (
                (90, (67, 45)),
                (35, (130, 97)),
                (75, (1, 1)),
                (75, (9, 16)),
                (95, (17, 3)),
            ):
                kind = "progressive" if progressive else "baseline"
                options = {"quality": quality, "subsampling": sampling, "progressive": progressive}
                yield (
                    f"{name}-{kind}-{width}x{height}-q{quality}",
                    encoded(scene(width, height), format="JPEG", **options),
                )
    photo = scene(61, 40)
    for orientation in range(1, 9):
        yield f"exif-{orientation}", encoded(photo, format="JPEG", exif=exif(orientation))
    yield "exif-9-unknown", encoded(photo, format="JPEG", exif=exif(9))
    yield "xmp-6", encoded(photo, format="JPEG", xmp=xmp(6))
    yield "exif-1-before-xmp-6", encoded(photo, format="JPEG", exif=exif(1), xmp=xmp(6))
    yield "restart-blocks", encoded(photo, format="JPEG", restart_marker_blocks=2)
    yield "restart-rows", encoded(photo, format="JPEG", restart_marker_rows=1, progressive=True)
    yield "optimised", encoded(photo, format="JPEG", optimize=True, quality=60)
    yield "comment-icc", encoded(photo, format="JPEG", comment=b"comment", icc_profile=bytes(range(256)) * 4)
    yield "rgb-space", encoded(photo, format="JPEG", keep_rgb=True)
    for progressive in (False, True):
        kind = "progressive" if progressive else "baseline"
        yield f"grey-{kind}", encoded(photo.convert("L"), format="JPEG", progressive=progressive)
        yield f"cmyk-{kind}", encoded(photo.convert("CMYK"), format="JPEG", progressive=progressive)
    yield "trailing-bytes", encoded(photo, format="JPEG") + b"after the end"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(array: np.ndarray, depth: int, colour: int, *, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """A PNG written by hand, for what Pillow does not write: samples as given, filter 0."""
    height, width = array.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [array[y0::dy, x0::dx] for x0, y0, dx, dy in passes] if interlaced else [array]
    raw = b"".join(b"\0" + pack(row, depth) for part in parts if part.size for row in part)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


def pack(row: np.ndarray, depth: int) -> bytes:
    samples = row.reshape(-1)
    if depth == 16:
        return samples.astype(">u2").tobytes()
    if depth == 8:
        return samples.astype(np.uint8).tobytes()
    bits = ((samples[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8)
    return np.packbits(bits.reshape(-1)).tobytes()


def pngs() -> Iterator[tuple[str, bytes]]:
    width, height = 43, 29
    photo, alpha = scene(width, height), alpha_of(width, height)
    rgba = photo.copy()
    rgba.putalpha(alpha)
    palette = photo.quantize(32)
    for name, image in (
        ("rgb", photo),
        ("grey", photo.convert("L")),
        ("bilevel", photo.convert("1")),
        ("palette", palette),
    ):
        yield name, encoded(image, format="PNG")
    yield "rgba", encoded(rgba, format="PNG")
    yield "grey-alpha", encoded(rgba.convert("LA"), format="PNG")
    yield "palette-2-bit", encoded(photo.quantize(4), format="PNG", bits=2)
    yield "palette-transparent-index", encoded(palette, format="PNG", transparency=3)
    yield "palette-alpha-table", encoded(palette, format="PNG", transparency=bytes(range(0, 256, 8)))
    yield "exif-8", encoded(photo, format="PNG", exif=exif(8))
    yield "one-pixel", encoded(photo.crop((5, 5, 6, 6)), format="PNG")
    array = np.array(photo)
    wide = array.astype(np.uint16) * 257 + 77
    grey, grey_wide = np.array(photo.convert("L")), wide[:, :, 0]
    with_alpha = np.concatenate([wide, (np.array(alpha).astype(np.uint16) * 257)[:, :, None]], axis=-1)
    yield "grey-16-bit", png(grey_wide, 16, 0)
    yield "grey-16-bit-dark", png(grey_wide // 300, 16, 0)
    yield "rgb-16-bit", png(wide, 16, 2)
    yield "rgba-16-bit", png(with_alpha, 16, 6)
    yield "grey-alpha-16-bit", png(with_alpha[:, :, 2:], 16, 4)
    yield "rgb-interlaced", png(array, 8, 2, interlaced=True)
    yield "rgb-16-bit-interlaced", png(wide, 16, 2, interlaced=True)
    yield "grey-2-bit", png(grey // 64, 2, 0)
    yield "grey-4-bit-interlaced", png(grey // 16, 4, 0, interlaced=True)
    yield "bilevel-interlaced", png(grey // 128, 1, 0, interlaced=True)
    yield "grey-transparent", png(grey, 8, 0, extra=chunk(b"tRNS", struct.pack(">H", int(grey[3, 3]))))
    yield "rgb-transparent", png(array, 8, 2, extra=chunk(b"tRNS", struct.pack(">HHH", *map(int, array[0, 0]))))
    yield "grey-2-bit-transparent", png(grey // 64, 2, 0, extra=chunk(b"tRNS", struct.pack(">H", 2)))
    yield "bilevel-transparent", png(grey // 128, 1, 0, extra=chunk(b"tRNS", struct.pack(">H", 1)))
    yield (
        "grey-16-bit-transparent",
        png(grey_wide, 16, 0, extra=chunk(b"tRNS", struct.pack(">H", int(grey_wide[0, 0])))),
    )
    yield "rgb-16-bit-transparent", png(wide, 16, 2, extra=chunk(b"tRNS", struct.pack(">HHH", *map(int, wide[0, 0]))))


def webps() -> Iterator[tuple[str, bytes]]:
    width, height = 53, 38
    photo = scene(width, height)
    rgba = photo.copy()
    rgba.putalpha(alpha_of(width, height))
    frames = [rgba, rgba.rotate(90, expand=False)]
    yield "lossy", encoded(photo, format="WEBP", quality=60)
    yield "lossy-odd", encoded(scene(17, 31), format="WEBP", quality=90, method=6)
    yield "lossless", encoded(photo, format="WEBP", lossless=True)
    yield "lossless-palette", encoded(photo.quantize(12).convert("RGB"), format="WEBP", lossless=True)
    yield "lossy-alpha", encoded(rgba, format="WEBP", quality=70)
    yield "lossless-alpha", encoded(rgba, format="WEBP", lossless=True)
    yield "exif-6", encoded(photo, format="WEBP", exif=exif(6))
    yield "animated", encoded(frames[0], format="WEBP", save_all=True, append_images=frames[1:], lossless=True)
    opaque = [frame.convert("RGB") for frame in frames]
    yield "animated-lossy", encoded(opaque[0], format="WEBP", save_all=True, append_images=opaque[1:], quality=50)


def gifs() -> Iterator[tuple[str, bytes]]:
    photo = scene(37, 51)
    palette = photo.quantize(64)
    yield "palette", encoded(palette, format="GIF", interlace=0)
    yield "interlaced", encoded(palette, format="GIF", interlace=1)
    yield "grey", encoded(photo.convert("L"), format="GIF")
    yield "transparent", encoded(palette, format="GIF", transparency=5)
    frames = [photo.quantize(16), photo.rotate(180).quantize(16)]
    yield "animated", encoded(frames[0], format="GIF", save_all=True, append_images=frames[1:], duration=50)
    yield (
        "animated-transparent",
        encoded(frames[0], format="GIF", save_all=True, append_images=frames[1:], transparency=2),
    )
    yield "frame-inside-canvas", moved_frame(encoded(photo.crop((0, 0, 16, 16)).quantize(16), format="GIF"))


def moved_frame(gif: bytes) -> bytes:
    """The same GIF on a canvas of 24x20 with its frame at 3, 2."""
    at = gif.index(b"\x2c" + struct.pack("<HHHH", 0, 0, 16, 16))
    moved = gif[:at] + b"\x2c" + struct.pack("<HHHH", 3, 2, 16, 16) + gif[at + 9 :]
    return moved[:6] + struct.pack("<HH", 24, 20) + moved[10:]


def bmps() -> Iterator[tuple[str, bytes]]:
    photo = scene(35, 22)
    yield "24-bit", encoded(photo, format="BMP")
    yield "palette", encoded(photo.quantize(200), format="BMP")
    yield "grey", encoded(photo.convert("L"), format="BMP")
    yield "bilevel", encoded(photo.convert("1"), format="BMP")
    pixels = np.array(photo)[:, :, ::-1]
    top_down = encoded(photo, format="BMP")[:54]
    top_down = top_down[:22] + struct.pack("<i", -photo.height) + top_down[26:]
    rows = b"".join(row.tobytes() + b"\0" * (-row.size % 4) for row in pixels)
    yield "top-down", top_down + rows


def corpus() -> Iterator[tuple[str, bytes]]:
    for suffix, files in (("jpg", jpegs()), ("png", pngs()), ("webp", webps()), ("gif", gifs()), ("bmp", bmps())):
        for name, data in files:
            yield f"{name}.{suffix}", data


def reference(data: bytes) -> np.ndarray:
    """What a Hugging Face processor resizes."""
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return np.asarray(convert_to_rgb(upright, return_numpy=True))


def decode_cases() -> Iterator[str]:
    for name, data in corpus():
        (CORPUS / name).write_bytes(data)
        pixels = reference(data)
        yield f"{name} {pixels.shape[1]} {pixels.shape[0]} {checksum(pixels)}"


def main() -> None:
    CORPUS.mkdir(parents=True, exist_ok=True)
    for path in CORPUS.iterdir():
        path.unlink()
    header = f"# Pillow {PIL.__version__}, written by tools/goldens_images.py"
    (GOLDENS / "resize.txt").write_text("\n".join([header, *resize_cases()]) + "\n")
    (GOLDENS / "decode.txt").write_text("\n".join([header, *decode_cases()]) + "\n")


if __name__ == "__main__":
    main()
