"""Boxes: what ISO base media files (HEIC, AVIF) and JPEG 2000 files consist of."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from embed.decoding.headers.measured import UnreadableError

_MOST_BOXES = 4096


class Box(NamedTuple):
    """Kind, and where its body starts and ends."""

    kind: bytes
    start: int
    end: int


def boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
    """The boxes between ``start`` and ``end``, each cut there: ISO/IEC 14496-12, 4.2.

    Raises:
        UnreadableError: a box is shorter than its own head, or there are far too many.
    """
    end = min(end, len(data))
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1 and body + 8 <= end:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        stop = start + size if size else end
        if stop < body:
            raise UnreadableError
        yield Box(kind, body, min(stop, end))
        start = stop
    raise UnreadableError


def first(data: bytes, start: int, end: int, kind: bytes) -> Box:
    """The first box of that kind.

    Raises:
        UnreadableError: there is none.
    """
    for box in boxes(data, start, end):
        if box.kind == kind:
            return box
    raise UnreadableError
