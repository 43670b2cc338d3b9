"""From encoded bytes to an RGB array, with Pillow, in the process that calls it.

Converted and composited in bands of rows, so that next to the decoded picture only the result
takes memory.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from itertools import islice
from typing import Protocol

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from embed.decoding.facts import PictureFacts, read_facts
from embed.decoding.headers import jpeg2000
from embed.decoding.limits import (
    EXPECTED,
    LARGE,
    PictureError,
    PictureLimits,
    brief,
    too_many_pixels,
)
from embed.decoding.signatures import recognise
from embed.decoding.steps import colour, depth, ends
from embed.preprocess import RGB as RGB
from embed.preprocess import Box

# Of what is odd in a picture, and of its own limit on pixels; ours raises an error. Once for the
# process: to change it for a block of one thread would change it for all.
warnings.filterwarnings("ignore", module=r"PIL\.")

_CONTAINERS = ("HEIF", "AVIF", "JPEG2000", "TIFF")
"""Whatever is wrong within them, Pillow says that it does not know the format."""
_PACKAGES = {
    "HEIF": "pillow-heif",
    "AVIF": "Pillow with AVIF",
    "JPEG2000": "Pillow with OpenJPEG",
}
_FEATURES = {"AVIF": "avif", "JPEG2000": "jpg_2000"}
"""What Pillow calls that."""


class Fit(Protocol):
    """What a network needs of a picture; `embed.preprocess.Preprocess` implements it."""

    @property
    def shorter_side(self) -> int:
        """The shorter side that it is scaled to, pixels."""

    @property
    def decoded_side(self) -> int:
        """The shorter side that a JPEG should be decoded at, or more, pixels."""

    def fit(self, picture: RGB | Image.Image, box: Box | None = None) -> RGB:
        """The network's input of a picture, of which ``box`` is the part that shows something."""


def decode_image(
    image: Image.Image, at_least: int | Fit | None, max_pixels: int = PictureLimits.max_pixels
) -> RGB:
    """Decode the pixels and close ``image``; see `embed.pictures.Opened.decode`.

    Raises:
        PictureError: it is damaged, or there is not enough memory.
    """
    return decode_with_facts(image, at_least, max_pixels, False)[0]


def decode_with_facts(
    image: Image.Image, at_least: int | Fit | None, max_pixels: int, wanted: bool = True
) -> tuple[RGB, PictureFacts | None]:
    """As `decode_image`, with what the file says of itself if that is ``wanted``."""
    form = _form(image)
    data = depth.file_of(image)
    try:
        try:
            return _decoded(image, data, at_least, max_pixels, wanted)
        except Exception as error:
            completed = None if _is_memory(error) else ends.completed(data, form)
            if completed is None:
                raise
        with Image.open(io.BytesIO(completed), formats=(form,)) as whole:
            return _decoded(whole, completed, at_least, max_pixels, wanted)
    except Exception as error:
        if _is_memory(error):
            raise PictureError("too-costly", _no_memory(form)) from error
        # For damaged data, Pillow's decoders raise many kinds of errors (OSError,
        # SyntaxError, struct.error, ...); all of them mean the same to the caller.
        raise PictureError(
            "truncated",
            f"the {form} picture is damaged or truncated ({brief(error)}); send the whole file",
        ) from error
    finally:
        image.close()


def _decoded(
    image: Image.Image, data: bytes, at_least: int | Fit | None, max_pixels: int, wanted: bool
) -> tuple[RGB, PictureFacts | None]:
    if at_least is None or isinstance(at_least, int):
        fit, side = None, at_least
    else:
        fit, side = at_least, at_least.shorter_side
    # Before: a JPEG is still of its full size, a TIFF loses its EXIF data with loading.
    facts = read_facts(image) if wanted and image.format != "PNG" else None
    box = None
    if _form(image) == "JPEG":
        box = _scale(image, side if fit is None else fit.decoded_side, max_pixels)
    large = image.width * image.height > LARGE
    samples = depth.samples(image)
    loaded = depth.load(image)
    if _form(image) == "JPEG" and ends.is_filled_in(loaded, data):
        raise ValueError("its pixels end before its end marker")
    if wanted and facts is None:  # those of a PNG may follow the pixels
        facts = read_facts(image)
    profile = colour.profile_of(image, data)
    box = box and _turned(box, loaded)
    shown = _shown(loaded, samples, profile, side if large else None)
    if fit is not None:
        return fit.fit(shown, box), facts
    return shown if isinstance(shown, np.ndarray) else np.array(shown, dtype=np.uint8), facts


