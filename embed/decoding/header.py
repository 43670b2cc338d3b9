"""What decoding a picture takes, read from its header before any decoder sees it.

What a header calls the picture is not what a decoder allocates: a TIFF of 64x64 pixels may consist
of one tile of 16384x16384. Each format of ``FORMATS`` states its cost in ``_READERS``. Where a
header cannot be read here, the picture is left to a worker process and its memory limit.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from embed.decoding.headers import camera_raw, heif, jpeg2000, plain, tiff
from embed.decoding.headers.measured import Measured, UnreadableError
from embed.decoding.limits import LARGE, PictureError, PictureLimits, too_many_pixels

PIXEL = 8
"""Bytes per pixel that every format needs: Pillow's picture, and its turned or converted copy."""
_WEBP_PIXEL = 20
"""libwebp's two canvases and its decoder's buffer, the copy of the result, Pillow's picture."""
_COEFFICIENT = 2
"""Bytes per sample that libjpeg keeps of a picture in several scans."""
_TEXT, _ALL_TEXT = 2**20, 64 * 2**20
"""Pillow inflates at most this much of a PNG's chunk of text or profile, and of all texts."""

# What an ordinary file has at most. More makes it no less valid, but it is decoded elsewhere.
_ORDINARY_PARTS = 64
_ORDINARY_INFLATED = 4
_ORDINARY_EXTRA = 256 * 2**10
# Pillow handles each of these in Python: segments of a JPEG and blocks of a GIF before the picture,
# chunks of a PNG. It appends each segment of EXIF to a copy of all before.
_MOST_PARTS = 4096
_MOST_CHUNKS = 2**16
_MOST_EXIF = 2 * 2**20
_INFLATED = (b"zTXt", b"iTXt", b"iCCP")

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    jpeg2000.BOXED: "JPEG2000",
    jpeg2000.CODESTREAM: "JPEG2000",
    **dict.fromkeys(tiff.SIGNATURES, "TIFF"),
}
_RECOGNISED: dict[str, Callable[[bytes], bool]] = {
    "ICO": plain.is_icon,
    "PPM": plain.is_pnm,
    "DIB": plain.is_dib,
}
"""Formats whose first bytes alone say too little."""


@dataclass(frozen=True)
class Header:
    """What is known of a picture before it is decoded.

    Attributes:
        form: its format, one of ``FORMATS``.
        width: in pixels; 0 if the header could not be read here.
        height: in pixels; 0 if the header could not be read here.
        memory: estimated bytes to decode it; None if the header could not be read here.
        ordinary: a small PNG or JPEG without anything unusual, safe to decode in this process.
        excess: what it has far too much of, for people; empty if nothing.
        tile: width and height of what its decoder decodes at once, if that may be larger.
        kept: how much of the memory a JPEG takes even if it is decoded at a fraction of its size.
    """

    form: str
    width: int = 0
    height: int = 0
    memory: int | None = None
    ordinary: bool = False
    excess: str = ""
    tile: tuple[int, int] = (0, 0)
    kept: int = 0

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    def check(self, limits: PictureLimits) -> None:
        """Compare it with the limits.

        Raises:
            PictureError: it has more pixels, or takes more to decode.
        """
        if self.pixels > limits.most_pixels(self.form):
            raise too_many_pixels(self.width, self.height, self.form, limits)
        how = "save it as an ordinary PNG or JPEG"
        if self.excess:
            raise PictureError("too-costly", f"the {self.form} has {self.excess}; {how}")
        wide, high = self.tile
        if wide * high > limits.max_pixels:
            raise PictureError(
                "too-costly",
                f"the {self.form} of {self.width} x {self.height} pixels consists of tiles of"
                f" {wide} x {high}, more than the limit of {limits.max_pixels:,} pixels; {how}",
            )
        memory = self.memory
        if memory is not None and self.pixels > limits.max_pixels:
            memory = self.kept + limits.max_pixels * PIXEL
        if memory is not None and memory > limits.max_memory:
            raise PictureError(
                "too-costly",
                f"decoding the {self.form} of {self.width} x {self.height} pixels takes about"
                f" {memory:,} bytes of memory, more than the limit of"
                f" {limits.max_memory:,}; scale it down, or {how}",
            )


def read_header(data: bytes) -> Header | None:
    """The header of an encoded picture; None if it is in none of the ``FORMATS``."""
    form = _form(data)
    if form is None:
        return None
    try:
        return _READERS[form](data)
    except (UnreadableError, struct.error, IndexError, OverflowError):
        return Header(form)


def _form(data: bytes) -> str | None:
    if data.startswith(b"RIFF"):
        return "WEBP" if data[8:12] == b"WEBP" else None
    for signature, form in _SIGNATURES.items():
        if data.startswith(signature):
            return None if form == "TIFF" and camera_raw.named(data) is not None else form
    for form, recognises in _RECOGNISED.items():
        if recognises(data):
            return form
    return heif.form(data)


