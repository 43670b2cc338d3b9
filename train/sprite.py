"""Many small pictures in one file, so that a report with hundreds of them stays small."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

COLUMNS = 32


class Tile(NamedTuple):
    """Where a picture lies in its sprite: column and row."""

    x: int
    y: int


class Sprite:
    """Pictures side by side, each once, as one WebP file."""

    def __init__(self, quality: int, side: int = 32) -> None:
        """Hold pictures of ``side`` pixels, larger ones made smaller; ``quality`` is WebP's."""
        self._quality = quality
        self._side = side
        self._places: dict[tuple[str, int], Tile] = {}
        self._pictures: list[Image.Image] = []

    def put(self, split: str, row: int, picture: Tensor) -> Tile:
        """The place of a picture uint8 ``(3, h, w)``; split and row name it."""
        tile = self._places.get((split, row))
        if tile is None:
            image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy(), "RGB")
            if image.size != (self._side, self._side):
                image = image.resize((self._side, self._side), Image.Resampling.BOX)
            tile = Tile(len(self._pictures) % COLUMNS, len(self._pictures) // COLUMNS)
            self._pictures.append(image)
            self._places[split, row] = tile
        return tile

    @property
    def columns(self) -> int:
        """Pictures in a line."""
        return COLUMNS

    @property
    def rows(self) -> int:
        """Lines, one at the least."""
        return max(-(-len(self._pictures) // COLUMNS), 1)

    def uri(self) -> str:
        """All of them as a ``data:`` address."""
        side = self._side
        canvas = np.zeros((self.rows * side, COLUMNS * side, 3), np.uint8)
        for number, image in enumerate(self._pictures):
            top, left = number // COLUMNS * side, number % COLUMNS * side
            canvas[top : top + side, left : left + side] = np.asarray(image)
        buffer = io.BytesIO()
        Image.fromarray(canvas, "RGB").save(buffer, "WEBP", quality=self._quality, method=6)
        return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
