"""The most usual small pictures, 8-bit RGB PNGs without anything else, decoded with few steps.

Pillow's decoder does the work, as it does for every PNG. What is left out is what Pillow does in
Python around it: for a small picture that takes several times as long. Whatever is not exactly as
expected here is left to `embed.decoding.pixels`, which also says what is wrong.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RGB = NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">I4sIIBBBBB")
_PLAIN = (8, 2, 0, 0, 0)
"""Bits, RGB, and the only compression and filters there are; not interlaced."""
_WITHOUT_EFFECT = frozenset((b"sRGB", b"pHYs"))
_MOST_CHUNKS = 32


def decode_plain(png: bytes) -> RGB | None:
    """The pixels of a plain PNG, uint8 ``(height, width, 3)``; None for any other file.

    Its size must have been compared with the limits.
    """
    if not png.startswith(_SIGNATURE) or len(png) < 33:
        return None
    length, kind, width, height, *how = _HEADER.unpack_from(png, 8)
    if kind != b"IHDR" or length != 13 or tuple(how) != _PLAIN or not width or not height:
        return None
    data = _pixel_data(png)
    if data is None:
        return None
    decoder = Image._getdecoder("RGB", "zip", ("RGB", False), ())
    image = Image.new("RGB", (width, height)).im
    decoder.setimage(image, (0, 0, width, height))
    try:
        used, error = decoder.decode(data)
    except Exception:  # noqa: BLE001 - of many kinds, for damaged data
        return None
    if error or used >= 0:  # it has not reached the end
        return None
    encoder = Image._getencoder("RGB", "raw", ("RGB", 0, 1), ())
    encoder.setimage(image, (0, 0, width, height))
    size = 3 * width * height
    _, error, pixels = encoder.encode(size)
    if error < 0 or len(pixels) != size:
        return None
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3).copy()


def _pixel_data(png: bytes) -> bytes | None:
    """The compressed pixels; None if a checksum is wrong, or there is any chunk that may matter."""
    parts = []
    at = 8
    for _ in range(_MOST_CHUNKS):
        if at + 12 > len(png):
            return None
        length, kind = struct.unpack_from(">I4s", png, at)
        end = at + 8 + length
        if end + 4 > len(png) or zlib.crc32(png[at + 4 : end]) != int.from_bytes(
            png[end : end + 4]
        ):
            return None
        if kind == b"IDAT":
            parts.append(png[at + 8 : end])
        elif kind == b"IEND":
            return parts[0] if len(parts) == 1 else b"".join(parts) or None
        elif kind not in _WITHOUT_EFFECT and at > 8:
            return None
        elif parts:
            return None  # chunks of pixels must follow each other
        at = end + 4
    return None
