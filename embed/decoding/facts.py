"""What a picture file says of itself: its size, and when and with what it was taken."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from PIL import ExifTags, Image

_BASE, _GPS = ExifTags.Base, ExifTags.GPS
_OFFSET = re.compile(r"([+-])(0[0-9]|1[0-4]):?([0-5][0-9])|[zZ]")
# As in XML, where a few programs take it from: 2021-02-03T10:11:12.345+02:00
_REST = re.compile(r"(?:\.([0-9]+))?\s*([+-][0-9]{2}:?[0-9]{2}|[zZ])?")
_DATES = (
    (_BASE.DateTimeOriginal, _BASE.OffsetTimeOriginal, _BASE.SubsecTimeOriginal),
    (_BASE.DateTimeDigitized, _BASE.OffsetTimeDigitized, _BASE.SubsecTimeDigitized),
    (_BASE.DateTime, _BASE.OffsetTime, _BASE.SubsecTime),
)
_MOST_CHARS = 100


@dataclass(frozen=True)
class PictureFacts:
    """What a picture file says of itself; None for what it does not say.

    Attributes:
        width: in pixels, as shown.
        height: in pixels, as shown.
        form: its format, one of ``FORMATS``.
        taken: when the photograph was taken, RFC 3339; without an offset where the camera does not
            know its time zone.
        camera: maker and model.
        orientation: EXIF orientation as stored, 1 to 8; the picture is shown upright.
        gps: whether it says where it was taken.
        place: latitude and longitude of that, in degrees north and east (WGS 84).
    """

    width: int
    height: int
    form: str
    taken: str | None = None
    camera: str | None = None
    orientation: int | None = None
    gps: bool = False
    place: tuple[float, float] | None = None

    def payload(self, name: str | None, size: int, place: bool = False) -> dict[str, Any]:
        """The facts as payload: ``file``, and ``exif`` where there is any.

        Args:
            name: the file's name, or None.
            size: of the file, in bytes.
            place: whether to say where it was taken.
        """
        file = {"name": name, "bytes": size, "format": self.form}
        file |= {"width": self.width, "height": self.height}
        exif: dict[str, Any] = {
            "taken": self.taken,
            "camera": self.camera,
            "orientation": self.orientation,
        }
        exif = {name: value for name, value in exif.items() if value is not None}
        if exif or self.gps:
            exif["gps"] = self.gps
        if place and self.place is not None:
            exif["place"] = {"lat": self.place[0], "lon": self.place[1]}
        return {"file": {n: v for n, v in file.items() if v is not None}} | (
            {"exif": exif} if exif else {}
        )


def read_facts(image: Image.Image) -> PictureFacts:
    """The facts of an opened picture; damaged EXIF data counts as none.

    Source: CIPA DC-008-2023 (Exif 3.0), 4.6.
    """
    tags: dict[int, Any] = {}
    gps: dict[int, Any] = {}
    with contextlib.suppress(Exception):  # Pillow raises many kinds of errors for damaged data
        exif = image.getexif()
        tags = dict(exif)
        tags |= exif.get_ifd(ExifTags.IFD.Exif)
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    # pillow-heif has turned the picture, and says in the EXIF data that it is upright.
    orientation = image.info.get("original_orientation") or tags.get(_BASE.Orientation)
    if not isinstance(orientation, int) or not 1 <= orientation <= 8:
        orientation = None
    width, height = image.size
    if orientation is not None and orientation >= 5 and image.format not in ("TIFF", "HEIF"):
        # Of those, the size is already as shown.
        width, height = height, width
    place = _place(gps)
    return PictureFacts(
        width,
        height,
        "JPEG" if image.format == "MPO" else image.format or "",
        _taken(tags),
        _camera(tags),
        orientation,
        place is not None,
        place,
    )


def _text(value: object) -> str:
    """Printable text of a tag, on one line; empty for anything else."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    if not value.isascii():
        # Pillow takes text for Latin-1, and many phones write UTF-8.
        with contextlib.suppress(UnicodeError):
            value = value.encode("latin-1").decode()
    value = "".join(c if c.isprintable() else " " for c in value.partition("\0")[0])
    return " ".join(value.split())[:_MOST_CHARS]


def _taken(tags: dict[int, Any]) -> str | None:
    for date, offset, fraction in _DATES:
        # A few programs write other separators than the colon.
        written = _text(tags.get(date))
        digits = list(re.finditer(r"[0-9]+", written))[:6]
        try:
            taken = datetime(*(int(one[0]) for one in digits))  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            continue
        if len(digits) < 6 or taken.year < 1800:
            continue
        text = taken.isoformat()
        rest = _REST.fullmatch(written[digits[-1].end() :])
        part = _text(tags.get(fraction)) or (rest and rest[1]) or ""
        if part.isascii() and part.isdecimal() and int(part):
            text += f".{part[:6]}"
        for zone in (_text(tags.get(offset)), (rest and rest[2]) or ""):
            if found := _OFFSET.fullmatch(zone):
                return text + (f"{found[1]}{found[2]}:{found[3]}" if found[1] else "Z")
        return text
    return None


def _camera(tags: dict[int, Any]) -> str | None:
    make, model = _text(tags.get(_BASE.Make)), _text(tags.get(_BASE.Model))
    if make and model.lower().startswith(make.split()[0].lower()):
        make = ""
    return f"{make} {model}".strip()[:_MOST_CHARS] or None


def _place(gps: dict[int, Any]) -> tuple[float, float] | None:
    with contextlib.suppress(Exception):  # fractions by zero, values of any kind
        north = _degrees(gps[_GPS.GPSLatitude], gps.get(_GPS.GPSLatitudeRef), "S")
        east = _degrees(gps[_GPS.GPSLongitude], gps.get(_GPS.GPSLongitudeRef), "W")
        if abs(north) <= 90 and abs(east) <= 180:
            return round(north, 6), round(east, 6)
    return None


def _degrees(parts: Sequence[Any], direction: object, negative: str) -> float:
    degrees, minutes, seconds = (*map(float, parts), 0.0, 0.0)[:3]
    value = degrees + minutes / 60 + seconds / 3600
    return -value if _text(direction).upper().startswith(negative) else value
