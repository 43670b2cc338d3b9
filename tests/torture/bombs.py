"""Pictures that are small to send and huge to decode, at least one per format."""

from __future__ import annotations

import functools
import io
import struct
import zlib

from PIL import Image

from tests.embed.helpers import with_more_scans

SIDE = 60_000


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG whose header claims ``width`` x ``height`` and whose data inflates to ``pixels``."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(pixels, 9))
        + png_chunk(b"IEND", b"")
    )


def _small(format_: str) -> bytearray:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(buffer, format_)
    return bytearray(buffer.getvalue())


def _jpeg() -> bytes:
    data = _small("JPEG")
    frame = data.index(b"\xff\xc0") + 5  # start of frame: length, precision, height, width
    data[frame : frame + 4] = struct.pack(">HH", 65_000, 65_000)
    return bytes(data)


def _scans() -> bytes:
    """24 million pixels in some ten thousand scans."""
    buffer = io.BytesIO()
    Image.new("L", (6000, 4000), 128).save(buffer, "JPEG", progressive=True)
    return with_more_scans(buffer.getvalue(), 10_000)


def _gif() -> bytes:
    data = _small("GIF")
    data[6:10] = struct.pack("<HH", SIDE, SIDE)
    return bytes(data)


def _bmp() -> bytes:
    data = _small("BMP")
    data[18:26] = struct.pack("<ii", SIDE, SIDE)
    return bytes(data)


def _webp() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "WEBP", lossless=True)
    data = bytearray(buffer.getvalue())
    at = data.index(b"VP8L") + 9  # after the signature byte: 14 bits width - 1, 14 bits height - 1
    (bits,) = struct.unpack_from("<I", data, at)
    struct.pack_into("<I", data, at, bits & ~0xFFFFFFF | 16_382 | 16_382 << 14)
    return bytes(data)


def _tiff() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    (start,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    for entry in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind = struct.unpack_from("<HH", data, entry)
        if tag in (256, 257):  # width, height
            struct.pack_into("<H" if kind == 3 else "<I", data, entry + 8, SIDE)
    return bytes(data)


@functools.cache
def bombs() -> dict[str, bytes]:
    """Pictures by name; each claims, or inflates to, far more than the limits."""
    text = zlib.compress(bytes(300 * 2**20), 9)
    tiny = png(16, 16, bytes(16 * 49))
    at = tiny.index(b"IDAT") - 4
    return {
        "PNG by header": png(SIDE, SIDE, bytes(10_000)),
        "PNG by 2^31 - 1": png(2**31 - 1, 2**31 - 1, b""),
        "PNG 300 MB of text": (tiny[:at] + png_chunk(b"zTXt", b"Comment\0\0" + text) + tiny[at:]),
        "PNG 300 MB of profile": (tiny[:at] + png_chunk(b"iCCP", b"icc\0\0" + text) + tiny[at:]),
        "PNG 300 MB of pixels": png(7000, 8000, bytes(300 * 2**20)),
        "JPEG by header": _jpeg(),
        "JPEG by scans": _scans(),
        "GIF by header": _gif(),
        "BMP by header": _bmp(),
        "WEBP by header": _webp(),
        "TIFF by header": _tiff(),
    }
