"""From untrusted bytes to an RGB array: formats, limits, orientation."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from embed.decoding.facts import PictureFacts
from embed.decoding.header import read_header
from embed.decoding.limits import (
    FORMATS,
    LARGE,
    REASONS,
    DecodersBusyError,
    PictureError,
    PictureLimits,
)
from embed.decoding.pixels import RGB, decode_with_facts, not_a_picture, open_image
from embed.decoding.plain_png import decode_plain
from embed.decoding.steps import colour
from embed.decoding.workers import decoders, turn
from embed.preprocess import Preprocess

__all__ = [
    "FORMATS",
    "LARGE",
    "REASONS",
    "RGB",
    "SUFFIXES",
    "DecodersBusyError",
    "Opened",
    "PictureError",
    "PictureFacts",
    "PictureLimits",
    "decode",
    "encode_jpeg",
    "encode_png",
    "read_file",
    "turn",
]

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo", ".png", ".apng",
    ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".btf", ".heic", ".heif", ".heics", ".heifs",
    ".hif", ".avif", ".avifs", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc", ".ico", ".pbm",
    ".pgm", ".ppm", ".pnm", ".pfm",
)  # fmt: skip
"""Endings of the ``FORMATS``, in lower case."""


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
    data: bytes, limits: PictureLimits = PictureLimits(), at_least: int | Preprocess | None = None
) -> RGB:
    """Decode one picture; `Opened` and its ``decode`` in one call.

    Returns:
        uint8 ``(height, width, 3)``.

    Raises:
        PictureError: it is empty, over a limit, in another format, or damaged.
        DecodersBusyError: it waited for a worker process for longer than the limit.
    """
    return Opened(data, limits).decode(at_least)


_PLAIN_PIXELS = 2**14


class Opened:
    """A picture whose header has been read and is within the limits.

    No pixel is decoded yet, but for a tiny plain PNG's: it costs no more than opening it otherwise.

    Attributes:
        pixels: width times height; 0 if only its decoder can read its header.
        in_process: a small, ordinary PNG or JPEG, with a colour profile of primaries and curves at
            most, which is decoded in this process. All others are decoded in a worker process, with
            a memory limit and a deadline.
    """

    def __init__(self, data: bytes, limits: PictureLimits = PictureLimits()) -> None:
        """Read the header.

        Args:
            data: the encoded picture, one of ``FORMATS``.
            limits: limits on its size, and on what decoding may take.

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
        header = read_header(data)
        if header is None:
            raise not_a_picture(data)
        header.check(limits)
        self._data, self._limits, self._header = data, limits, header
        self.pixels = header.pixels
        self._plain: RGB | None = None
        if header.form == "PNG" and header.ordinary and header.pixels <= _PLAIN_PIXELS:
            self._plain = decode_plain(data)
        opened = self._plain is None and header.ordinary
        self._image = open_image(data, header.form, limits) if opened else None
        if self._image is not None and not colour.is_plain(self._image):
            self._image.close()
            self._image = None
        self.in_process = self._plain is not None or self._image is not None

    def decode(self, at_least: int | Preprocess | None = None) -> RGB:
        """Decode the pixels; possible once.

        Returns the first frame of an animation; applies the EXIF orientation; composites
        transparency over white; scales samples of more than 8 bits by what the file or its pixels
        say that they range over (`embed.decoding.steps.depth`); converts palettes, CMYK, and the
        colours of profiles to sRGB (`embed.decoding.steps.colour`).

        Args:
            at_least: the shorter side that the caller needs, in pixels. A JPEG is then decoded at
                the smallest of its native scales 1/2, 1/4 and 1/8 that provides it, which is
                several times faster; a picture of more than ``LARGE`` pixels is averaged down by
                an integer factor that keeps eight times that side, so that later steps need
                little memory. None for all of it; a JPEG of more than the limit of pixels is
                still decoded at the largest native scale that is within it. A network's
                preprocessing for what `Preprocess.fit` makes of the picture, decoded for that: an
                embedding of it differs from that of the whole picture by less than a cosine of
                0.001.

        Returns:
            uint8 ``(height, width, 3)``; ``(input_size, input_size, 3)`` for a preprocessing.

        Raises:
            PictureError: it is damaged, or takes more memory or time than the limits allow.
            DecodersBusyError: it waited for a worker process for longer than the limit.
        """
        return self._decode(at_least, facts=False)[0]

    def decode_with_facts(
        self, at_least: int | Preprocess | None = None
    ) -> tuple[RGB, PictureFacts]:
        """As `decode`, with what the file says of itself: when it was taken, with what, and so on.

        It costs more than `decode`, so searches do without.
        """
        picture, facts = self._decode(at_least, facts=True)
        if facts is None:
            raise AssertionError
        return picture, facts

    def _decode(
        self, at_least: int | Preprocess | None, facts: bool
    ) -> tuple[RGB, PictureFacts | None]:
        if self._plain is not None:
            height, width, _ = self._plain.shape
            picture = self._plain
            if isinstance(at_least, Preprocess):
                picture = at_least.fit(picture)
            return picture, PictureFacts(width, height, "PNG") if facts else None
        if self._image is not None:
            return decode_with_facts(self._image, at_least, self._limits.max_pixels, facts)
        return decoders.decode(self._data, self._header, self._limits, at_least, facts)


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
