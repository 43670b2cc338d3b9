"""From the colours that a file's profile describes to sRGB, with Little CMS.

Most photographs say that they are sRGB, or say nothing: they are left as they are, which a few
points of the profile's curves and its primaries tell. Others are converted by relative colorimetry
with black point compensation, after they have been scaled down, in bands.

- A profile that consists of primaries and curves (Display P3, Adobe RGB, ProPhoto, grey gammas) is
  checked and written again with nothing else in it, so that Little CMS sees no other bytes of the
  file. Such pictures may be decoded in any process.
- All other profiles (tables of CMYK, for instance) are read by Little CMS in a worker process only.
- A profile that is damaged, larger than ``_MOST_BYTES``, made for another kind of picture, or that
  turns white into something dark is left out, and the picture is read as if it had none.
- Without a profile, EXIF may say Adobe RGB (ColorSpace 2, or interoperability R03), a PNG may have
  another gamma (gAMA) and other primaries (cHRM), and HEIC, AVIF and PNG may name Display P3 or
  BT.2020 by number. Those of high dynamic range (PQ, HLG) are shown as they are.

Sources: ICC.1:2022; PNG (third edition), 11.3.2; DCF 2.0, 4.7; ITU-T H.273, 8.1 and 8.2.
"""

from __future__ import annotations

import functools
import io
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Floats = NDArray[np.float64]

_MOST_BYTES = 4 * 2**20
_MOST_SIMPLE = 64 * 2**10
_MOST_CURVE = 4096
_CURVES = {b"RGB ": (b"rTRC", b"gTRC", b"bTRC"), b"GRAY": (b"kTRC",)}
_PRIMARIES = (b"rXYZ", b"gXYZ", b"bXYZ")
_PARAMETERS = (1, 3, 4, 5, 7)
"""Of each type of parametric curve."""
_MODES = {b"RGB ": ("RGB", "RGBA"), b"CMYK": ("CMYK",), b"Lab ": ("LAB",), b"GRAY": ("L", "LA")}

_D50 = (0.9642, 1.0, 0.8249)
_SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
_ADOBE_GAMMA = 563 / 256
_D65 = (0.3127, 0.3290)
_NUMBERED = {
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""Primaries by their number in H.273: of BT.2020, and Display P3."""
_USUAL_TRANSFERS = (1, 2, 6, 13, 14, 15)
_SEEN = 64 * 2**10
"""How much of a file is searched for the numbers of its colours."""
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_SAME_PRIMARIES = 0.003
_SAME_VALUE = 1.5 / 255
_SAME_GAMMA = 0.02
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION

# Entries of EXIF directories, in either byte order: ColorSpace is 2, InteropIndex is "R03".
_ADOBE_ENTRIES = (
    b"\x01\xa0\x03\0\x01\0\0\0\x02\0", b"\xa0\x01\0\x03\0\0\0\x01\0\x02",
    b"\x01\0\x02\0\x04\0\0\0R03\0", b"\0\x01\0\x02\0\0\0\x04R03\0",
)  # fmt: skip


def profile_of(image: Image.Image, data: bytes) -> bytes | None:
    """The profile to convert a picture with; None if it is taken for sRGB.

    Args:
        image: its pixels may be decoded already.
        data: the file.
    """
    profile = image.info.get("icc_profile")
    if image.format == "PNG" or (image.format in ("HEIF", "AVIF") and not profile):
        numbered = _numbered(data, str(image.format))
        if numbered is not None:
            return numbered
    if isinstance(profile, bytes) and profile:
        simple = _simple(profile) if len(profile) <= _MOST_SIMPLE else None
        if simple is not None:
            return None if simple.is_srgb else simple.data
        return profile if len(profile) <= _MOST_BYTES else None
    if image.format == "PNG" and ("srgb" in image.info or "gamma" in image.info):
        return None if "srgb" in image.info else _png_profile(image)
    exif = image.info.get("exif")
    if isinstance(exif, bytes) and any(entry in exif for entry in _ADOBE_ENTRIES):
        return _matrix_profile(_ADOBE, _D65, _gamma(_ADOBE_GAMMA))
    return None


def is_plain(image: Image.Image) -> bool:
    """Whether its profile, if it has one, need not be read in a worker process."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return True
    return len(profile) <= _MOST_SIMPLE and _simple(profile) is not None


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in sRGB, mode "RGB", or still "RGBA", "L" or "LA"; as it is where that fails.

    Args:
        image: of mode "LAB", or one that ``profile`` is made for; others are returned as they are.
        profile: from `profile_of`.
    """
    if image.mode == "LAB":
        return ImageCms.applyTransform(image, _lab()) or image
    if profile is None or image.mode not in _MODES.get(profile[16:20], ()):
        return image
    if image.mode in ("L", "LA"):
        curve = _grey_curve(profile)
        if curve is None:
            return image
        return image.point(curve if image.mode == "L" else [*curve, *range(256)])
    transform = _transform(profile, image.mode)
    return image if transform is None else ImageCms.applyTransform(image, transform) or image


@functools.lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None if the profile is damaged, or cannot be what it says."""
    transform = _built(profile, mode, "RGBA" if mode == "RGBA" else "RGB")
    if transform is None:
        return None
    white, black = ((0, 0, 0, 0), (255,) * 4) if mode == "CMYK" else ((255,) * 4, (0, 0, 0, 255))
    shown = []
    for colour in (white, black):
        pixel = Image.new(mode, (1, 1), colour[: len(mode)])
        found = ImageCms.applyTransform(pixel, transform)
        shown.append(np.asarray(found)[0, 0, :3])
    return transform if shown[0].min() >= 128 > shown[1].max() else None


@functools.lru_cache(maxsize=8)
def _grey_curve(profile: bytes) -> list[int] | None:
    """The sRGB value of each grey value; None as of `_transform`."""
    simple = len(profile) <= _MOST_SIMPLE and _simple(profile) is not None
    if simple and profile[20:24] == b"XYZ ":
        # Little CMS is coarse in the shadows of grey, but not in those of colours.
        same = dict.fromkeys(_CURVES[b"RGB "], _tags(profile)[b"kTRC"])
        profile = _written(b"RGB ", b"XYZ ", _primaries(_SRGB, _D65) | same, profile[8])
    mode = "RGB" if profile[16:20] == b"RGB " else "L"
    transform = _built(profile, mode, "RGB")
    if transform is None:
        return None
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None]).convert(mode)
    curve = np.asarray(ImageCms.applyTransform(ramp, transform))[0, :, 1].tolist()
    return curve if curve[0] < 128 <= curve[-1] else None


