"""What decoding an HEIC or AVIF takes: its primary picture, with its tiles and its alpha plane.

Sizes come from the boxes and from the codec's own headers; what is larger counts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from embed.decoding.headers import coded_size
from embed.decoding.headers.boxes import Box, boxes, first
from embed.decoding.headers.measured import Measured, UnreadableError

_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs")
_ANY_BRANDS = (b"mif1", b"mif2", b"msf1", b"miaf")
"""Say nothing of the codec."""

_PIXEL = {"HEIF": 12, "AVIF": 16}
"""Bytes per pixel: the decoder's planes, its RGB, Pillow's picture and its turned copy."""
_ALPHA = 4
_TILE = 8
"""Bytes per pixel of the largest tile, in addition."""
_MOST_ITEMS = 4096
_MOST_TILES = 1000
_MOST_WORK = 4
"""Pixels of all tiles, for each pixel of the picture."""
_MOST_DEPTH = 4
_BLOCK = 128
"""Pixels that a codec may add to each side, to fill its largest blocks."""
_CODED = (b"hvc1", b"hev1", b"av01")
_SEEN = 4096
"""Bytes of coded data that are looked at for headers."""


def form(data: bytes) -> str | None:
    """HEIF or AVIF; None if it is neither."""
    if data[4:8] != b"ftyp":
        return None
    size = min(int.from_bytes(data[:4], "big"), 4096)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, min(size, len(data)) - 3, 4))]
    if brands[0] in _AVIF_BRANDS:
        return "AVIF"
    if brands[0] in _HEIF_BRANDS:
        return "HEIF"
    if brands[0] not in _ANY_BRANDS:
        return None
    if any(brand in _HEIF_BRANDS for brand in brands):
        return "HEIF"
    coded = any(brand in _AVIF_BRANDS for brand in brands) or b"av01" in data[:_SEEN]
    return "AVIF" if coded else "HEIF"


@dataclass
class _Item:
    kind: bytes = b""
    properties: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    """Items that it is put together from."""
    alpha: list[int] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    """Where its data starts and ends."""


def heif(data: bytes) -> Measured:
    """What decoding an HEIC takes; see ``_read`` for what it raises."""
    return _read(data, "HEIF")


def avif(data: bytes) -> Measured:
    """What decoding an AVIF takes; see ``_read`` for what it raises."""
    return _read(data, "AVIF")


def _read(data: bytes, form: str) -> Measured:
    """That of the primary picture, or of a sequence where it is larger.

    Raises:
        UnreadableError: the boxes are damaged, or the picture is in none of them.
        struct.error: a box is cut.
        IndexError: a codec's header is cut.
    """
    outside = {box.kind: box for box in boxes(data, 0, len(data))}
    found = [_File(data, outside[b"meta"]).cost(form)] if b"meta" in outside else []
    for size in _tracks(data, outside[b"moov"]) if b"moov" in outside else ():
        found.append(Measured(*size, size[0] * size[1] * (_PIXEL[form] + _ALPHA)))
    if not found:
        raise UnreadableError
    return max(found, key=lambda measured: measured.memory)


def _tracks(data: bytes, movie: Box) -> Iterator[coded_size.Size]:
    """The sizes of a sequence's tracks: ISO/IEC 14496-12, 8.5.2 and 12.1.3."""
    for track in boxes(data, movie.start, movie.end):
        if track.kind != b"trak":
            continue
        table = track
        for kind in (b"mdia", b"minf", b"stbl", b"stsd"):
            table = first(data, table.start, table.end, kind)
        for entry in boxes(data, table.start + 8, table.end):
            if entry.kind not in _CODED:
                continue
            yield struct.unpack_from(">HH", data, entry.start + 24)
            for box in boxes(data, entry.start + 78, entry.end):
                body = data[box.start : box.end]
                if box.kind == b"hvcC":
                    yield coded_size.hevc(body, b"")
                elif box.kind == b"av1C":
                    yield coded_size.av1(body, b"")


