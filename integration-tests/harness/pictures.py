"""Pictures made from nothing but the arguments, so that answers recorded for them stay valid.

No fonts and no files: those differ between machines.
"""

import base64
import hashlib
import io
import random
import struct
import zlib
from collections.abc import Callable

from PIL import Image, ImageDraw

COLORS = {
    "red": (220, 35, 35),
    "green": (35, 160, 60),
    "blue": (40, 80, 215),
    "yellow": (245, 215, 45),
    "purple": (135, 50, 175),
    "white": (248, 248, 248),
    "black": (18, 18, 18),
}
ROTATED = 6  # the EXIF orientation of a phone held upright
EXIF_ORIENTATION = 0x0112


def drawing(shape: str, color: str, background: str, size: tuple[int, int] = (192, 192)) -> Image.Image:
    """One shape in the middle of a plain background."""
    width, height = size
    image = Image.new("RGB", size, COLORS[background])
    half = min(width, height) * 0.3
    left, top, right, bottom = width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse([left, top, right, bottom], fill=COLORS[color])
    elif shape == "square":
        draw.rectangle([left, top, right, bottom], fill=COLORS[color])
    elif shape == "triangle":
        draw.polygon([(width / 2, top), (left, bottom), (right, bottom)], fill=COLORS[color])
    else:
        raise ValueError(f"no shape {shape!r}")
    return image


def photo(seed: int, size: tuple[int, int]) -> Image.Image:
    """Smooth colour clouds with grain: what a photograph looks like to a resizer."""
    source = random.Random(seed)
    width, height = size
    coarse = (max(2, width // 16), max(2, height // 16))
    clouds = Image.frombytes("RGB", coarse, source.randbytes(coarse[0] * coarse[1] * 3)).resize(
        size, Image.Resampling.BICUBIC
    )
    grain = Image.frombytes("RGB", size, source.randbytes(width * height * 3))
    return Image.blend(clouds, grain, 0.1)


def _saved(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, **options)  # type: ignore[arg-type]
    return out.getvalue()


def png(image: Image.Image) -> bytes:
    """PNG in the image's own mode."""
    return _saved(image, format="PNG")


def _grey(image: Image.Image) -> bytes:
    return png(image.convert("L"))


def _palette(image: Image.Image) -> bytes:
    return png(_quantized(image))


def jpeg(image: Image.Image) -> bytes:
    """Baseline JPEG with halved chroma, as cameras write it."""
    return _saved(image, format="JPEG", quality=85)


def _full_jpeg(image: Image.Image) -> bytes:
    return _saved(image, format="JPEG", quality=92, subsampling="4:4:4")


def _progressive_jpeg(image: Image.Image) -> bytes:
    return _saved(image, format="JPEG", quality=80, subsampling="4:2:0", progressive=True)


def _rotated_jpeg(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = ROTATED
    return _saved(image, format="JPEG", quality=90, exif=exif)


def _webp(image: Image.Image) -> bytes:
    return _saved(image, format="WEBP", quality=80)


def gif(image: Image.Image) -> bytes:
    """A GIF of one frame."""
    return _saved(_quantized(image), format="GIF")


def _quantized(image: Image.Image) -> Image.Image:
    return image.quantize(64, method=Image.Quantize.FASTOCTREE)


ENCODINGS: dict[str, Callable[[Image.Image], bytes]] = {
    "png-rgb": png,
    "png-grey": _grey,
    "png-palette": _palette,
    "jpeg": jpeg,
    "jpeg-rotated": _rotated_jpeg,
    "webp": _webp,
    "gif": gif,
}
MORE_ENCODINGS = ENCODINGS | {"jpeg-444": _full_jpeg, "jpeg-progressive": _progressive_jpeg}
"""Those, and what came after answers were recorded for them."""


def sha256(data: bytes) -> str:
    """Names a file in the goldens."""
    return hashlib.sha256(data).hexdigest()


def data_uri(data: bytes, mime: str = "image/png") -> str:
    """The file as clients inline it."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def markdown(url: str) -> str:
    """The image as the TGI routes take it, inside `inputs`."""
    return f"![]({url})"


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises this size and holds next to nothing: the size must be judged before any pixel is."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def gif_header(width: int, height: int) -> bytes:
    """A GIF whose canvas is this large and whose only frame is one pixel."""
    screen = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    return screen + b"\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0" + b"\x02\x02\x44\x01\0" + b"\x3b"