def _scale(image: Image.Image, at_least: int | None, max_pixels: int) -> Box | None:
    """Let a JPEG be decoded at the scale that suffices, and that is within the limit.

    Returns the part that shows the picture if its sides are no multiples of the scale: then the
    last pixels show less than the others, and half of one is seen in embeddings.
    """
    width, height = image.size
    wanted = 1 if at_least is None else min(image.size) // at_least
    for scale in (1, 2, 4, 8):
        if scale == 8 or (2 * scale > wanted and width * height <= max_pixels * scale**2):
            break
    if scale == 1:
        return None
    # It keeps both sides at or above this size.
    drafted = image.draft(None, (max(1, width // scale), max(1, height // scale)))
    return None if drafted is None or drafted[1][2:] == image.size else drafted[1]


def _turned(box: Box, image: Image.Image) -> Box:
    """The box in the picture as `ImageOps.exif_transpose` will turn it."""
    with contextlib.suppress(Exception):  # as where it is turned
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        left, top, right, bottom = box
        if orientation in (2, 3, 7, 8):
            left, right = image.width - right, image.width - left
        if orientation in (3, 4, 6, 7):
            top, bottom = image.height - bottom, image.height - top
        if orientation in (5, 6, 7, 8):
            return top, left, bottom, right
        return left, top, right, bottom
    return box


def _form(image: Image.Image) -> str:
    """Of ``FORMATS``; Pillow has another name for a JPEG that other pictures follow."""
    return "JPEG" if image.format in ("JPEG", "MPO") else str(image.format)


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "memory" in str(error)


def _no_memory(form: str) -> str:
    return (
        f"decoding the {form} takes more memory than is allowed; scale it down, or"
        " save it as an ordinary PNG or JPEG"
    )


def _check_installed(form: str) -> None:
    package = _PACKAGES.get(form)
    if package is None:
        return
    there = "HEIF" in Image.OPEN if form == "HEIF" else features.check(_FEATURES[form])
    if not there:
        raise PictureError(
            "undecodable",
            f"the {form} cannot be decoded, because {package} is not installed or does not load"
            " here; install it, or save the picture as PNG or JPEG",
        )


def open_image(data: bytes, form: str, limits: PictureLimits) -> Image.Image:
    """Read the header as that of ``form``, one of ``FORMATS``; no pixel is decoded yet.

    Raises:
        PictureError: it is over a limit, in another format, or its header is damaged.
    """
    _check_installed(form)
    try:
        image = _read(data, form)
    except UnidentifiedImageError:
        if form in _CONTAINERS:
            raise PictureError(
                "truncated",
                f"the {form} picture is damaged or truncated, or uses something that its decoder"
                " does not know; send the whole file, or save it as PNG or JPEG",
            ) from None
        raise not_a_picture(data) from None
    except Image.DecompressionBombError as error:
        raise PictureError(
            "too-many-pixels",
            f"the picture has too many pixels ({brief(error)}); the limit is"
            f" {limits.most_pixels(form):,}; scale it down",
        ) from error
    except MemoryError as error:
        raise PictureError("too-costly", _no_memory(form)) from error
    except Exception as error:
        # Its first bytes are those of one of our formats, or it would be "unidentified".
        raise PictureError(
            "truncated",
            f"the picture is damaged or truncated ({brief(error)}); send the whole file",
        ) from error
    width, height = image.size
    if width * height > limits.most_pixels(form):
        image.close()
        raise too_many_pixels(width, height, form, limits)
    if form == "JPEG2000" and (profile := jpeg2000.profile(data)) is not None:
        image.info["icc_profile"] = profile
    # Each scan processes all pixels again, and one that changes nothing takes some ten bytes.
    most = min(limits.max_scans, limits.max_scans * limits.max_pixels // (width * height))
    if form == "JPEG" and _has_more_scans(data, most):
        image.close()
        raise PictureError(
            "too-large",
            f"the JPEG has more than {most} scans, and each takes as long as decoding"
            " the picture; save it again with fewer",
        )
    return image


def _read(data: bytes, form: str) -> Image.Image:
    try:
        return depth.open_file(data, form)
    except Exception:
        kept = ends.without_damaged_chunks(data) if form == "PNG" else None
        if kept is None:
            raise
    return Image.open(io.BytesIO(kept), formats=(form,))


def not_a_picture(data: bytes) -> PictureError:
    """The error for bytes in none of the formats: what they are, where they say so."""
    found = recognise(data)
    if found is not None:
        return PictureError(
            "not-a-picture",
            f"the file ({len(data):,} bytes) is {found.what}, which is not read; {found.advice}",
        )
    return PictureError(
        "not-a-picture",
        f"the {len(data):,} bytes are not a picture in a known format; expected one of {EXPECTED}",
    )


def _has_more_scans(data: bytes, most: int) -> bool:
    """Whether a JPEG has more than ``most`` scans."""
    if ends.is_one_scan(data) or data.count(b"\xff\xda") <= most:
        return False
    # Not all of these bytes need be scans: comments, and what follows the end, may contain any.
    try:
        return sum(1 for _ in islice(ends.scans(data), most + 1)) > most
    except ValueError:
        return True


def _shown(
    image: Image.Image,
    samples: depth.Samples | None,
    profile: bytes | None,
    shrink_to: int | None,
) -> RGB | Image.Image:
    """The picture as it is shown: mode "RGB", or an array of a large one."""
    # Damaged EXIF data raises many kinds of errors; the pixels are usable as stored.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)  # otherwise it always copies
    if samples is not None:
        image = depth.to_8_bits(image, samples)
    if shrink_to is not None and image.mode in ("RGB", "RGBA", "L", "CMYK"):
        factor = min(image.size) // (8 * shrink_to)
        if factor > 1:
            image = image.reduce(factor)
    if image.width * image.height <= depth.BAND:
        return _band_to_rgb(image, profile)
    picture = np.empty((image.height, image.width, 3), np.uint8)
    for rows, band in depth.bands(image):
        picture[rows] = np.asarray(_band_to_rgb(band, profile))
    return picture


def _band_to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.has_transparency_data:
        # With a profile for grey, it must stay grey until it has been converted.
        grey = profile is not None and image.mode in ("L", "LA", "La")
        image = image.convert("LA" if grey else "RGBA")
    elif profile is not None and image.mode in ("P", "YCbCr", "RGBX"):
        image = image.convert("RGB")
    image = colour.to_srgb(image, profile)
    if image.mode in ("LA", "RGBA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    # convert() would copy even an RGB image.
    return image if image.mode == "RGB" else image.convert("RGB")