def _built(profile: bytes, mode: str, to: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, _srgb(), mode, to, _INTENT, _FLAGS)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@functools.cache
def _lab() -> ImageCms.ImageCmsTransform:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    return ImageCms.buildTransform(lab, _srgb(), "LAB", "RGB", _INTENT)


@dataclass(frozen=True)
class _Simple:
    """A profile of primaries and curves only, written again."""

    data: bytes
    is_srgb: bool


@functools.lru_cache(maxsize=32)
def _simple(profile: bytes) -> _Simple | None:
    """What a profile says, if it consists of primaries and curves; None otherwise."""
    try:
        return _read_simple(profile)
    except (struct.error, ValueError, IndexError):
        return None


def _read_simple(profile: bytes) -> _Simple | None:
    space, connection = profile[16:20], profile[20:24]
    known = space in _CURVES and connection in (b"XYZ ", b"Lab ")
    if not known or profile[36:40] != b"acsp" or profile[8] not in (2, 4):
        return None
    tags = _tags(profile)
    if any(name.startswith((b"A2B", b"D2B")) for name in tags):
        return None
    curves = [_curve(tags.get(name, b"")) for name in _CURVES[space]]
    kept = {name: tags[name][: _curve_size(tags[name])] for name in _CURVES[space]}
    is_srgb = all(np.abs(_encoded(curve) - _STEPS).max() <= _SAME_VALUE for curve in curves)
    if space == b"RGB ":
        primaries = [_xyz(tags.get(name, b"")) for name in _PRIMARIES]
        kept |= {name: tags[name][:20] for name in _PRIMARIES}
        difference = np.abs(np.array(primaries).T - _to_d50(_SRGB, _D65))
        is_srgb = is_srgb and difference.max() <= _SAME_PRIMARIES
    return _Simple(_written(space, connection, kept, profile[8]), bool(is_srgb))


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    if count > 100:
        raise ValueError(count)
    found = {}
    for at in range(132, 132 + 12 * count, 12):
        name, start, size = struct.unpack_from(">4sII", profile, at)
        found[name] = profile[start : start + size]
    return found


def _xyz(tag: bytes) -> list[float]:
    kind, *values = struct.unpack_from(">4s4x3i", tag)
    if kind != b"XYZ ":
        raise ValueError(kind)
    return [value / 65536 for value in values]


_STEPS = np.linspace(0, 1, 33)


def _curve(tag: bytes) -> Floats:
    """The linear values of ``_STEPS``; ICC.1:2022, 10.6 and 10.18."""
    kind, count = struct.unpack_from(">4s4xI", tag)
    if kind == b"curv" and count <= _MOST_CURVE:
        values = np.array(struct.unpack_from(f">{count}H", tag, 12), np.float64)
        if not count:
            return _STEPS
        if count == 1:
            return np.asarray(np.power(_STEPS, values[0] / 256), np.float64)
        return np.interp(_STEPS, np.linspace(0, 1, count), values / 65535)
    (number,) = struct.unpack_from(">H", tag, 8)
    if kind != b"para" or number >= len(_PARAMETERS):
        raise ValueError(kind)
    read = struct.unpack_from(f">{_PARAMETERS[number]}i", tag, 12)
    values = np.array(read, np.float64) / 65536
    g, a, b, c, d, e, f = np.pad(values, (0, 7 - len(values)))
    if number == 0:
        a, b, c, d, e, f = 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    elif number < 3:
        offset = c if number == 2 else 0.0
        c, d, e, f = 0.0, (-b / a if a else 1.0), offset, offset
    with np.errstate(all="ignore"):
        power = np.nan_to_num(np.maximum(a * _STEPS + b, 0) ** g + e)
    curve: Floats = np.where(d <= _STEPS, power, c * _STEPS + f)
    return curve


