"""Limits on one picture, and the errors of a picture that cannot be decoded."""

from __future__ import annotations

from dataclasses import dataclass

FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF", "JPEG2000", "ICO", "PPM", "DIB",
)  # fmt: skip
"""As Pillow calls them."""
EXPECTED = "JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF, JPEG 2000, ICO, PNM"
"""The formats as people call them."""
SCALED = 5
"""A JPEG may have so many times the pixels of others: a telephone's 200 million, for instance."""
LARGE = 2_000_000
"""In pixels; larger pictures are decoded only two at a time, and never in this process."""


@dataclass(frozen=True)
class PictureLimits:
    """Limits on one picture.

    Attributes:
        max_bytes: largest encoded picture, in bytes.
        max_pixels: largest decoded picture, width times height; checked in the header, before
            any pixel is decoded. A JPEG may have ``SCALED`` times as many, and is then decoded at a
            half, a quarter or an eighth of its size, so that no more than these come out.
        max_scans: maximum number of scans in a JPEG; encoders write about ten. Those of a JPEG of
            more than ``max_pixels`` may have fewer, in proportion.
        max_memory: how much memory decoding may take, in bytes: estimated from the header, and
            imposed on the worker process that decodes.
        max_seconds: how long decoding in a worker process may take.
        max_wait_seconds: how long to wait for a worker process that is free.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 55_000_000
    max_scans: int = 50
    max_memory: int = 2**30
    max_seconds: float = 30.0
    max_wait_seconds: float = 60.0

    def most_pixels(self, form: str) -> int:
        """How many pixels a file of a format may have."""
        return self.max_pixels * (SCALED if form == "JPEG" else 1)


class PictureError(ValueError):
    """The bytes cannot be used as a picture.

    Attributes:
        reason: for programs, one of ``REASONS``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


REASONS = (
    "empty",
    "too-large",
    "too-many-pixels",
    "too-costly",
    "not-a-picture",
    "truncated",
    "undecodable",
)
"""Of a `PictureError`. ``too-costly``: decoding takes more memory or time than is allowed;
``undecodable``: the decoder crashed on it."""


def too_many_pixels(width: int, height: int, form: str, limits: PictureLimits) -> PictureError:
    """The error for a picture over the limit of pixels."""
    most = limits.most_pixels(form)
    which = " of a JPEG" if most > limits.max_pixels else ""
    return PictureError(
        "too-many-pixels",
        f"the picture has {width} x {height} = {width * height:,} pixels, more than the"
        f" limit{which} of {most:,}; scale it down",
    )


class DecodersBusyError(RuntimeError):
    """All worker processes that decode have been busy for too long; nothing is wrong with the
    picture."""


def brief(error: Exception) -> str:
    """An error's text on one line, of at most 120 characters."""
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:120]
