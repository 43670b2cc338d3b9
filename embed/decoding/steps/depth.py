"""Samples of more than 8 bits, signed or real ones, and inverted ones, as 8-bit grey or colour.

Such files seldom use all that their samples could hold: a camera's 12 bits lie in 16, elevations in
floats, and one dead pixel or a value that stands for "no data" exceeds all others. Which values are
black and white is decided so, the first that applies:

1. What the file says: TIFF's SMinSampleValue and SMaxSampleValue, ImageJ's display range, the
   significant bits of OME-XML, MaxSampleValue, PNG's sBIT. A range that is the whole one of the
   type says nothing. JPEG 2000 and PNM of less than 16 bits are scaled by their decoders.
2. Otherwise what the pixels say, of which up to a quarter million are looked at. These do not
   count: not a number; the no-data value that GDAL writes; magnitudes of ``_BEYOND`` and more; a
   value at either end that many pixels share and that lies further from all others than they from
   each other, or is the only negative one; the last thousandth of the pixels at either end, and
   of signed ones and floats the last hundredth where it lies far from the others. The rest decides:

   - integers without a sign: 0 to the first of 2^8 - 1, 2^10 - 1, ... 2^16 - 1 that holds them. A
     picture that uses the upper three quarters of 16 bits is only ever divided by 65,535. Values
     of less than an eighth of it, far from zero and from white, are temperatures and the like:
     from the lowest to the highest.
   - signed integers and floats: 0 to 1 for floats within it that reach 1/4, -1 to 1 likewise, 0 to
     2^n - 1 or -2^(n-1) to 2^(n-1) - 1 where they use most of it, otherwise from 0, or from their
     lowest value if that is negative or more than half of their highest.

Between both, values are mapped in proportion; what lies outside is black or white, and pixels
without data are black. The picture is a copy to look at and to compare: nothing may be measured in
it. Sources: TIFF 6.0, sections 8, 19; GDAL's raster data model; PNG (third edition), 11.3.2.4.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, TiffImagePlugin

from embed.decoding.headers import jpeg2000

Values = NDArray[Any]

BAND = 2**20
"""Pixels converted at a time."""
_SAMPLE = 2**18
_BEYOND = 1e30
_CONTAINERS = (8, 10, 12, 14, 16)
_LARGE_CONTAINERS = (24, 32)
_SIGNED_CONTAINERS = (8, 10, 12, 14, 15, 16, 24, 31, 32)
"""All values of a signed type that are not negative have a bit less than it."""
_IGNORED = 1000
"""One in so many pixels at either end does not decide about the range."""
_FEW = 100
"""One in so many may lie far from all others."""
_LEVELS = 32
"""Pixels of fewer values are a drawing, in which one far from the others is no accident."""
_NO_DATA = (-999, -9999, -99999, -32767, -32768, -(2**31), 1 - 2**31)
"""What programs write where there is nothing."""

_PHOTOMETRIC, _BITS, _COMPRESSION, _PLANAR, _FORMAT = 262, 258, 259, 284, 339
_DESCRIPTION, _GDAL_NO_DATA = 270, 42113
_MIN, _MAX, _S_MIN, _S_MAX, _EXTRA = 280, 281, 340, 341, 338
_FAX = (2, 3, 4)
_UNSIGNED, _SIGNED, _REAL = 1, 2, 3
_NATIVE = {
    "I;16BS": "I;16NS", "I;32B": "I;32N", "I;32BS": "I;32NS", "F;32BF": "F;32NF",
    "F;64BF": "F;64NF",
}  # fmt: skip
"""What Pillow calls big-endian samples, and what they are once libtiff has read them."""
_EIGHT_BITS = ("JPEG", "MPO", "WEBP", "GIF", "BMP")

_BIG_TIFF = b"MM\0\x2b"
_SWAPPED = b"MM\x2b\0"

_IMAGEJ = re.compile(r"^(min|max)=([-+.\deE]+)\s*$", re.MULTILINE)
_OME_BITS = re.compile(r'SignificantBits="(\d{1,2})"')
_DEEP_PPM = ("ppm", ("RGB", 65535))
_DEEP_COLOUR = re.compile(r"(LA|RGB|RGBA|RGBX|R);16([BLN])")


def _more_tiffs() -> dict[Any, tuple[str, str]]:
    """Combinations that Pillow's unpackers can read, but that its table of TIFFs lacks."""
    found: dict[Any, tuple[str, str]] = {}
    for order, big in ((b"II", ""), (b"MM", "B")):
        for photometric in (0, 1):
            for kind, bits, mode, raw in (
                (_UNSIGNED, 12, "I;16", "I;12"),
                (_UNSIGNED, 16, "I;16" + big, "I;16" + big),
                (_REAL, 16, "I;16" + big, "I;16" + big),
                (_UNSIGNED, 32, "I", f"I;32{big}"),
                (_SIGNED, 8, "L", "L"),
                (_SIGNED, 16, "I", f"I;16{big}S"),
                (_SIGNED, 32, "I", f"I;32{big}S"),
                (_REAL, 32, "F", f"F;32{big}F"),
                (_REAL, 64, "F", f"F;64{big}F"),
            ):
                found[(order, photometric, (kind,), 1, (bits,), ())] = (mode, raw)
        for extra in (0, 1, 2):
            raw = "LA;16" + (big or "L")
            found[(order, 1, (_UNSIGNED,), 1, (16, 16), (extra,))] = ("RGBA", raw)
    return found


