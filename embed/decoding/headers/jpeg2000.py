"""What decoding a JPEG 2000 takes: OpenJPEG decodes a tile at once, in integers of four bytes."""

from __future__ import annotations

import contextlib
import struct

from embed.decoding.headers.boxes import boxes, first
from embed.decoding.headers.measured import Measured, UnreadableError

BOXED = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM = b"\xff\x4f\xff\x51"

_PIXEL = 8
_SAMPLE = 6
"""Bytes per sample of a tile: its coefficients, and the samples of up to 16 bits."""
_TILE = 8192
"""Bytes that OpenJPEG keeps for each tile, and as much again for each four components."""
_PROFILES = (2, 3)
"""Methods of a colour box that contain one."""
_SIZ, _COD, _COC, _QCD, _QCC, _TILE_PART = 0x51, 0x52, 0x53, 0x5C, 0x5D, 0x90
_MOST_COMPONENTS = 16
_MOST_TILES = 65_535
"""The standard's."""


def read(data: bytes) -> Measured:
    """The size in its codestream, and in the boxes around it: what is larger counts.

    Raises:
        UnreadableError: it has no codestream where there should be one.
        struct.error: it is cut.
    """
    if data.startswith(CODESTREAM):
        return _codestream(data, 0)
    header = first(data, 0, len(data), b"jp2h")
    image = first(data, header.start, header.end, b"ihdr")
    high, wide = struct.unpack_from(">II", data, image.start)
    found = _codestream(data, _stream(data))
    if wide * high <= found.pixels:
        return found
    memory = found.memory + _PIXEL * (wide * high - found.pixels)
    return Measured(wide, high, memory, found.excess)


def profile(data: bytes) -> bytes | None:
    """The ICC profile in its boxes, which Pillow leaves out: ISO/IEC 15444-1, I.5.3.3."""
    with contextlib.suppress(UnreadableError, struct.error, IndexError, OverflowError):
        header = first(data, 0, len(data), b"jp2h")
        for box in boxes(data, header.start, header.end):
            if box.kind == b"colr" and data[box.start] in _PROFILES:
                return data[box.start + 3 : box.end]
    return None


def bits(data: bytes) -> int | None:
    """Bits per sample of its first component; None if its codestream is not found."""
    with contextlib.suppress(UnreadableError, struct.error, IndexError, OverflowError):
        return (data[_stream(data) + 42] & 0x7F) + 1
    return None


def with_headroom(data: bytes) -> bytes | None:
    """The same samples, said to be signed and of one bit more; None if the headers cannot say so.

    They then have no value that is close to the largest: `embed.decoding.steps.depth` needs that.
    Wavelets that are not reversible are scaled by the bits, which their exponents make up for.
    """
    found = bytearray(data)
    with contextlib.suppress(UnreadableError, struct.error, IndexError, OverflowError, ValueError):
        at = _stream(data) + 2
        reversible, steps = True, []
        while data[at + 1] != _TILE_PART:
            marker = data[at + 1]
            (length,) = struct.unpack_from(">H", data, at + 2)
            end = at + 2 + length
            if data[at] != 0xFF or marker == _COC:
                return None
            if marker == _SIZ:
                for place in range(at + 40, end, 3):
                    found[place] = 0x80 | (data[place] & 0x7F) + 1
            elif marker == _COD:
                reversible = data[at + 13] == 1
            elif marker in (_QCD, _QCC):
                steps.append((at + 4 + (marker == _QCC), end))
            at = end
        for place, end in () if reversible else steps:
            found[place] -= 0x20  # a guard bit less, so that there are as many bit planes
            for exponent in range(place + 1, end, 2):
                found[exponent] += 0x08
        return bytes(found)
    return None


def _stream(data: bytes) -> int:
    """Where its codestream begins."""
    if data.startswith(CODESTREAM):
        return 0
    # An unknown box may be anywhere; the first codestream is the picture.
    stream = next((box.start for box in boxes(data, 0, len(data)) if box.kind == b"jp2c"), -1)
    if stream < 0 or not data.startswith(CODESTREAM, stream):
        raise UnreadableError
    return stream


def _codestream(data: bytes, at: int) -> Measured:
    """The segment SIZ: ISO/IEC 15444-1, A.5.1."""
    right, bottom, left, top, wide, high, x, y, components = struct.unpack_from(
        ">8IH", data, at + 8
    )
    width, height = right - left, bottom - top
    if min(width, height, wide, high) <= 0:
        raise UnreadableError
    tiles = -(-(right - x) // wide) * -(-(bottom - y) // high)
    if components > _MOST_COMPONENTS:
        return Measured(width, height, 0, f"{components:,} components")
    if tiles > _MOST_TILES:
        return Measured(width, height, 0, f"{tiles:,} tiles")
    tile = min(width, wide) * min(height, high)
    memory = width * height * _PIXEL + tile * _SAMPLE * components
    return Measured(width, height, memory + tiles * _TILE * (1 + components // 4))
