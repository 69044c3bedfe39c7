"""Pictures for measuring: a document page, and as many different drawings as are wanted. Deterministic."""

import base64
import io
import random

from PIL import Image, ImageDraw

PAGE_SIZE = (1275, 1650)
"""US letter at 150 dots an inch, the usual scan."""


def page(seed: int = 7) -> bytes:
    """A page of text-like lines and a picture, as a JPEG of quality 90."""
    rng = random.Random(seed)
    image = Image.new("RGB", PAGE_SIZE, "white")
    draw = ImageDraw.Draw(image)
    for y in range(120, 1500, 26):
        x = 110
        while x < 1150:
            width = rng.randrange(12, 90)
            for stroke in range(0, width, 9):
                draw.line(
                    [(x + stroke, y + rng.randrange(14)), (x + stroke + 5, y + rng.randrange(14))],
                    fill="black",
                    width=2,
                )
            x += width + 14
    noise = Image.effect_noise((500, 320), 60).convert("RGB")
    image.paste(noise, (380, 700))
    return encoded(image, "JPEG", quality=90)


def drawing(seed: int, size: tuple[int, int] = (320, 320)) -> bytes:
    """A PNG of a few coloured shapes; every seed gives another picture."""
    rng = random.Random(seed)
    colour = lambda: tuple(rng.randrange(256) for _ in range(3))  # noqa: E731
    image = Image.new("RGB", size, colour())
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        radius = rng.randrange(10, 90)
        shape = rng.choice([draw.ellipse, draw.rectangle])
        shape([x - radius, y - radius, x + radius, y + radius], fill=colour())
    return encoded(image, "PNG")


def encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def data_uri(data: bytes, kind: str = "png") -> str:
    """The file as a `data:` URL."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()
