"""Untrusted bytes to an RGB array: formats, limits, orientation."""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

RGB = NDArray[np.uint8]
"""One picture: uint8 ``(height, width, 3)``, sRGB values as stored."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
LARGE = 2_000_000
"""Pixels; pictures of more are decoded a few at a time."""

# Their own threads bound how many there are at once, and also what the C allocator keeps: it holds
# on to freed memory thread by thread, which for the forty threads of a server would be gigabytes.
# What these threads freed is given back at once (glibc's function, absent from other C libraries).
_give_back = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)
_large_ones = ThreadPoolExecutor(2, thread_name_prefix="large-picture")
# Within a scan 0xff stands before zero, or before one of the eight marks between its parts.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SCAN, _END, _ALONE = 0xDA, 0xD9, 0x01
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class PictureLimits:
    """What one picture may cost.

    Attributes:
        max_bytes: largest encoded picture, bytes.
        max_pixels: largest decoded picture, width times height; checked on the header, before
            any pixel is decoded.
        max_scans: most scans of a JPEG; encoders make about ten.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    max_scans: int = 50


class PictureError(ValueError):
    """The bytes cannot be used as a picture.

    Attributes:
        reason: a short fixed word for programs: ``empty``, ``too-large``, ``too-many-pixels``,
            ``not-a-picture`` or ``truncated``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_file(path: Path, limits: PictureLimits = PictureLimits()) -> bytes:
    """The bytes of a picture file, its size checked first: a huge file must not fill the memory.

    Raises:
        PictureError: larger than ``limits.max_bytes``.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if size > limits.max_bytes:
        raise PictureError(
            "too-large",
            f"{path.name} has {size:,} bytes, more than the limit of {limits.max_bytes:,};"
            " use a smaller file",
        )
    return path.read_bytes()


def decode(
    data: bytes, limits: PictureLimits = PictureLimits(), at_least: int | None = None
) -> RGB:
    """Decode one picture: `Opened` and its ``decode`` in one.

    Returns:
        uint8 ``(height, width, 3)``.

    Raises:
        PictureError: empty, over a limit, of another format, or damaged.
    """
    return Opened(data, limits).decode(at_least)


class Opened:
    """A picture whose header was read and is within the limits; no pixel is decoded yet.

    Attributes:
        pixels: width times height.
    """

    def __init__(self, data: bytes, limits: PictureLimits = PictureLimits()) -> None:
        """Read the header.

        Args:
            data: the encoded picture, one of ``FORMATS``.
            limits: bounds of its size.

        Raises:
            PictureError: empty, over a limit, of another format, or its header is damaged.
        """
        if not data:
            raise PictureError("empty", "the file is empty (0 bytes); expected a picture")
        if len(data) > limits.max_bytes:
            raise PictureError(
                "too-large",
                f"the picture has {len(data):,} bytes, more than the limit of"
                f" {limits.max_bytes:,}; send a smaller file",
            )
        with _no_warnings():
            self._image = _open(data, limits)
        self.pixels = self._image.width * self._image.height

    def decode(self, at_least: int | None = None) -> RGB:
        """Decode it; possible once.

        The first frame of an animation; EXIF orientation applied; transparency laid over white;
        16-bit greyscale scaled to 8 bits; palette and CMYK converted.

        Args:
            at_least: the shorter side, in pixels, that the caller needs. A JPEG then decodes at
                the smallest of its native 1/2, 1/4, 1/8 scales that keeps it, several times
                faster; a picture of more than ``LARGE`` pixels is averaged down by a whole factor
                that keeps eight times the side, so that what follows needs little memory.

        Returns:
            uint8 ``(height, width, 3)``.

        Raises:
            PictureError: it is damaged.
        """
        image = self._image
        with _no_warnings():
            try:
                if at_least is not None and image.format == "JPEG":
                    # draft() keeps both sides at or above the size asked for.
                    image.draft(None, (at_least, at_least))
                if image.width * image.height > LARGE:
                    return _large_ones.submit(_large_pixels, image, at_least).result()
                return _pixels(image, None)
            except Exception as error:
                # Pillow's decoders raise many kinds for damaged data (OSError, SyntaxError,
                # struct.error, ...), and all of them mean the same to the caller.
                raise PictureError(
                    "truncated",
                    f"the {image.format} picture is damaged or truncated ({_brief(error)});"
                    " send the whole file",
                ) from error
            finally:
                image.close()


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Pillow's own pixel limit only warns; ours refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(data: bytes, limits: PictureLimits) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise PictureError(
            "not-a-picture",
            f"the {len(data):,} bytes are not a picture in a known format; expected one of"
            f" {', '.join(FORMATS)}",
        ) from None
    except Image.DecompressionBombError as error:
        raise PictureError(
            "too-many-pixels",
            f"the picture has too many pixels ({_brief(error)}); the limit is"
            f" {limits.max_pixels:,}; scale it down",
        ) from error
    except Exception as error:
        # Its first bytes name one of our formats, or Pillow would have said "unidentified".
        raise PictureError(
            "truncated",
            f"the picture is damaged or truncated ({_brief(error)}); send the whole file",
        ) from error
    width, height = image.size
    if width * height > limits.max_pixels:
        image.close()
        raise PictureError(
            "too-many-pixels",
            f"the picture has {width} x {height} = {width * height:,} pixels, more than the"
            f" limit of {limits.max_pixels:,}; scale it down",
        )
    # Each scan goes over all pixels once more, and one that changes nothing has some ten bytes.
    if _has_more_scans(data, limits.max_scans):
        image.close()
        raise PictureError(
            "too-large",
            f"the JPEG has more than {limits.max_scans} scans, and each takes as long as the"
            " picture; save it anew",
        )
    return image