for _key, _modes in _more_tiffs().items():
    TiffImagePlugin.OPEN_INFO.setdefault(_key, _modes)


def _read_big_endian_directories() -> None:
    """Pillow takes a header for that of a BigTIFF by the third byte, in either byte order."""
    directory: Any = TiffImagePlugin.ImageFileDirectory_v2
    plain = directory.__init__

    @functools.wraps(plain)
    def swapped(self: Any, ifh: bytes = b"II*\0\0\0\0\0", *args: Any, **more: Any) -> None:
        plain(self, _SWAPPED + ifh[4:] if ifh.startswith(_BIG_TIFF) else ifh, *args, **more)

    directory.__init__ = swapped
    TiffImagePlugin.PREFIXES.append(_SWAPPED)


_read_big_endian_directories()


@dataclass(frozen=True)
class Samples:
    """What a file says of its grey samples.

    Attributes:
        kind: their type, which Pillow's may only have the size of.
        inverted: the lowest is white, and Pillow has not turned that round.
        range: lowest and highest value, as the file states them, or None.
        most: no value is larger; None if not stated.
        no_data: the value that stands for no data, or None.
    """

    kind: np.dtype[Any]
    inverted: bool = False
    range: tuple[float, float] | None = None
    most: float | None = None
    no_data: float | None = None


def samples(image: Image.Image) -> Samples | None:
    """What is said of the samples of a picture; None if they are ordinary 8-bit ones."""
    if image.format in _EIGHT_BITS:
        return None
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _tiff_samples(image)
    if image.mode == "F":
        return Samples(np.dtype(np.float32))
    if image.mode == "I" or (image.mode.startswith("I;16") and image.format != "PNG"):
        kind = np.dtype(np.uint32 if image.mode == "I" else np.uint16)
        return Samples(kind, range=None if _says_16_bits(image) else (0, 65535))
    if image.mode.startswith("I;16"):
        return Samples(np.dtype(np.uint16), most=_png_most(image))
    return None


def _says_16_bits(image: Image.Image) -> bool:
    """Whether a JPEG 2000 or PNM says no more than that its samples have 16 bits.

    Fewer are scaled to 16 by its decoder.
    """
    if image.format == "JPEG2000":
        return jpeg2000.bits(file_of(image)) == 16
    return _raw_mode(image) == "I;16B"


