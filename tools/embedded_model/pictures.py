"""Draws scenes: backgrounds, drawings, shapes, printed words, and what cameras and files do to them."""

import math
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from embedded_model.art import Art
from embedded_model.concepts import COLOURS
from embedded_model.scenes import Kind, Look, Scene, Thing

# The side that the encoder was trained at: seven by seven cells.
SIDE = 224
CORNERS = {"square": (4, 45.0), "triangle": (3, -90.0), "hexagon": (6, 0.0), "star": (10, -90.0)}
# Inner against outer corners of a star; the arm of a cross, of half its size.
STAR_WAIST = 0.42
ARM = 0.32


class Painter:
    """Draws with these drawings and fonts."""

    def __init__(self, art: Art, fonts: list[Path]) -> None:
        self._art = art
        self._fonts = fonts

    def draw(self, scene: Scene, random: Random) -> Image.Image:
        """An RGB picture of `SIDE`."""
        image = _background(scene, random)
        for thing in scene.things:
            self._put(image, thing, random)
        return _finished(image, random)

    def draw_clean(self, scene: Scene, random: Random) -> Image.Image:
        """The same without blur, noise and changes of light."""
        image = _background(scene, random)
        for thing in scene.things:
            self._put(image, thing, random)
        return image

    def _put(self, image: Image.Image, thing: Thing, random: Random) -> None:
        if thing.kind is Kind.DRAWING:
            drawing = _drawn(self._art.drawing(thing.style, thing.name, thing.number), thing, random)
            corner = (round(thing.x * SIDE - drawing.width / 2), round(thing.y * SIDE - drawing.height / 2))
            image.paste(drawing, corner, drawing)
        elif thing.kind is Kind.SHAPE:
            _shape(ImageDraw.Draw(image), thing, near(thing.colour or "black", random, 8))
        else:
            self._print(image, thing, random)

    def _print(self, image: Image.Image, thing: Thing, random: Random) -> None:
        path = str(self._fonts[thing.number % len(self._fonts)])
        width = ImageFont.truetype(path, 40).getlength(thing.content)
        points = max(12, min(int(40 * thing.size * SIDE / max(width, 1.0)), SIDE // 3))
        font = ImageFont.truetype(path, points)
        at = (thing.x * SIDE, thing.y * SIDE)
        ImageDraw.Draw(image).text(at, thing.content, near(thing.colour or "black", random, 8), font, anchor="mm")


def near(colour: str, random: Random, spread: int) -> tuple[int, int, int]:
    """A shade of a colour."""
    light = random.randint(-spread, spread)
    tints = (light + random.randint(-spread // 3, spread // 3) for _ in range(3))
    red, green, blue = (min(255, max(0, value + tint)) for value, tint in zip(COLOURS[colour], tints, strict=True))
    return red, green, blue


def _background(scene: Scene, random: Random) -> Image.Image:
    pixels = np.random.default_rng(random.getrandbits(32))
    if scene.background is None:
        return _unclear(scene.texture, pixels)
    base = np.array(near(scene.background, random, 12), dtype=np.float32)
    canvas = np.broadcast_to(base, (SIDE, SIDE, 3)).copy()
    if scene.texture == "gradient":
        slope = np.linspace(-1, 1, SIDE, dtype=np.float32)
        across, down = random.uniform(-24, 24), random.uniform(-24, 24)
        canvas += (slope[:, None] * down + slope[None] * across)[..., None]
    elif scene.texture == "noise":
        canvas += pixels.standard_normal(canvas.shape, np.float32) * random.uniform(3, 11)
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def _unclear(texture: str, pixels: np.random.Generator) -> Image.Image:
    """Static, or blurred blobs of colour: nothing that could be named."""
    if texture == "static":
        return Image.fromarray(pixels.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    coarse = int(pixels.integers(3, 9))
    blobs = Image.fromarray(pixels.integers(0, 256, (coarse, coarse, 3), dtype=np.uint8))
    return blobs.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _drawn(drawing: Image.Image, thing: Thing, random: Random) -> Image.Image:
    image = _looked(drawing, thing.look, random)
    if thing.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if thing.turn:
        image = image.rotate(thing.turn, Image.Resampling.BILINEAR)
    height = max(8, round(thing.size * SIDE))
    return image.resize((max(8, round(height * thing.aspect)), height), Image.Resampling.BILINEAR)


def _looked(drawing: Image.Image, look: Look, random: Random) -> Image.Image:
    if look is Look.PLAIN:
        return drawing
    colour, alpha = drawing.convert("RGB"), drawing.getchannel("A")
    if look is Look.GRAY:
        colour = colour.convert("L").convert("RGB")
    elif look is Look.HUE:
        shift = random.randint(-18, 18) if random.random() < 0.7 else random.randint(-128, 127)
        hue, saturation, value = colour.convert("HSV").split()
        hue = hue.point([(level + shift) % 256 for level in range(256)])
        colour = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    else:
        colour = _outlined(colour, alpha, random)
    colour.putalpha(alpha)
    return colour


def _outlined(colour: Image.Image, alpha: Image.Image, random: Random) -> Image.Image:
    """Few flat colours, or none, between dark lines: how some sets draw."""
    flat = colour.quantize(random.randint(4, 7)).convert("RGB")
    threshold = [0] * 40 + [255] * 216
    lines = flat.convert("L").filter(ImageFilter.FIND_EDGES).point(threshold)
    rim = alpha.filter(ImageFilter.MinFilter(7)).point([255] * 128 + [0] * 128)
    lines = Image.fromarray(np.maximum(np.asarray(lines.filter(ImageFilter.MaxFilter(3))), np.asarray(rim)))
    if random.random() < 0.35:
        flat = Image.new("RGB", colour.size, "white")
    flat.paste((20, 20, 20), (0, 0, *colour.size), lines)
    return flat


def _shape(draw: ImageDraw.ImageDraw, thing: Thing, fill: tuple[int, int, int]) -> None:
    x, y, half = thing.x * SIDE, thing.y * SIDE, thing.size * SIDE / 2
    if thing.name == "circle":
        draw.ellipse((x - half, y - half, x + half, y + half), fill)
    elif thing.name == "rectangle":
        draw.rectangle((x - half, y - half * 0.5, x + half, y + half * 0.5), fill)
    elif thing.name == "cross":
        draw.rectangle((x - half, y - half * ARM, x + half, y + half * ARM), fill)
        draw.rectangle((x - half * ARM, y - half, x + half * ARM, y + half), fill)
    else:
        draw.polygon(_corners(thing, (x, y, half)), fill)


def _corners(thing: Thing, where: tuple[float, float, float]) -> list[tuple[float, float]]:
    x, y, half = where
    count, start = CORNERS[thing.name]
    # A square's side, not its diagonal, is as long as other shapes are wide.
    radius = half * (1.25 if thing.name == "square" else 1.0)
    points = []
    for index in range(count):
        reach = radius * (STAR_WAIST if thing.name == "star" and index % 2 else 1.0)
        angle = math.radians(start + thing.turn + 360 * index / count)
        points.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    return points


def _finished(image: Image.Image, random: Random) -> Image.Image:
    if random.random() < 0.25:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.4)))
    light, shift, noise = 1.0, 0.0, 0.0
    if random.random() < 0.4:
        light, shift = random.uniform(0.9, 1.1), random.uniform(-8, 8)
    if random.random() < 0.3:
        noise = random.uniform(2, 8)
    if (light, shift, noise) == (1.0, 0.0, 0.0):
        return image
    pixels = np.asarray(image, dtype=np.float32) * light + shift
    if noise:
        grain = np.random.default_rng(random.getrandbits(32)).standard_normal(pixels.shape, np.float32)
        pixels = pixels + grain * noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