def _has_more_scans(data: bytes, most: int) -> bool:
    """Whether a JPEG has more than ``most`` scans; ISO/IEC 10918-1, annex B."""
    if not data.startswith(b"\xff\xd8") or data.count(b"\xff\xda") <= most:
        return False
    # Not all of these need be scans: anything may stand in a comment, or after the end.
    scans, at = 0, 2
    while scans <= most and (found := _MARKER.search(data, at)):
        code, at = found[0][1], found.end()
        if code == _END:
            break
        scans += code == _SCAN
        if code != _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")
    return scans > most


def _large_pixels(image: Image.Image, shrink_to: int | None) -> RGB:
    try:
        return _pixels(image, shrink_to)
    finally:
        image.close()  # frees the pixels before the next one gets its turn
        _give_back(0)


def _pixels(image: Image.Image, shrink_to: int | None) -> RGB:
    image.load()
    # Damaged EXIF data raises many kinds of errors; the pixels are good as stored.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)  # else it copies, turned or not
    if shrink_to is not None and image.mode in ("RGB", "RGBA", "L", "CMYK"):
        factor = min(image.size) // (8 * shrink_to)
        if factor > 1:
            image = image.reduce(factor)
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_to_rgb(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    # convert() copies even what is RGB already.
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


def _grey_to_rgb(grey: NDArray[np.generic]) -> RGB:
    """Greyscale of more than 8 bits: integers count as 16-bit, floats as 0..1 unless larger."""
    values = np.nan_to_num(grey.astype(np.float32))
    top = float(values.max(initial=0.0))
    white = 65535.0 if np.issubdtype(grey.dtype, np.integer) else 1.0
    values = np.clip(values / max(white, top), 0.0, 1.0)
    return np.repeat(np.rint(values * 255.0).astype(np.uint8)[:, :, None], 3, axis=2)


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:120]


def encode_png(rgb: RGB) -> bytes:
    """PNG bytes of an RGB array uint8 ``(height, width, 3)``; lossless."""
    buffer = io.BytesIO()
    Image.fromarray(rgb, "RGB").save(buffer, "PNG")
    return buffer.getvalue()


def encode_jpeg(rgb: RGB, quality: int = 90) -> bytes:
    """JPEG bytes of an RGB array uint8 ``(height, width, 3)``."""
    buffer = io.BytesIO()
    Image.fromarray(rgb, "RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
