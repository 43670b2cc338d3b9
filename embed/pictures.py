"""From untrusted bytes to an RGB array: formats, limits, orientation."""

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
"""In pixels; larger pictures are decoded only two at a time."""

# Separate threads limit how many large pictures are decoded at a time and how much memory the C
# allocator retains: it does so per thread, which for a server's forty threads would be gigabytes.
# These threads return it immediately (malloc_trim is glibc's; other C libraries lack it).
_trim_memory = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)
_large_pictures = ThreadPoolExecutor(2, thread_name_prefix="large-picture")
# Within a scan, 0xff is followed by zero or by one of the eight restart markers.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SCAN, _END, _WITHOUT_LENGTH = 0xDA, 0xD9, 0x01
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class PictureLimits:
    """Limits on one picture.

    Attributes:
        max_bytes: largest encoded picture, in bytes.
        max_pixels: largest decoded picture, width times height; checked in the header, before
            any pixel is decoded.
        max_scans: maximum number of scans in a JPEG; encoders write about ten.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    max_scans: int = 50


class PictureError(ValueError):
    """The bytes cannot be used as a picture.

    Attributes:
        reason: for programs: ``empty``, ``too-large``, ``too-many-pixels``, ``not-a-picture`` or
            ``truncated``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_file(path: Path, limits: PictureLimits = PictureLimits()) -> bytes:
    """The bytes of a picture file, after checking its size, so that it cannot exhaust memory.

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
    """Decode one picture; `Opened` and its ``decode`` in one call.

    Returns:
        uint8 ``(height, width, 3)``.

    Raises:
        PictureError: it is empty, over a limit, in another format, or damaged.
    """
    return Opened(data, limits).decode(at_least)


class Opened:
    """A picture whose header has been read and is within the limits; no pixel is decoded yet.

    Attributes:
        pixels: width times height.
    """

    def __init__(self, data: bytes, limits: PictureLimits = PictureLimits()) -> None:
        """Read the header.

        Args:
            data: the encoded picture, one of ``FORMATS``.
            limits: limits on its size.

        Raises:
            PictureError: it is empty, over a limit, in another format, or its header is damaged.
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
        """Decode the pixels; possible once.

        Returns the first frame of an animation; applies the EXIF orientation; composites
        transparency over white; scales 16-bit greyscale to 8 bits; converts palettes and CMYK.

        Args:
            at_least: the shorter side that the caller needs, in pixels. A JPEG is then decoded at
                the smallest of its native scales 1/2, 1/4 and 1/8 that provides it, which is
                several times faster; a picture of more than ``LARGE`` pixels is averaged down by
                an integer factor that keeps eight times that side, so that later steps need
                little memory.

        Returns:
            uint8 ``(height, width, 3)``.

        Raises:
            PictureError: it is damaged.
        """
        image = self._image
        with _no_warnings():
            try:
                if at_least is not None and image.format == "JPEG":
                    # draft() keeps both sides at or above this size.
                    image.draft(None, (at_least, at_least))
                if image.width * image.height > LARGE:
                    return _large_pictures.submit(_large_pixels, image, at_least).result()
                return _pixels(image, None)
            except Exception as error:
                # For damaged data, Pillow's decoders raise many kinds of errors (OSError,
                # SyntaxError, struct.error, ...); all of them mean the same to the caller.
                raise PictureError(
                    "truncated",
                    f"the {image.format} picture is damaged or truncated ({_brief(error)});"
                    " send the whole file",
                ) from error
            finally:
                image.close()


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence Pillow's own pixel limit, which only warns; ours raises an error."""
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
        # Its first bytes are those of one of our formats, or it would be "unidentified".
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
    # Each scan processes all pixels again, and one that changes nothing takes some ten bytes.
    if _has_more_scans(data, limits.max_scans):
        image.close()
        raise PictureError(
            "too-large",
            f"the JPEG has more than {limits.max_scans} scans, and each takes as long as decoding"
            " the picture; save it again with fewer",
        )
    return image


def _has_more_scans(data: bytes, most: int) -> bool:
    """Whether a JPEG has more than ``most`` scans; ISO/IEC 10918-1, annex B."""
    if not data.startswith(b"\xff\xd8") or data.count(b"\xff\xda") <= most:
        return False
    # Not all of these bytes need be scans: comments, and what follows the end, may contain any.
    scans, at = 0, 2
    while scans <= most and (found := _MARKER.search(data, at)):
        code, at = found[0][1], found.end()
        if code == _END:
            break
        scans += code == _SCAN
        if code != _WITHOUT_LENGTH:
            at += int.from_bytes(data[at : at + 2], "big")
    return scans > most


def _large_pixels(image: Image.Image, shrink_to: int | None) -> RGB:
    try:
        return _pixels(image, shrink_to)
    finally:
        image.close()  # free the pixels before the next picture
        _trim_memory(0)


def _pixels(image: Image.Image, shrink_to: int | None) -> RGB:
    image.load()
    # Damaged EXIF data raises many kinds of errors; the pixels are usable as stored.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)  # otherwise it always copies
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
    # convert() would copy even an RGB image.
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


def _grey_to_rgb(grey: NDArray[np.generic]) -> RGB:
    """RGB of greyscale with more than 8 bits: integers are 16-bit, floats 0..1 unless larger."""
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
