"""What decoding a TIFF takes: its tiles or strips, and its arrays of tags."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from embed.decoding.headers.measured import UnreadableError

SIGNATURES = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")
"""Of little- and big-endian files, two frequent mistakes, and BigTIFF; as Pillow takes them."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_SAMPLES, _ROWS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT = 277, 278, 284, 322, 323
_DIRECTORIES = (330, 34665, 34853, 40965)
"""Tags that point to other directories: SubIFDs, EXIF, GPS, interoperability."""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_BYTES = (1, 2, 6, 7)
_VALUE = 600
"""Bytes that Pillow makes of one value in a tag: at most a fraction, or a part to decode."""
_MOST_VALUES = 250_000
_MOST_ENTRIES = 4096
_MOST_DIRECTORIES = 64
_RAW = 1
_YCBCR = 6
_JPEG = (6, 7)


@dataclass(frozen=True)
class Tiff:
    """What is known of a TIFF.

    Attributes:
        width: of the first picture, in pixels.
        height: of the first picture, in pixels.
        chunk: bytes of a tile or strip, which is decoded at once.
        tags: bytes that Pillow makes of the tags.
        excess: what it has far too much of, for people; empty if nothing.
        tile: width and height of its tiles; zeros if it has strips.
    """

    width: int
    height: int
    chunk: int
    tags: int
    excess: str = ""
    tile: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class _Entry:
    tag: int
    kind: int
    count: int
    values: bytes
    """Up to 128 bytes of them, or what there is."""

    @property
    def size(self) -> int:
        return _SIZES.get(self.kind, 0) * self.count

    def numbers(self, order: str) -> list[int]:
        code = _CODES.get(self.kind)
        if code is None:
            return []
        n = len(self.values) // _SIZES[self.kind]
        return list(struct.unpack(f"{order}{n}{code}", self.values[: n * _SIZES[self.kind]]))


class Layout:
    """Byte order and field sizes: TIFF 6.0, section 2, or those of BigTIFF.

    Raises:
        struct.error: also of its methods, where the file is cut.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = 43 in data[2:4]
        self.first = self._one("Q", 8) if self.big else self._one("I", 4)

    def _one(self, code: str, at: int) -> int:
        (value,) = struct.unpack_from(self.order + code, self.data, at)
        return int(value)

    def count(self, at: int) -> int:
        return self._one("Q" if self.big else "H", at)

    def following(self, at: int) -> int:
        """Where the next directory is; 0 if there is none, or the file is cut before."""
        step, start = (20, at + 8) if self.big else (12, at + 2)
        place = start + step * self.count(at)
        return self._one("Q" if self.big else "I", place) if place + 8 <= len(self.data) else 0

    def entries(self, at: int) -> Iterator[_Entry]:
        """Those of the directory at ``at``, at most ``_MOST_ENTRIES``; stops where it is cut."""
        fields, step, inline = ("HHQ", 20, 8) if self.big else ("HHI", 12, 4)
        start = at + (8 if self.big else 2)
        for row in range(start, start + step * min(self.count(at), _MOST_ENTRIES), step):
            if row + step > len(self.data):
                return
            tag, kind, count = struct.unpack_from(self.order + fields, self.data, row)
            size = _SIZES.get(kind, 0) * count
            place = row + step - inline
            if size > inline:
                place = self._one("Q" if self.big else "I", place)
            yield _Entry(tag, kind, count, self.data[place : place + min(size, 128)])


def read(data: bytes) -> Tiff:
    """Read the first directory, and those that it points to.

    Raises:
        UnreadableError: it has no size, or is cut.
        struct.error: it is cut.
    """
    layout = Layout(data)
    if layout.count(layout.first) > _MOST_ENTRIES:
        return Tiff(0, 0, 0, 0, f"{layout.count(layout.first):,} tags")
    # A tag that occurs twice counts with its largest value, whichever of them a decoder takes.
    largest: dict[int, int] = {}
    size, values = 0, 0
    waiting, seen = [layout.first], set[int]()
    while waiting:
        at = waiting.pop()
        if at in seen or at >= len(data) - 2:
            continue
        seen.add(at)
        if len(seen) > _MOST_DIRECTORIES:
            return Tiff(0, 0, 0, 0, f"more than {_MOST_DIRECTORIES} directories of tags")
        for entry in layout.entries(at):
            if entry.size > len(data):
                continue  # as Pillow does, and libtiff
            if entry.kind in _BYTES:
                size += entry.size
            else:
                values += entry.count
            if values > _MOST_VALUES:
                return Tiff(0, 0, 0, 0, f"more than {_MOST_VALUES:,} values in its tags")
            numbers = entry.numbers(layout.order)
            if entry.tag in _DIRECTORIES:
                waiting += numbers
            if at == layout.first and numbers:
                largest[entry.tag] = max(largest.get(entry.tag, 0), *numbers)
    width, height = largest.get(_WIDTH, 0), largest.get(_HEIGHT, 0)
    if width <= 0 or height <= 0:
        raise UnreadableError
    tile = largest.get(_TILE_WIDTH, 0), largest.get(_TILE_HEIGHT, 0)
    chunk = _chunk(
        largest, *(tile if any(tile) else (width, min(largest.get(_ROWS, height), height)))
    )
    return Tiff(width, height, chunk, 2 * size + _VALUE * values, tile=tile)


def _chunk(largest: dict[int, int], wide: int, high: int) -> int:
    """Bytes of a tile or strip, decoded: libtiff allocates it whole, however small the picture."""
    compression = largest.get(_COMPRESSION, _RAW)
    if compression == _RAW:
        return 0  # read row by row
    samples = largest.get(_SAMPLES, 3 if compression in _JPEG else 1)
    if largest.get(_PLANAR) == 2:
        samples = 1
    size = high * (-(-wide * samples * largest.get(_BITS, 1) // 8))
    if largest.get(_PHOTOMETRIC) == _YCBCR or compression in _JPEG:
        size += 4 * wide * high  # converted to RGBA as a whole
    return size
