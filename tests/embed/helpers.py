"""Encoded pictures for the tests."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from embed.pictures import RGB


def encoded(image: Image.Image | RGB, form: str, **options: Any) -> bytes:
    """The bytes of a picture in one of Pillow's formats."""
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(height: int, width: int) -> RGB:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def slope(height: int, width: int) -> RGB:
    """Smooth, so that lossy formats change it little."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 200 / width, y * 200 / height, 0 * x + 90], axis=2).astype(np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def with_more_scans(jpeg: bytes, number: int) -> bytes:
    """A progressive JPEG with its last scan repeated ``number`` more times."""
    scan, end = jpeg.rindex(b"\xff\xda"), jpeg.rindex(b"\xff\xd9")
    return jpeg[:end] + number * jpeg[scan:end] + jpeg[end:]