class _File:
    def __init__(self, data: bytes, meta: Box) -> None:
        self._data = data
        self._items: dict[int, _Item] = {}
        self._properties: list[Box] = []
        self._primary = -1
        self._inline = 0
        self._excess = ""
        self._sizes: dict[int, coded_size.Size] = {}
        readers: dict[bytes, Callable[[Box], None]] = {
            b"pitm": self._read_primary,
            b"iinf": self._read_items,
            b"iprp": self._read_properties,
            b"iref": self._read_references,
            b"iloc": self._read_places,
        }
        found = {box.kind: box for box in boxes(data, meta.start + 4, meta.end)}
        if b"idat" in found:
            self._inline = found[b"idat"].start
        for kind, reader in readers.items():
            if kind in found:
                reader(found[kind])

    def _number(self, code: str, at: int) -> int:
        (value,) = struct.unpack_from(">" + code, self._data, at)
        return int(value)

    def _item(self, number: int) -> _Item:
        if len(self._items) > _MOST_ITEMS:
            self._excess = f"more than {_MOST_ITEMS:,} items"
        return self._items.setdefault(number, _Item())

    def _read_primary(self, box: Box) -> None:
        self._primary = self._number("I" if self._data[box.start] else "H", box.start + 4)

    def _read_items(self, box: Box) -> None:
        start = box.start + (8 if self._data[box.start] else 6)
        for entry in boxes(self._data, start, box.end):
            version = self._data[entry.start]
            if entry.kind == b"infe" and version >= 2:
                wide = version > 2
                number = self._number("I" if wide else "H", entry.start + 4)
                at = entry.start + (10 if wide else 8)
                self._item(number).kind = self._data[at : at + 4]

    def _read_properties(self, box: Box) -> None:
        for part in boxes(self._data, box.start, box.end):
            if part.kind == b"ipco":
                self._properties = list(boxes(self._data, part.start, part.end))
            elif part.kind == b"ipma":
                self._read_associations(part)

    def _read_associations(self, box: Box) -> None:
        wide_item, wide_index = self._data[box.start] > 0, self._data[box.start + 3] & 1
        at = box.start + 8
        for _ in range(min(self._number("I", box.start + 4), _MOST_ITEMS)):
            item = self._item(self._number("I" if wide_item else "H", at))
            at += 4 if wide_item else 2
            count, at = self._data[at], at + 1
            for _ in range(count):
                index = self._number("H" if wide_index else "B", at)
                item.properties.append(index & (0x7FFF if wide_index else 0x7F))
                at += 2 if wide_index else 1

    def _read_references(self, box: Box) -> None:
        code, size = ("I", 4) if self._data[box.start] else ("H", 2)
        for part in boxes(self._data, box.start + 4, box.end):
            source = self._number(code, part.start)
            count = self._number("H", part.start + size)
            if count > _MOST_TILES:
                self._excess = f"more than {_MOST_TILES:,} tiles"
                return
            targets = struct.unpack_from(f">{count}{code}", self._data, part.start + size + 2)
            if part.kind == b"dimg":
                self._item(source).parts += targets
            elif part.kind == b"auxl":
                for target in targets:
                    self._item(target).alpha.append(source)

    def _read_places(self, box: Box) -> None:
        version = self._data[box.start]
        sizes = self._number("H", box.start + 4)
        offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        wide = 4 if version == 2 else 2
        at = box.start + 6
        count, at = self._take(at, wide), at + wide
        for _ in range(min(count, _MOST_ITEMS)):
            item, at = self._item(self._take(at, wide)), at + wide
            inline = bool(version) and self._take(at, 2) & 15 == 1
            at += (2 if version else 0) + 2
            start, at = self._take(at, base), at + base
            start += self._inline if inline else 0
            extents, at = self._take(at, 2), at + 2
            for _ in range(min(extents, _MOST_ITEMS)):
                at += index if version else 0
                begin, at = start + self._take(at, offset), at + offset
                span, at = self._take(at, length), at + length
                item.places.append((begin, begin + span if length else len(self._data)))

    def _take(self, at: int, size: int) -> int:
        if at + size > len(self._data):
            raise UnreadableError
        return int.from_bytes(self._data[at : at + size], "big")

    def _body(self, item: _Item) -> bytes:
        """The first of its data."""
        found = b""
        for start, end in item.places[:16]:
            found += self._data[start : min(end, start + _SEEN - len(found))]
            if len(found) >= _SEEN:
                break
        return found

    def _property(self, item: _Item, kind: bytes) -> Iterator[bytes]:
        for index in item.properties:
            if 0 < index <= len(self._properties) and self._properties[index - 1].kind == kind:
                box = self._properties[index - 1]
                yield self._data[box.start : box.end]

    def _size(self, number: int) -> coded_size.Size:
        """What the boxes say of the item, or its codec if that is far more.

        Codecs pad to whole blocks; what a box cuts off again is no more than that.
        """
        if number not in self._sizes:
            item = self._items.get(number, _Item())
            stated = max(self._stated(item), key=_area)
            coded = max(self._coded(item), key=_area)
            padded = _area((stated[0] + _BLOCK, stated[1] + _BLOCK))
            self._sizes[number] = coded if _area(coded) > padded else stated
        return self._sizes[number]

    def _stated(self, item: _Item) -> Iterator[coded_size.Size]:
        yield 0, 0
        for box in self._property(item, b"ispe"):
            width, height = struct.unpack_from(">II", box, 4)
            yield width, height
        if item.kind in (b"grid", b"iovl"):
            yield _canvas(item.kind, self._body(item))

    def _coded(self, item: _Item) -> Iterator[coded_size.Size]:
        yield 0, 0
        for box in self._property(item, b"hvcC"):
            yield coded_size.hevc(box, self._body(item))
        for box in self._property(item, b"av1C"):
            yield coded_size.av1(box, self._body(item))

    def _total(self, number: int, depth: int = 0) -> tuple[int, int, int]:
        """Pixels of the tiles below an item, how many those are, and pixels of the largest."""
        item = self._items.get(number, _Item())
        if depth > _MOST_DEPTH:
            raise UnreadableError
        total = count = largest = 0
        known: dict[int, tuple[int, int, int]] = {}
        for part in item.parts:
            if part not in known:
                own = _area(self._size(part))
                below, more, peak = self._total(part, depth + 1)
                known[part] = own + below, 1 + more, max(own, peak)
            pixels, parts, peak = known[part]
            total, count, largest = total + pixels, count + parts, max(largest, peak)
            if count > _MOST_TILES:
                break
        return total, count, largest

    def cost(self, form: str) -> Measured:
        if self._primary not in self._items:
            raise UnreadableError
        width, height = self._size(self._primary)
        if not width or not height:
            raise UnreadableError
        total, count, largest = self._total(self._primary)
        memory = width * height * _PIXEL[form]
        for part in self._items[self._primary].alpha:
            below, more, peak = self._total(part)
            memory += _area(self._size(part)) * _ALPHA
            total, count, largest = total + below, count + more, max(largest, peak)
        if count > _MOST_TILES:
            self._excess = f"more than {_MOST_TILES:,} tiles"
        elif total > _MOST_WORK * max(width * height, 2**20):
            self._excess = f"tiles of {total:,} pixels for a picture of {width * height:,}"
        return Measured(width, height, memory + largest * _TILE, self._excess)


def _area(size: coded_size.Size) -> int:
    return size[0] * size[1]


def _canvas(kind: bytes, body: bytes) -> coded_size.Size:
    """The size that a grid or an overlay states: ISO/IEC 23008-12, 6.6.2.2 and 6.6.2.3."""
    code = ">II" if body[1] & 1 else ">HH"
    width, height = struct.unpack_from(code, body, 4 if kind == b"grid" else 10)
    return width, height