def load(image: Image.Image) -> Image.Image:
    """Decode the pixels; those of a 16-bit colour picture that uses fewer bits fill 8 bits."""
    if image.format in _EIGHT_BITS:
        image.load()
        return image
    if image.format == "JPEG2000":
        return _load_jpeg_2000(image)
    _correct(image)
    deep = _DEEP_COLOUR.fullmatch(_raw_mode(image))
    if deep is None:
        image.load()
        return image
    data, form = file_of(image), image.format or ""
    if deep[1] == "LA":
        high, low = _grey_and_alpha(image, deep[2])
    else:
        image.load()
        high, low = image, None
    tops = [_top(band.histogram()) for band in high.split()]
    colours = 1 if high.mode == "LA" else 3
    top = max(tops[:colours])
    if top >= 64 or not data:
        return high
    return _filled(high, low or _low_bytes(data, form, deep), [top] * colours + tops[colours:])


def to_8_bits(image: Image.Image, said: Samples) -> Image.Image:
    """The grey picture that the samples of ``image`` show, mode "L"."""
    sampled = np.concatenate([_some(band, said, image) for _, band in bands(image)])
    low, high = black_and_white(sampled, said)
    grey = np.empty((image.height, image.width), np.uint8)
    for rows, band in bands(image):
        values = _values(band, said)
        exact = values.dtype.itemsize < 4 or values.dtype.kind == "f"
        wide: Values = values.astype(np.float32 if exact else np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            shown = np.clip((wide - low) / (high - low), 0.0, 1.0)
        if said.inverted:
            shown = 1.0 - shown
        shown[~_has_data(values, said)] = 0.0
        grey[rows] = np.rint(shown * 255.0)
    found = Image.fromarray(grey)
    found.info = image.info
    return found


def black_and_white(values: Values, said: Samples) -> tuple[float, float]:
    """The values of black and white, of which the second is larger; see above.

    Args:
        values: some or all samples, of any shape.
        said: what the file says of them.
    """
    values = values[_has_data(values, said)]
    if values.dtype.kind == "f":
        values = values[np.abs(values) < _BEYOND]
    if not values.size:
        return said.range or (0.0, 1.0)
    ordered = _without_fill(np.sort(values.astype(np.float64)), said)
    if said.kind.kind != "u":
        ordered = -_without_far(-_without_far(ordered)[::-1])[::-1]
    ignored = _ignored(ordered.size)
    low, high = float(ordered[ignored]), float(ordered[-1 - ignored])
    if said.range is not None and said.range[0] < high and said.range[1] > low:
        return said.range
    if said.kind.kind == "u" and said.kind.itemsize <= 2:
        most = said.most if said.most is not None and said.most >= high else high
        top = _container(most)
        narrow = high - low < high / 8 and high < 7 / 8 * top
        if narrow and len(np.unique(ordered)) >= _LEVELS:
            return low, high
        return 0.0, top
    if said.most is not None and said.most >= high and low >= 0:
        return 0.0, said.most
    # Only what lies far from the others is left out: a picture's own lights are not.
    if ordered[0] >= low - (high - low) and (low < 0 or ordered[0] >= 0):
        low = float(ordered[0])
    if ordered[-1] <= high + (high - low):
        high = float(ordered[-1])
    return _range(low, high, said.kind.kind)


def _range(low: float, high: float, kind: str) -> tuple[float, float]:
    real = kind == "f"
    containers = _SIGNED_CONTAINERS if kind == "i" else _CONTAINERS + _LARGE_CONTAINERS
    if low >= -0.05 * high and high > 0:
        if real and (0.25 <= high <= 1.05 or low == high < 1):
            return 0.0, 1.0
        for bits in containers:
            top = 2.0**bits - 1
            partly = high > top / 2 or (not real and bits <= 16)
            if high <= top and partly and low <= high / 2:
                return 0.0, top
        return (max(low, 0.0), high) if high / 2 < low < high else (0.0, high)
    if real and low >= -1.05 and high <= 1.05 and high - low >= 1:
        return -1.0, 1.0
    if real and 0.95 <= high <= 1.05:  # what is far below zero is no part of such a picture
        return 0.0, 1.0
    for bits in _CONTAINERS + _LARGE_CONTAINERS:
        half = 2.0 ** (bits - 1)
        if -half <= low and high < half and high - low >= half:
            return -half, half - 1
    return (low, high) if low < high else (low, low + 1)


def _container(high: float) -> float:
    return next(top for bits in _CONTAINERS if (top := 2.0**bits - 1) >= high)


def _ignored(n: int) -> int:
    return max(n // _IGNORED, min(4, n // 64))


def _without_fill(ordered: Values, said: Samples) -> Values:
    """Without the value at either end that stands for something else; see above."""
    for end in (0, -1):
        value = ordered[end]
        if said.kind.kind == "u" and value != np.iinfo(said.kind).max:
            continue
        rest = ordered[ordered != value]
        if not rest.size:
            continue
        ignored = _ignored(rest.size)
        low, high = rest[ignored], rest[-1 - ignored]
        gap = low - value if end == 0 else value - high
        far = gap > high - low or (value < 0 <= rest[0])
        if far and (value in _NO_DATA or len(np.unique(rest)) >= _LEVELS):
            ordered = rest
    return ordered


def _without_far(ordered: Values) -> Values:
    """Without up to a hundredth at the upper end, twice as far away as the rest is wide."""
    few = ordered.size // _FEW
    rest = ordered[: ordered.size - few]
    wide = rest[-1 - _ignored(rest.size)] - rest[_ignored(rest.size)]
    far = np.flatnonzero(np.diff(ordered[ordered.size - few - 1 :]) > 2 * wide)
    if not far.size or len(np.unique(rest)) < _LEVELS:
        return ordered
    return ordered[: ordered.size - few + int(far[0])]


def _has_data(values: Values, said: Samples) -> NDArray[np.bool_]:
    has = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    if said.no_data is not None:
        # A float's no-data value is written with more digits than it has.
        with np.errstate(over="ignore"):
            no_data = said.no_data if said.kind.kind != "f" else said.kind.type(said.no_data)
        has &= values != no_data
    return has


def _values(band: Image.Image, said: Samples) -> Values:
    values = np.asarray(band)
    if values.dtype.byteorder == ">":
        values = values.astype(values.dtype.newbyteorder("="))
    return values.view(said.kind) if said.kind.itemsize == values.dtype.itemsize else values


def _some(band: Image.Image, said: Samples, image: Image.Image) -> Values:
    # An odd step does not hit the same columns of every row.
    step = max(1, image.width * image.height // _SAMPLE) | 1
    return _values(band, said).ravel()[::step]


def bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """A picture in bands of about ``BAND`` pixels, each with the rows that it is."""
    step = max(1, BAND // image.width)
    for top in range(0, image.height, step):
        bottom = min(image.height, top + step)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def _tiff_samples(image: TiffImagePlugin.TiffImageFile) -> Samples | None:
    tags = image.tag_v2
    deep = image.mode.startswith("I") or image.mode == "F"
    form = tags.get(_FORMAT, (_UNSIGNED,))[0]
    if not deep and image.mode not in ("L", "1"):
        return None
    stated = tags.get(_PHOTOMETRIC)
    if not deep and form != _SIGNED:
        # Pillow inverts what has no photometric interpretation, libtiff only faxes.
        if stated is not None or tags.get(_COMPRESSION) in _FAX or image.mode == "1":
            return None
        return Samples(np.dtype(np.uint8), inverted=True, range=(0, 255))
    bits = tags.get(_BITS, (1,))[0]
    letter = {_SIGNED: "i", _REAL: "f"}.get(form, "u")
    if bits not in (8, 16, 32, 64):
        bits, letter = 16, "u"
    # Pillow makes 32-bit integers of signed 16-bit ones, and 32-bit floats of 64-bit ones.
    size = {"F": 4, "I": 4, "L": 1}.get(image.mode, 2)
    kind = np.dtype(f"{letter}{size}")
    stored = np.dtype(f"{letter}{bits // 8}")
    said, most = _tiff_range(tags, stored)
    if tags.get(_BITS, (1,))[0] == 12:
        most = 4095.0
    return Samples(kind, stated == 0, said, most, _number(tags.get(_GDAL_NO_DATA)))


def _tiff_range(
    tags: TiffImagePlugin.ImageFileDirectory_v2, kind: np.dtype[Any]
) -> tuple[tuple[float, float] | None, float | None]:
    """The range, and the largest value, as far as they say more than the type does."""
    text = str(tags.get(_DESCRIPTION, ""))[: 2**16]
    low, high = _number(tags.get(_S_MIN)), _number(tags.get(_S_MAX))
    if text.startswith("ImageJ="):
        shown = {name: _number(value) for name, value in _IMAGEJ.findall(text)}
        low, high = shown.get("min", low), shown.get("max", high)
    most = _number(tags.get(_MAX))
    if (found := _OME_BITS.search(text)) and 0 < int(found[1]) <= 32:
        most = 2.0 ** int(found[1]) - 1
    limits = np.iinfo(kind) if kind.kind != "f" else np.finfo(kind)
    whole = high is None or high >= min(float(limits.max), _BEYOND)
    if most is not None and (most <= 0 or most >= float(limits.max)):
        most = None
    if low is None or (kind.kind != "u" and low <= max(float(limits.min), -_BEYOND)):
        low = 0.0
    if high is None or whole or high <= low:
        return None, most
    return (low, high), most


def _number(value: object) -> float | None:
    """A tag's value as a finite number, or None."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    if isinstance(value, str):
        value = value.strip("\0 \n\r\t")
    with contextlib.suppress(TypeError, ValueError, OverflowError, ZeroDivisionError):
        number = float(value)  # type: ignore[arg-type]
        return number if math.isfinite(number) else None
    return None


def _png_most(image: Image.Image) -> float | None:
    """What sBIT says of a 16-bit grey PNG whose values were not scaled up, as they should be."""
    data = file_of(image)
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            break
        if kind == b"sBIT" and length and 8 <= data[at + 8] < 16:
            return float(2 ** data[at + 8] - 1)
        at += 12 + length
    return None


def file_of(image: Image.Image) -> bytes:
    """The file that a picture is read from, before it is; not copied."""
    file = getattr(image, "fp", None)
    return file.getvalue() if isinstance(file, io.BytesIO) else b""


def _raw_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    if not tiles or not tiles[0].args:
        return ""
    args = tiles[0].args
    return args if isinstance(args, str) else str(args[0])


def _with_raw_modes(image: Any, change: Callable[[str], str]) -> None:
    image.tile = [
        tile._replace(
            args=change(tile.args)
            if isinstance(tile.args, str)
            else (change(tile.args[0]), *tile.args[1:])
        )
        for tile in image.tile
    ]


def open_file(data: bytes, form: str) -> Image.Image:
    """Pillow's picture of a file, of a big-endian BigTIFF too."""
    file = io.BytesIO(data)
    if not data.startswith(_BIG_TIFF):
        return Image.open(file, formats=(form,))
    file.getbuffer()[:4] = _SWAPPED
    image = Image.open(file, formats=(form,))
    file.getbuffer()[:4] = _BIG_TIFF  # libtiff reads it, too
    return image


def _correct(image: Any) -> None:
    """Put right how Pillow takes samples to be stored."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _correct_tiff(image)
    elif image.format == "PPM" and image.tile[0][:1] + image.tile[0][3:] == _DEEP_PPM:
        # Pillow would keep nothing of the lower bytes.
        image.tile = [image.tile[0]._replace(codec_name="raw", args=("RGB;16B", 0, 1))]


def _correct_tiff(image: Any) -> None:
    """Put right in which order Pillow takes a TIFF's bytes to be.

    libtiff returns the machine's, which Pillow expects only of 16-bit samples. Of colours that are
    stored one after the other without compression, it expects 8 bits.
    """
    if not image.tile:
        return
    big = image.tag_v2.prefix == b"MM"
    if image.tile[0].codec_name == "libtiff":
        if big:
            _with_raw_modes(image, lambda raw: _NATIVE.get(raw, raw))
    elif image.tag_v2.get(_PLANAR) == 2 and image.tag_v2.get(_BITS, (1,))[0] == 16:
        end = ";16B" if big else ";16L"
        _with_raw_modes(image, lambda raw: raw + end if raw in "RGBA" else raw)


def _top(histogram: list[int]) -> int:
    """The largest value, but for those of the last thousandth of pixels."""
    left = _ignored(sum(histogram))
    for value in range(255, 0, -1):
        left -= histogram[value]
        if left < 0:
            return value
    return 0


def _low_bytes(data: bytes, form: str | None, deep: re.Match[str]) -> Image.Image:
    """The lower bytes of a picture of which Pillow keeps the upper ones."""
    image = open_file(data, form or "")
    _correct(image)
    other = "B" if _order(deep[2]) == "L" else "L"
    _with_raw_modes(image, lambda raw: raw[:-1] + other)
    image.load()
    return image


def _order(letter: str) -> str:
    return letter if letter != "N" else "L" if struct.pack("=H", 1)[0] else "B"


def _grey_and_alpha(image: Image.Image, order: str) -> tuple[Image.Image, Image.Image]:
    """The upper and the lower bytes of grey and alpha, of which Pillow would make colours."""
    extra = image.tag_v2.get(_EXTRA) if hasattr(image, "tag_v2") else None
    _with_raw_modes(image, lambda _: "RGBA")  # all four bytes of a pixel
    image.load()
    first, second, third, fourth = image.split()
    if extra == (0,):  # a second channel that is no alpha
        third = fourth = Image.new("L", image.size, 255)
    pairs = (first, third), (second, fourth)
    high, low = (Image.merge("LA", pair) for pair in pairs)
    high.info = low.info = image.info
    return (low, high) if _order(order) == "L" else (high, low)


def _load_jpeg_2000(image: Image.Image) -> Image.Image:
    """Decode the pixels; of colours, Pillow rounds the largest values of more than 8 bits to 0."""
    data, depth = file_of(image), jpeg2000.bits(file_of(image)) or 8
    image.load()
    if depth <= 8 or image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return image
    whole = jpeg2000.with_headroom(data)
    if whole is not None and any(band.getextrema()[0] == 0 for band in image.split()):
        with Image.open(io.BytesIO(whole), formats=("JPEG2000",)) as coarse:
            pairs = zip(image.split(), coarse.split(), strict=True)
            bands = [ImageChops.lighter(band, _overflown(band, other)) for band, other in pairs]
        found = Image.merge(image.mode, bands)
        found.info = image.info
        image = found
    return _brighter(image) if depth == 16 and image.mode in ("RGB", "RGBA") else image


def _overflown(band: Image.Image, coarse: Image.Image) -> Image.Image:
    """255 where a value is 0 that is the largest with a bit more, which is 192 there."""
    zero = band.point([255] + 255 * [0])
    return ImageChops.darker(zero, coarse.point(180 * [0] + 76 * [255]))


def _brighter(image: Image.Image) -> Image.Image:
    """Colours of which the decoder keeps the upper byte, rounded, by the largest of them."""
    top = max(_top(band.histogram()) for band in image.split()[:3])
    if top > 64:
        return image
    white = _container(256.0 * top - 128)
    scaled = [min(255, round(value * 256 * 255 / white)) for value in range(256)]
    alpha = list(range(256)) if image.mode == "RGBA" else []
    return image.point(scaled * 3 + alpha)


def _filled(high: Image.Image, low: Image.Image, tops: list[int]) -> Image.Image:
    """Both bytes scaled to 8 bits, each band by the upper byte that it goes up to."""
    whites = np.array([_container(256.0 * top + 255) for top in tops], np.float32)
    filled = np.empty((high.height, high.width, len(tops)), np.uint8)
    for (rows, upper), (_, lower) in zip(bands(high), bands(low), strict=True):
        values = np.asarray(upper).astype(np.float32) * 256 + np.asarray(lower)
        filled[rows] = np.rint(np.clip(values / whites, 0.0, 1.0) * 255)
    found = Image.fromarray(filled)
    found.info = high.info
    return found