def _curve_size(tag: bytes) -> int:
    """Bytes of a curve that `_curve` has read."""
    if tag.startswith(b"curv"):
        return 12 + 2 * int.from_bytes(tag[8:12], "big")
    return 12 + 4 * _PARAMETERS[int.from_bytes(tag[8:10], "big")]


def _encoded(linear: Floats) -> Floats:
    """sRGB values of linear ones; IEC 61966-2-1."""
    linear = np.clip(linear, 0, 1)
    encoded: Floats = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    return encoded


def _to_d50(primaries: tuple[tuple[float, float], ...], white: tuple[float, float]) -> Floats:
    """XYZ of the primaries, in columns, adapted to the white of profiles."""
    xyz = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    target = np.array([white[0] / white[1], 1.0, (1 - sum(white)) / white[1]])
    scaled = xyz * np.linalg.solve(xyz, target)
    ratio = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ target)
    adapted: Floats = np.linalg.inv(_BRADFORD) @ np.diag(ratio) @ _BRADFORD @ scaled
    return adapted


@functools.lru_cache(maxsize=8)
def _matrix_profile(
    primaries: tuple[tuple[float, float], ...], white: tuple[float, float], curve: bytes
) -> bytes:
    """A profile of primaries and white, given by their chromaticities, and a curve."""
    curves = dict.fromkeys(_CURVES[b"RGB "], curve)
    return _written(b"RGB ", b"XYZ ", _primaries(primaries, white) | curves, version=4)


def _primaries(
    primaries: tuple[tuple[float, float], ...], white: tuple[float, float]
) -> dict[bytes, bytes]:
    columns = _to_d50(primaries, white).T
    return {
        name: struct.pack(">4s4x3i", b"XYZ ", *(round(65536 * value) for value in values))
        for name, values in zip(_PRIMARIES, columns, strict=True)
    }


def _gamma(gamma: float) -> bytes:
    return struct.pack(">4s4xIH", b"curv", 1, round(256 * gamma))


def _srgb_curve() -> bytes:
    values = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return struct.pack(">4s4xHxx5i", b"para", 3, *(round(65536 * value) for value in values))


def _written(space: bytes, connection: bytes, tags: dict[bytes, bytes], version: int = 2) -> bytes:
    """A profile of these tags and nothing else; ICC.1:2022, 7."""
    white = struct.pack(">4s4x3i", b"XYZ ", *(round(65536 * value) for value in _D50))
    tags = {**tags, b"wtpt": white}
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, tag in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    head = struct.pack(
        ">I4xB3x4s4s4s12x4s28x12s48x",
        start + len(body), version, b"mntr", space, connection, b"acsp", white[8:],
    )  # fmt: skip
    return head + table + body


def _numbered(data: bytes, form: str) -> bytes | None:
    """A profile by the numbers in a cICP chunk or a colr box; None without, and for sRGB."""
    head = data[:_SEEN]
    if form == "PNG":
        at = head.find(b"cICP", 0, max(0, head.find(b"IDAT")))
        numbers = tuple(head[at + 4 : at + 6]) if at >= 0 else ()
    else:
        at = head.find(b"colrnclx")
        numbers = struct.unpack_from(">HH", head, at + 8) if 0 <= at <= len(head) - 12 else ()
    if len(numbers) != 2 or numbers[0] not in _NUMBERED or numbers[1] not in _USUAL_TRANSFERS:
        return None
    return _matrix_profile(_NUMBERED[numbers[0]], _D65, _srgb_curve())


def _png_profile(image: Image.Image) -> bytes | None:
    """That of a PNG which states how its values were encoded; None if that is about sRGB."""
    gamma = float(image.info["gamma"])
    x = image.info.get("chromaticity") or (*_D65, *(value for pair in _SRGB for value in pair))
    if not 0.2 <= gamma <= 1.1 or len(x) != 8 or not all(0 < value < 1 for value in x):
        return None
    white, primaries = (x[0], x[1]), ((x[2], x[3]), (x[4], x[5]), (x[6], x[7]))
    grey = image.mode in _MODES[b"GRAY"] or image.mode.startswith("I")
    same = grey or np.abs(np.subtract(primaries, _SRGB)).max() <= _SAME_PRIMARIES
    if same and abs(gamma - 1 / 2.2) <= _SAME_GAMMA:
        return None
    if grey:
        return _written(b"GRAY", b"XYZ ", {b"kTRC": _gamma(1 / gamma)})
    try:
        return _matrix_profile(primaries, white, _gamma(1 / gamma))
    except np.linalg.LinAlgError:
        return None
