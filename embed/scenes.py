"""A small sample corpus, rendered here, for a first try without any data set."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from embed.pictures import RGB

SIZE = 32
_SCALE = 4  # drawn larger, then reduced, so that edges are smooth
_CANVAS = SIZE * _SCALE

_Draw = ImageDraw.ImageDraw
_Colour = tuple[int, int, int]


def render(scene: str, seed: int) -> RGB:
    """One picture of a scene, uint8 ``(32, 32, 3)``; the same seed gives the same picture.

    Raises:
        KeyError: ``scene`` is not one of ``SCENES``.
    """
    rng = random.Random(f"{scene}/{seed}")  # noqa: S311 - pictures, not secrets
    image = Image.new("RGB", (_CANVAS, _CANVAS), _tint(rng, (150, 200, 240)))
    SCENES[scene](ImageDraw.Draw(image), rng)
    small = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.int16)
    noise = np.random.default_rng(seed).integers(-6, 7, pixels.shape)
    picture: RGB = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    return picture


def _tint(rng: random.Random, colour: _Colour, by: int = 30) -> _Colour:
    r, g, b = (max(0, min(255, part + rng.randint(-by, by))) for part in colour)
    return r, g, b


def _ground(draw: _Draw, rng: random.Random, colour: _Colour, top: float) -> float:
    y = _CANVAS * (top + rng.uniform(-0.06, 0.06))
    draw.rectangle((0, y, _CANVAS, _CANVAS), fill=_tint(rng, colour))
    return y


def _disc(draw: _Draw, x: float, y: float, radius: float, colour: _Colour) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _somewhere(rng: random.Random) -> float:
    return _CANVAS * rng.uniform(0.3, 0.7)


def _sunset(draw: _Draw, rng: random.Random) -> None:
    draw.rectangle((0, 0, _CANVAS, _CANVAS), fill=_tint(rng, (245, 150, 90)))
    _disc(draw, _somewhere(rng), 70, rng.uniform(16, 28), _tint(rng, (255, 220, 90), 20))
    _ground(draw, rng, (60, 60, 110), 0.62)


def _night(draw: _Draw, rng: random.Random) -> None:
    sky = _tint(rng, (20, 22, 60), 15)
    draw.rectangle((0, 0, _CANVAS, _CANVAS), fill=sky)
    for _ in range(rng.randint(10, 25)):
        _disc(draw, rng.uniform(0, 128), rng.uniform(0, 128), rng.uniform(1, 2.5), (240, 240, 220))
    x, y, radius = _somewhere(rng), rng.uniform(30, 60), rng.uniform(14, 22)
    _disc(draw, x, y, radius, (245, 240, 200))
    _disc(draw, x + radius * 0.5, y - radius * 0.2, radius, sky)


def _house(draw: _Draw, rng: random.Random) -> None:
    y = _ground(draw, rng, (90, 160, 80), 0.75)
    x, half, height = _somewhere(rng), rng.uniform(20, 32), rng.uniform(28, 44)
    draw.rectangle((x - half, y - height, x + half, y), fill=_tint(rng, (200, 170, 140), 45))
    roof = [(x - half - 6, y - height), (x + half + 6, y - height), (x, y - height - 28)]
    draw.polygon(roof, fill=_tint(rng, (160, 60, 50)))
    draw.rectangle((x - 6, y - 20, x + 6, y), fill=(80, 50, 30))


def _tree(draw: _Draw, rng: random.Random) -> None:
    y = _ground(draw, rng, (110, 170, 80), 0.8)
    x, top = _somewhere(rng), y - rng.uniform(40, 60)
    draw.rectangle((x - 5, top, x + 5, y), fill=_tint(rng, (100, 70, 40), 15))
    leaves = _tint(rng, (40, 120, 50))
    for _ in range(5):
        centre = x + rng.uniform(-16, 16), top + rng.uniform(-14, 10)
        _disc(draw, *centre, rng.uniform(12, 20), leaves)


def _mountain(draw: _Draw, rng: random.Random) -> None:
    rock = _tint(rng, (110, 110, 125))
    for _ in range(rng.randint(1, 3)):
        x, peak, half = rng.uniform(20, 108), rng.uniform(20, 50), rng.uniform(45, 75)
        draw.polygon([(x, peak), (x - half, 128), (x + half, 128)], fill=rock)
        snow = 18 / (128 - peak) * half
        draw.polygon([(x, peak), (x - snow, peak + 18), (x + snow, peak + 18)], fill="white")


def _boat(draw: _Draw, rng: random.Random) -> None:
    y = _ground(draw, rng, (30, 90, 160), 0.62) + rng.uniform(2, 10)
    x, half = _somewhere(rng), rng.uniform(20, 34)
    hull = [(x - half, y - 8), (x + half, y - 8), (x + half * 0.7, y + 8), (x - half * 0.7, y + 8)]
    draw.polygon(hull, fill=_tint(rng, (140, 60, 40), 50))
    sail = [(x + 2, y - 12), (x + 2, y - rng.uniform(45, 60)), (x + half, y - 12)]
    draw.polygon(sail, fill=_tint(rng, (240, 240, 235), 15))


def _car(draw: _Draw, rng: random.Random) -> None:
    y = _ground(draw, rng, (90, 90, 95), 0.68) + rng.uniform(8, 16)
    x, half, paint = _somewhere(rng), rng.uniform(28, 38), _tint(rng, (180, 60, 60), 75)
    draw.rounded_rectangle((x - half, y - 22, x + half, y - 4), 6, fill=paint)
    draw.rounded_rectangle((x - half * 0.5, y - 38, x + half * 0.5, y - 18), 6, fill=paint)
    draw.rectangle((x - half * 0.4, y - 34, x + half * 0.4, y - 22), fill=(200, 225, 240))
    for wheel in (x - half * 0.55, x + half * 0.55):
        _disc(draw, wheel, y - 3, 8, (25, 25, 25))


def _flower(draw: _Draw, rng: random.Random) -> None:
    draw.rectangle((0, 0, _CANVAS, _CANVAS), fill=_tint(rng, (70, 140, 70)))
    x, y, size = _somewhere(rng), _somewhere(rng), rng.uniform(20, 32)
    petal = _tint(rng, (220, 90, 160), 60)
    turn, petals = rng.uniform(0, 1), rng.choice([5, 6, 7, 8])
    for i in range(petals):
        angle = turn + 2 * math.pi * i / petals
        _disc(draw, x + size * math.cos(angle), y + size * math.sin(angle), size * 0.55, petal)
    _disc(draw, x, y, size * 0.5, (245, 205, 60))


def _balloon(draw: _Draw, rng: random.Random) -> None:
    x, y, radius = _somewhere(rng), rng.uniform(42, 62), rng.uniform(24, 34)
    first, second = _tint(rng, (220, 70, 60), 60), _tint(rng, (245, 215, 90), 40)
    _disc(draw, x, y, radius, first)
    draw.ellipse((x - radius * 0.4, y - radius, x + radius * 0.4, y + radius), fill=second)
    basket = y + radius + 18
    draw.line((x - 8, y + radius * 0.9, x - 5, basket), fill=(90, 60, 40), width=2)
    draw.line((x + 8, y + radius * 0.9, x + 5, basket), fill=(90, 60, 40), width=2)
    draw.rectangle((x - 7, basket, x + 7, basket + 10), fill=(110, 75, 45))


def _road(draw: _Draw, rng: random.Random) -> None:
    y = _ground(draw, rng, (170, 150, 90), 0.45)
    x, end = _somewhere(rng), rng.uniform(40, 88)
    draw.polygon([(x - 3, y), (x + 3, y), (end + 50, 128), (end - 50, 128)], fill=(70, 70, 75))
    for near, far in ((0.15, 0.3), (0.45, 0.62), (0.78, 1.0)):
        points = [(x + (end - x) * t, y + (128 - y) * t) for t in (near, far)]
        draw.line(points, fill=(240, 240, 240), width=round(2 + 5 * far))


SCENES: dict[str, Callable[[_Draw, random.Random], None]] = {
    "balloon": _balloon,
    "boat": _boat,
    "car": _car,
    "flower": _flower,
    "house": _house,
    "mountain": _mountain,
    "night sky": _night,
    "road": _road,
    "sunset": _sunset,
    "tree": _tree,
}
"""Maps a scene's name to the function that draws it on a canvas of 128 x 128 pixels."""
