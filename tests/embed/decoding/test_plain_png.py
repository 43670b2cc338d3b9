"""Plain PNGs are decoded to the same pixels as by Pillow, and all others are left to it."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from embed.decoding.facts import PictureFacts
from embed.decoding.plain_png import decode_plain
from embed.pictures import Opened, decode

NOISE = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
SMOOTH = np.add.outer(np.add.outer(np.arange(40), 3 * np.arange(30)), [0, 50, 90]).astype(np.uint8)


def encoded(picture: np.ndarray, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(buffer, "PNG", **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes, at: int = 33) -> bytes:
    return png[:at] + chunk(kind, data) + png[at:]


def in_parts(picture: np.ndarray) -> bytes:
    """A PNG whose pixels are in several chunks."""
    png = encoded(picture)
    at = png.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", png, at)
    data = png[at + 8 : at + 8 + length]
    parts = [chunk(b"IDAT", data[i : i + 20]) for i in range(0, len(data), 20)]
    return png[:at] + b"".join(parts) + chunk(b"IEND", b"")


PLAIN = {
    "noise": encoded(NOISE),
    "smooth, with every filter": encoded(SMOOTH, optimize=True),
    "not compressed": encoded(NOISE, compress_level=0),
    "one pixel": encoded(NOISE[:1, :1]),
    "one row": encoded(NOISE[:1]),
    "chunks of pixels": in_parts(SMOOTH),
    "sRGB": with_chunk(encoded(NOISE), b"sRGB", b"\0"),
    "something after its end": encoded(NOISE) + b"more",
}


@pytest.mark.parametrize("name", PLAIN)
def test_pixels(name: str) -> None:
    png = PLAIN[name]
    expected = np.array(Image.open(io.BytesIO(png)))
    found = decode_plain(png)
    assert found is not None
    assert found.tolist() == expected.tolist()
    found[0, 0] = 1  # it may be changed
    height, width, _ = expected.shape
    picture, facts = Opened(png).decode_with_facts()
    assert picture.tolist() == expected.tolist()
    assert facts == PictureFacts(width, height, "PNG")


WHOLE = encoded(SMOOTH)
OTHERS = {
    "grey": encoded(SMOOTH, "L"),
    "alpha": encoded(SMOOTH, "RGBA"),
    "palette": encoded(SMOOTH, "P"),
    "transparent colour": with_chunk(WHOLE, b"tRNS", b"\0\1\0\2\0\3"),
    "gamma": with_chunk(WHOLE, b"gAMA", struct.pack(">I", 100_000)),
    "text": with_chunk(WHOLE, b"tEXt", b"a\0b"),
    "EXIF after the pixels": with_chunk(WHOLE, b"eXIf", b"II*\0", len(WHOLE) - 12),
    "a wrong checksum": WHOLE[:-20] + bytes([WHOLE[-20] ^ 1]) + WHOLE[-19:],
    "no end": WHOLE[:-12],
    "half": WHOLE[: len(WHOLE) // 2],
    "no pixels": WHOLE[:33] + chunk(b"IEND", b""),
    "pixels that end too early": WHOLE[:33]
    + chunk(b"IDAT", zlib.compress(bytes(100)))
    + chunk(b"IEND", b""),
    "pixels that are not compressed": WHOLE[:33] + chunk(b"IDAT", b"abc") + chunk(b"IEND", b""),
    "no PNG": b"\xff\xd8\xff" + bytes(100),
    "nothing": b"",
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_left_to_pillow(name: str) -> None:
    assert decode_plain(OTHERS[name]) is None


def test_sixteen_bits_are_left_to_pillow() -> None:
    deep = WHOLE[:24] + b"\x10" + WHOLE[25:29]
    assert decode_plain(deep + struct.pack(">I", zlib.crc32(deep[12:])) + WHOLE[33:]) is None


def test_a_larger_picture_is_decoded_alike() -> None:
    large = np.tile(SMOOTH, (4, 5, 1))
    assert decode(encoded(large)).tolist() == large.tolist()