def _png(data: bytes) -> Header:
    length, kind, width, height, depth, colour, _, _, interlaced = struct.unpack_from(
        ">I4sIIBBBBB", data, 8
    )
    if kind != b"IHDR" or length != 13:
        raise UnreadableError
    at, end = 33, len(data)
    parts = inflated = extra = chunks = 0
    animated = False
    while at + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        chunks += 1
        if chunks > _MOST_CHUNKS:
            return Header("PNG", excess=f"more than {_MOST_CHUNKS:,} chunks")
        if kind == b"IDAT":
            continue
        if kind == b"IEND":
            break
        parts += 1
        extra += length
        inflated += kind in _INFLATED
        animated = animated or kind == b"acTL"
    pixels = width * height
    texts = min(inflated * _TEXT, _ALL_TEXT)
    return Header(
        "PNG",
        width,
        height,
        # The lower bytes of 16-bit colours are a picture of their own.
        pixels * (2 * PIXEL if animated or (depth > 8 and colour) else PIXEL) + 2 * texts,
        ordinary=pixels <= LARGE
        and depth <= 8
        and not interlaced
        and not animated
        and parts <= _ORDINARY_PARTS
        and inflated <= _ORDINARY_INFLATED
        and extra <= _ORDINARY_EXTRA,
    )


def _jpeg(data: bytes) -> Header:
    """Walks the segments up to the first scan; ISO/IEC 10918-1, annex B."""
    at, parts, frames, exif = 2, 0, 0, 0
    width = height = components = 0
    kind = frame = 0
    while True:
        if data[at] != 0xFF:
            raise UnreadableError
        while data[at] == 0xFF:  # fill bytes
            at += 1
        marker = data[at]
        if marker == 0xDA:
            break
        if marker < 0xC0 or 0xD0 <= marker <= 0xD9:
            raise UnreadableError
        parts += 1
        if parts > _MOST_PARTS:
            return Header(
                "JPEG", excess=f"more than {_MOST_PARTS:,} segments before its first scan"
            )
        (length,) = struct.unpack_from(">H", data, at + 1)
        if marker == 0xE1 and data.startswith(b"Exif\0\0", at + 3):
            exif += length
            if exif > _MOST_EXIF:
                return Header("JPEG", excess=f"more than {_MOST_EXIF:,} bytes of EXIF")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, components = struct.unpack_from(">HHB", data, at + 4)
            kind, frame = marker, at
            frames += 1
        at += 1 + length
    if frames != 1:
        raise UnreadableError
    pixels = width * height
    progressive = kind != 0xC0 and kind != 0xC1
    # A baseline picture whose first scan holds all of it is decoded row by row; libjpeg (jdinput.c)
    # reads no scan after that.
    whole = progressive or data[at + 3] != components
    sampling = data[frame + 10 : frame + 9 + 3 * components : 3]
    kept = _COEFFICIENT * _samples(pixels, sampling) if whole else 0
    return Header(
        "JPEG",
        width,
        height,
        pixels * PIXEL + kept,
        kept=kept,
        ordinary=pixels <= LARGE
        and kind in (0xC0, 0xC1, 0xC2)
        and parts <= _ORDINARY_PARTS
        and at <= _ORDINARY_EXTRA,
    )


def _samples(pixels: int, sampling: bytes) -> int:
    """Those of all components, of which some may have fewer; 0 if the factors are damaged."""
    factors = [(code >> 4) * (code & 15) for code in sampling]
    most = max((code >> 4 for code in sampling), default=0)
    most *= max((code & 15 for code in sampling), default=0)
    return pixels * sum(factors) // most if most else 0


def _webp(data: bytes) -> Header:
    """The canvas of RFC 9649; libwebp checks that frames lie within it."""
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise UnreadableError
    return Header("WEBP", width, height, width * height * _WEBP_PIXEL)


def _gif(data: bytes) -> Header:
    """The canvas, which Pillow enlarges if the first frame leads out of it."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    parts = 0
    while data[at] != 0x2C:
        if data[at] != 0x21:
            raise UnreadableError
        for end in _sub_blocks(data, at + 2):
            at = end
            parts += 1
            if parts > _MOST_PARTS:
                return Header("GIF", excess=f"more than {_MOST_PARTS:,} blocks before its picture")
    left, top, wide, high = struct.unpack_from("<HHHH", data, at + 1)
    width, height = max(width, left + wide), max(height, top + high)
    return Header("GIF", width, height, width * height * PIXEL)


def _sub_blocks(data: bytes, at: int) -> Iterator[int]:
    """Where each of a GIF's chain of blocks ends; the last is an empty one."""
    while True:
        length = data[at]
        at += 1 + length
        yield at
        if not length:
            return


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = (abs(side) for side in struct.unpack_from("<ii", data, 18))
    return Header("BMP", width, height, width * height * PIXEL)


def _tiff(data: bytes) -> Header:
    found = tiff.read(data)
    memory = found.width * found.height * PIXEL + found.chunk + found.tags
    return Header("TIFF", found.width, found.height, memory, False, found.excess, found.tile)


def _measured(form: str, reader: Callable[[bytes], Measured]) -> Callable[[bytes], Header]:
    def read(data: bytes) -> Header:
        found = reader(data)
        return Header(form, found.width, found.height, found.memory, excess=found.excess)

    return read


_READERS: dict[str, Callable[[bytes], Header]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "GIF": _gif,
    "BMP": _bmp,
    "TIFF": _tiff,
    **{
        form: _measured(form, reader)
        for form, reader in {
            "HEIF": heif.heif,
            "AVIF": heif.avif,
            "JPEG2000": jpeg2000.read,
            "ICO": plain.icon,
            "PPM": plain.pnm,
            "DIB": plain.dib,
        }.items()
    },
}
