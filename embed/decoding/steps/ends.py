"""Files whose last bytes are missing, although all of their pixels are there.

A decoder reads on until it finds the end marker, and fails where there is none. Whether pixels are
missing as well, libjpeg does not say: it fills them in. What it fills in depends on the bytes that
follow the file, so a JPEG in one scan is decoded with two different continuations, at an eighth of
its size: where the pictures begin to differ, the file ended. It is read if that is in the last row
of its blocks, and no more than ``_MISSING`` of them are affected, or the colours (not the
brightness) of the very last one.

A progressive JPEG sends every pixel coarsely first. It is read if the scans that came whole have
sent every coefficient but for its last bit, so that nothing is off by more than a quantisation
step, or if its last scan is whole by the same test at full size.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Within a scan, 0xff is followed by zero or by one of the eight restart markers.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SCAN, _END, _WITHOUT_LENGTH = 0xDA, 0xD9, 0x01
_BASELINE, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_EOI = b"\xff\xd9"

_MISSING = 0.02
"""Share of a picture that may be filled in."""
_FILLS, _LEAST_FILL = (b"\0", b"\xff"), 16
"""What a disk or a download has in place of bytes that never came, and how many of them."""
# The block that a file ends in may take 220 bytes of them, and is no different for it at an eighth.
_BITS = hashlib.shake_128().digest(1024).replace(b"\xff", b"\x7f")
_OTHER_END = _BITS + b"".join(b"\xff" + bytes([0xD0 + n]) + _BITS for n in range(8)) + _EOI
"""Bits that are no picture, and the same after each restart marker."""
_REPEATED = 50
_COEFFICIENTS = 64
_MOST_SEGMENTS = 8192
"""Before the first scan there may be half as many; `embed.decoding.header`."""


def completed(data: bytes, form: str) -> bytes | None:
    """A file that decodes, of one whose decoder reached its end; None if pixels are missing.

    Raises:
        Exception: what Pillow raises for a file that is damaged elsewhere.
    """
    if form == "JPEG":
        return _jpeg(data)
    if form == "BMP":
        return _bmp(data)
    return None


def is_filled_in(image: Image.Image, data: bytes) -> bool:
    """Whether a JPEG has its end marker, but not what should come before it.

    Programs that repair files write one. Of what is missing, libjpeg makes blocks of one colour.

    Args:
        image: as decoded, at any scale, not turned yet.
        data: the file.
    """
    width, height = image.size
    row = image.crop((width - 1 - width // 4, height - 1, width, height))
    if np.ptp(np.reshape(row.getextrema(), (-1, 2)), axis=1).any():
        return False
    with contextlib.suppress(Exception):
        found = list(segments(data))
        if found[-1][0] != _END or not any(code in _BASELINE for code, _ in found):
            return False
        sent = data[: found[-1][1] - 2]
        return not _repeats(sent[-_REPEATED:-2]) and not _whole(sent, 8)
    return False


def _repeats(sent: bytes) -> bool:
    """Whether these bytes are those of blocks that are all alike, as below a drawing."""
    return any(sent[period:] == sent[:-period] for period in range(1, _REPEATED // 2))


def without_damaged_chunks(png: bytes) -> bytes | None:
    """A PNG without what is not needed to decode it and has a wrong checksum; None if it has none.

    PNG (third edition), 13.1: a decoder may go on after an error in an ancillary chunk.
    """
    kept, at, damaged = [png[:8]], 8, False
    while at + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        end = at + 12 + length
        (stated,) = struct.unpack(">I", png[end - 4 : end].ljust(4, b"\0"))
        ancillary = bool(kind[0] & 0x20)
        if ancillary and zlib.crc32(png[at + 4 : end - 4]) != stated:
            damaged = True
        else:
            kept.append(png[at:end])
        if kind == b"IDAT":
            kept.append(png[end:])
            break
        at = end
    return b"".join(kept) if damaged else None


@dataclass(frozen=True)
class Scan:
    """A scan of a JPEG: which coefficients of which components it sends, down to which bit."""

    components: bytes
    coefficients: range
    bit: int


@dataclass
class _Jpeg:
    kind: int = 0
    components: bytes = b""
    scans: list[Scan] = field(default_factory=list)
    whole: bool = False
    cut: int | None = None
    """Where the segment begins that the file ends in, if it is not a scan."""


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """The marker of each segment of a JPEG and the place after it; ISO/IEC 10918-1, annex B.

    Raises:
        ValueError: there are more than any encoder writes.
    """
    at = 2
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None:
            return
        code, at = found[0][1], found.end()
        yield code, at
        if code == _END:
            return
        if code != _WITHOUT_LENGTH:
            at += _length(data, at)
    raise ValueError(f"more than {_MOST_SEGMENTS:,} segments")


def _length(data: bytes, at: int) -> int:
    return max(2, int.from_bytes(data[at : at + 2], "big"))


def scans(data: bytes) -> Iterator[int]:
    """The place of each scan of a JPEG, after its marker; raises as `segments` does."""
    return (at for code, at in segments(data) if code == _SCAN)


def is_one_scan(data: bytes) -> bool:
    """Whether the first scan of a JPEG holds all of it, so that libjpeg reads no other."""
    kind = components = 0
    with contextlib.suppress(ValueError, IndexError):  # a damaged header
        for code, at in segments(data):
            if code in _FRAMES:
                kind, components = code, data[at + 7]
            elif code == _SCAN:
                return kind in _BASELINE and data[at + 2] == components
    return False


def _parsed(data: bytes) -> _Jpeg:
    found = _Jpeg()
    for code, at in segments(data):
        if code == _END:
            found.whole = True
        elif code != _WITHOUT_LENGTH and at + _length(data, at) > len(data):
            found.cut = at - 2
            break
        elif code in _FRAMES:
            found.kind = code
            found.components = data[at + 8 : at + 8 + 3 * data[at + 7] : 3]
        elif code == _SCAN:
            n = data[at + 2]
            first, last, bits = data[at + 3 + 2 * n : at + 6 + 2 * n]
            found.scans.append(
                Scan(data[at + 3 : at + 3 + 2 * n : 2], range(first, last + 1), bits & 15)
            )
    return found


def _jpeg(data: bytes) -> bytes | None:
    for fill in _FILLS:
        kept = data.rstrip(fill)
        data = kept if len(data) - len(kept) >= _LEAST_FILL else data
    try:
        found = _parsed(data)
    except (IndexError, ValueError):
        return None
    if found.whole or not found.scans:
        return None
    if found.cut is not None:
        data = data[: found.cut]
    data = data.rstrip(b"\xff")  # it would make a marker of the byte that follows
    if found.kind in _BASELINE:
        complete = set(found.components) <= set(b"".join(scan.components for scan in found.scans))
        return data + _EOI if complete and _whole(data, 8) else None
    if found.kind != _PROGRESSIVE:
        return None
    # Something else follows all but the last.
    whole = found.scans if found.cut is not None else found.scans[:-1]
    if _sent(found, whole) or (_sent(found, found.scans) and _whole(data, 1)):
        return data + _EOI
    return None


def _sent(found: _Jpeg, whole: list[Scan]) -> bool:
    """Whether every coefficient has been sent, but for its last bit."""
    sent = {
        (component, coefficient)
        for scan in whole
        if scan.bit <= 1
        for component in scan.components
        for coefficient in scan.coefficients
    }
    return len(sent) == len(set(found.components)) * _COEFFICIENTS


def _whole(data: bytes, scale: int) -> bool:
    """Whether a JPEG's pixels do not depend on what follows its last bytes; see above."""
    differs, block = _differences(data, scale)
    high, wide = (8 * side // scale for side in block)
    rows, columns = (
        -(-side // step) for side, step in zip(differs.shape, (high, wide), strict=False)
    )
    total = rows * columns
    for channel in range(differs.shape[2]):
        y, x = np.nonzero(differs[:, :, channel])
        if not y.size:
            continue
        missing = total - int((y // high * columns + x // wide).min())
        last = 1 if differs.shape[2] == 3 and channel else 0
        if missing > columns or missing > max(last, _MISSING * total):
            return False
    return True


def _differences(data: bytes, scale: int) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Where the two continuations differ, ``(height, width, channels)``.

    The second value is the height and width of what a JPEG sends at a time, in blocks of 8 pixels.
    """
    pictures = []
    for end in (_EOI, _OTHER_END):
        with Image.open(io.BytesIO(data + end), formats=("JPEG",)) as image:
            layers = image.layer  # type: ignore[attr-defined]
            # The brightness is kept apart from the colours.
            image.draft("YCbCr", (max(1, image.width // scale), max(1, image.height // scale)))
            pixels = np.asarray(image)
            pictures.append(pixels.reshape(*pixels.shape[:2], -1))
    one = len(layers) == 1
    block = (1, 1) if one else (max(v for _, _, v, _ in layers), max(h for _, h, _, _ in layers))
    return pictures[0] != pictures[1], block


def _bmp(data: bytes) -> bytes | None:
    """With the last bytes of the last row, which is the upper one, if those are few."""
    start, _, width, height, _, bits, packed = struct.unpack_from("<IIiiHHI", data, 10)
    if packed not in (0, 3) or width <= 0:
        return None
    row = (width * bits + 31) // 32 * 4
    missing = start + row * abs(height) - len(data)
    padding = row - (width * bits + 7) // 8
    if 0 < missing <= max(padding, min(row, _MISSING * row * abs(height))):
        return data + bytes(missing)
    return None
