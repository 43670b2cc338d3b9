"""Packs many small pictures into one image, so that a report with hundreds stays small."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

COLUMNS = 32


class Tile(NamedTuple):
    """Column and row of a picture in its sprite."""

    x: int
    y: int


class Sprite:
    """A grid of distinct pictures, as one WebP image."""

    def __init__(self, quality: int, side: int = 32) -> None:
        """Scale pictures to ``side`` pixels; ``quality`` is WebP's, 0..100."""
        self._quality = quality
        self._side = side
        self._tiles: dict[tuple[str, int], Tile] = {}
        self._pictures: list[Image.Image] = []

    def put(self, split: str, row: int, picture: Tensor) -> Tile:
        """The tile of a picture uint8 ``(3, h, w)``, added unless its split and row were before."""
        tile = self._tiles.get((split, row))
        if tile is None:
            image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy(), "RGB")
            if image.size != (self._side, self._side):
                image = image.resize((self._side, self._side), Image.Resampling.BOX)
            tile = Tile(len(self._pictures) % COLUMNS, len(self._pictures) // COLUMNS)
            self._pictures.append(image)
            self._tiles[split, row] = tile
        return tile

    @property
    def columns(self) -> int:
        """Number of columns."""
        return COLUMNS

    @property
    def rows(self) -> int:
        """Number of rows, at least one."""
        return max(-(-len(self._pictures) // COLUMNS), 1)

    def uri(self) -> str:
        """The image as a ``data:`` URI."""
        side = self._side
        canvas = np.zeros((self.rows * side, COLUMNS * side, 3), np.uint8)
        for number, image in enumerate(self._pictures):
            top, left = number // COLUMNS * side, number % COLUMNS * side
            canvas[top : top + side, left : left + side] = np.asarray(image)
        buffer = io.BytesIO()
        Image.fromarray(canvas, "RGB").save(buffer, "WEBP", quality=self._quality, method=6)
        return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
