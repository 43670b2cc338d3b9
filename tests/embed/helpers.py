"""Encoded pictures for the tests."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image
from pillow_heif import register_heif_opener

from embed.pictures import RGB

register_heif_opener()  # to write them; the program itself only reads them, in its workers


def encoded(image: Image.Image | RGB, form: str, **options: Any) -> bytes:
    """The bytes of a picture in one of Pillow's formats."""
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if form == "ICO":
        options.setdefault("sizes", [image.size])  # otherwise in several sizes
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


Values = tuple[int, list[int]]
"""Of a TIFF tag: its type, 3 for 16 bits, 4 for 32 bits, ..., and its values."""
_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 13: "I", 16: "Q"}


def tiff(
    tags: dict[int, Values], chunks: list[bytes], order: str = "<", big: bool = False
) -> bytes:
    """A TIFF of one directory; its ``chunks`` are tiles if there are tile tags, else strips.

    The tags of their places and lengths are added; a tag 330 (SubIFDs) may point to 8, or to 16 in
    a BigTIFF: the directory itself.
    """
    tiled = 322 in tags
    head, entry, inline = (16, "HHQ", 8) if big else (8, "HHI", 4)
    count = len(tags) + 2
    end = head + (8 if big else 2) + count * (20 if big else 12) + inline
    places = []
    body = b""
    for chunk in chunks:
        places.append(end + len(body))
        body += chunk
    tags = {
        **tags,
        324 if tiled else 273: (4, places),
        325 if tiled else 279: (4, [len(chunk) for chunk in chunks]),
    }
    directory = struct.pack(order + ("Q" if big else "H"), count)
    for tag, (kind, values) in sorted(tags.items()):
        code = _CODES[kind]
        packed = struct.pack(f"{order}{len(values)}{code[0]}", *values)
        n = len(values) // len(code)
        if len(packed) > inline:
            place = end + len(body)
            body += packed
            packed = struct.pack(order + ("Q" if big else "I"), place)
        directory += struct.pack(order + entry, tag, kind, n) + packed.ljust(inline, b"\0")
    magic = b"II" if order == "<" else b"MM"
    start = struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8)
    return magic + start + directory + bytes(inline) + body


def rgb_tags(width: int, height: int, compression: int = 8, bits: int = 8) -> dict[int, Values]:
    """Tags of an RGB picture; compression 1 is none, 5 LZW, 7 JPEG, 8 Deflate."""
    return {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * 3),
        259: (3, [compression]),
        262: (3, [2]),
        277: (3, [3]),
    }


def zeros_deflated(size: int) -> bytes:
    """What zlib makes of ``size`` zeros, at once: one flushed megabyte, repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    end = rest.compress(bytes(size % 2**20)) + rest.flush()
    checksum = struct.pack(">I", size % 65521 << 16 | 1)  # Adler-32
    return b"\x78\xda" + block * (size // 2**20) + end + checksum


def flat_jpeg(width: int, height: int) -> bytes:
    """A baseline grey-in-colour JPEG of any size, in four bytes for each 16 x 16 pixels."""
    data = bytearray(encoded(Image.new("RGB", (16, 16), (128, 128, 128)), "JPEG"))
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    struct.pack_into(">HH", data, frame + 5, height, width)
    # For each block the codes of "as the one before" and "no more": 00 1010, of colours 00 00.
    blocks = -(-width // 16) * -(-height // 16)
    return bytes(data[: scan + 14]) + b"\x28\xa2\x8a\x00" * blocks + b"\xff\xd9"


def with_more_scans(jpeg: bytes, number: int) -> bytes:
    """A progressive JPEG with its last scan repeated ``number`` more times."""
    scan, end = jpeg.rindex(b"\xff\xda"), jpeg.rindex(b"\xff\xd9")
    return jpeg[:end] + number * jpeg[scan:end] + jpeg[end:]
