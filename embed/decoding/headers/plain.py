"""What decoding an icon, a PNM or a bitmap without a file header takes."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from embed.decoding.headers.measured import Measured, UnreadableError

ICON = b"\0\0\1\0"
PNM = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf")
_PNG = b"\x89PNG\r\n\x1a\n"

_PIXEL = 8
_ICON_PIXEL = 24
"""Bytes per pixel: the picture, its mask as bytes and as a picture, the copy with alpha."""
_MOST_ICONS = 1000
_LONGEST = 2**16
"""Bytes of a PNM's header that are read."""
_TOKEN = re.compile(rb"(?:#[^\r\n]*[\r\n]|\s)*([^\s#]+)")
"""The next word of a PNM's header, after spaces and comments."""


def is_pnm(data: bytes) -> bool:
    """Whether it starts like one: its kind, and a space or a comment."""
    return data.startswith(PNM) and data[2:3] in (b" ", b"\t", b"\n", b"\r", b"\x0b", b"\x0c", b"#")


def pnm(data: bytes) -> Measured:
    """The size in the header of a PBM, PGM, PPM or PFM.

    Raises:
        UnreadableError: it is no number.
    """
    at, numbers = 2, []
    for _ in range(2):
        found = _TOKEN.match(data, at, _LONGEST)
        if found is None or not found[1].isdigit() or len(found[1]) > 10:
            raise UnreadableError
        numbers.append(int(found[1]))
        at = found.end()
    width, height = numbers
    return Measured(width, height, width * height * _PIXEL)


def is_dib(data: bytes) -> bool:
    """Whether it is a bitmap whose file header is missing: it starts with the picture's."""
    if len(data) < 40 or struct.unpack_from("<I", data)[0] not in (40, 52, 56, 64, 108, 124):
        return False
    planes, bits, compression = struct.unpack_from("<HHI", data, 12)
    return planes == 1 and bits in (1, 4, 8, 16, 24, 32) and compression <= 6


def dib(data: bytes) -> Measured:
    """The size in the header of a bitmap; its height is negative if it starts at the top."""
    width, height = (abs(side) for side in struct.unpack_from("<ii", data, 4))
    return Measured(width, height, width * height * _PIXEL)


def is_icon(data: bytes) -> bool:
    """Whether it is a directory of icons, of which at least the first lies in the file."""
    if not data.startswith(ICON) or len(data) < 22:
        return False
    reserved, _, _, size, place = struct.unpack_from("<BHHII", data, 9)
    return not reserved and size > 0 and 22 <= place < len(data)


def icon(data: bytes) -> Measured:
    """The size of the largest icon: that of its own header, whatever the directory says.

    Raises:
        UnreadableError: there is none.
        struct.error: it is cut.
    """
    (count,) = struct.unpack_from("<H", data, 4)
    if count > _MOST_ICONS:
        return Measured(0, 0, 0, f"{count:,} icons")
    largest = max(_icons(data, count), key=lambda size: size[0] * size[1], default=(0, 0))
    if not all(largest):
        raise UnreadableError
    width, height = largest
    return Measured(width, height, width * height * _ICON_PIXEL)


def _icons(data: bytes, count: int) -> Iterator[tuple[int, int]]:
    for entry in range(6, 6 + 16 * count, 16):
        (place,) = struct.unpack_from("<I", data, entry + 12)
        if data.startswith(_PNG, place):
            wide, high = struct.unpack_from(">II", data, place + 16)
        elif place + 12 <= len(data):
            wide, high = (abs(side) for side in struct.unpack_from("<ii", data, place + 4))
            high = -(-high // 2)  # the mask is the other half
        else:
            continue
        yield wide, high
