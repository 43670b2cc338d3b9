from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from embed.decoding.facts import PictureFacts
from embed.pictures import Opened
from tests.embed.helpers import encoded

PLACE = {1: "N", 2: (48.0, 8.0, 15.0), 3: "E", 4: (11.0, 34.0, 30.0)}


def photograph(
    form: str = "JPEG",
    base: dict[int, Any] | None = None,
    exif: dict[int, Any] | None = None,
    gps: dict[int, Any] | None = None,
    size: tuple[int, int] = (40, 30),
) -> bytes:
    tags = Image.Exif()
    tags.update(base or {})
    tags.get_ifd(ExifTags.IFD.Exif).update(exif or {})
    if gps:
        tags.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    if form == "TIFF":  # of an Exif object, Pillow would write the first directory only
        tags[ExifTags.IFD.Exif], tags[ExifTags.IFD.GPSInfo] = exif or {}, gps or {}
    # Of an Exif object, pillow-heif would not read the orientation.
    return encoded(
        Image.new("RGB", size, "teal"), form, exif=tags if form == "TIFF" else tags.tobytes()
    )


def facts(data: bytes) -> PictureFacts:
    return Opened(data).decode_with_facts(16)[1]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_a_photograph(form: str) -> None:
    data = photograph(
        form,
        {271: "Canon", 272: "Canon EOS R5", 274: 6},
        {36867: "2024:05:01 10:20:30", 36881: "+02:00", 37521: "25"},
        PLACE,
    )
    assert facts(data) == PictureFacts(
        30, 40, form, "2024-05-01T10:20:30.25+02:00", "Canon EOS R5", 6, True, (48.1375, 11.575)
    )


def test_the_size_is_that_of_the_file_not_of_what_was_decoded() -> None:
    found = facts(photograph(size=(1600, 1200)))
    assert (found.width, found.height) == (1600, 1200)
    picture, _ = Opened(photograph(size=(1600, 1200))).decode_with_facts(16)
    assert picture.shape == (150, 200, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_picture_without_exif(form: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (7, 5)).save(buffer, form)
    assert facts(buffer.getvalue()) == PictureFacts(7, 5, form)


@pytest.mark.parametrize(
    ("tags", "taken"),
    [
        ({36867: "2024:05:01 10:20:30"}, "2024-05-01T10:20:30"),
        ({36867: "2024-05-01T10:20:30"}, "2024-05-01T10:20:30"),
        ({36868: "2023:01:02 03:04:05", 36882: "-09:30"}, "2023-01-02T03:04:05-09:30"),
        ({36867: "0000:00:00 00:00:00", 36868: "2023:01:02 03:04:05"}, "2023-01-02T03:04:05"),
        ({36867: "2024:05:01 10:20:30", 36881: "summer"}, "2024-05-01T10:20:30"),
        ({36867: "2024:05:01 10:20:30", 36881: "Z"}, "2024-05-01T10:20:30Z"),
        ({36867: "2024:05:01 10:20:30", 36881: "+0530"}, "2024-05-01T10:20:30+05:30"),
        ({36867: "2024:05:01 10:20:30+02:00"}, "2024-05-01T10:20:30+02:00"),
        ({36867: "2024-05-01T10:20:30.25Z"}, "2024-05-01T10:20:30.25Z"),
        ({36867: "2024:05:01 10:20:30 PM"}, "2024-05-01T10:20:30"),
        ({36867: "2024:13:41 10:20:30"}, None),
        ({36867: "    :  :     :  :  "}, None),
        ({36867: "2024:05:01"}, None),
        ({36867: "2024:05:01 10:20:60"}, None),
        ({}, None),
    ],
)
def test_when_it_was_taken(tags: dict[int, Any], taken: str | None) -> None:
    assert facts(photograph(exif=tags)).taken == taken


def test_the_date_of_the_file_where_the_camera_wrote_no_other() -> None:
    assert facts(photograph(base={306: "2001:02:03 04:05:06"})).taken == "2001-02-03T04:05:06"


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("NIKON CORPORATION", "NIKON D850", "NIKON D850"),
        ("Apple", "iPhone 15", "Apple iPhone 15"),
        ("Google ", "Pixel 8\0\0", "Google Pixel 8"),
        ("", "X100\x1b[31m", "X100 [31m"),
        ("Leica", None, "Leica"),
        ("小米".encode().decode("latin-1"), None, "小米"),
        ("Caf\xe9", None, "Café"),
        ("x" * 500, None, "x" * 100),
        (None, None, None),
    ],
)
def test_the_camera(make: str | None, model: str | None, camera: str | None) -> None:
    # Pillow writes text as ASCII only.
    tags = {
        t: text.encode("latin-1") for t, text in ((271, make), (272, model)) if text is not None
    }
    assert facts(photograph(base=tags)).camera == camera


@pytest.mark.parametrize(
    ("gps", "place"),
    [
        ({1: "S", 2: (33.0, 51.0, 0.0), 3: "W", 4: (70.0, 30.0, 0.0)}, (-33.85, -70.5)),
        ({1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (11.0, 0.0, 0.0)}, None),
        ({2: (48.0, 0.0, 0.0)}, None),
        ({0: b"\2\3\0\0"}, None),
        ({1: "N", 2: (TiffImagePlugin.IFDRational(1, 0),) * 3, 3: "E", 4: (1.0, 0.0, 0.0)}, None),
    ],
)
def test_where_it_was_taken(gps: dict[int, Any], place: tuple[float, float] | None) -> None:
    found = facts(photograph(gps=gps))
    assert (found.gps, found.place) == (place is not None, place)


def test_damaged_exif_counts_as_none() -> None:
    data = photograph(base={272: "X"}).replace(b"Exif\0\0MM", b"Exif\0\0??")
    assert facts(data) == PictureFacts(40, 30, "JPEG")


def test_payload_says_the_place_only_if_asked() -> None:
    found = PictureFacts(4, 3, "JPEG", "2024-05-01T10:20:30", "X", 1, True, (48.5, 11.5))
    file = {"name": "a.jpg", "bytes": 9, "format": "JPEG", "width": 4, "height": 3}
    exif = {"taken": "2024-05-01T10:20:30", "camera": "X", "orientation": 1, "gps": True}
    assert found.payload("a.jpg", 9) == {"file": file, "exif": exif}
    exif |= {"place": {"lat": 48.5, "lon": 11.5}}
    assert found.payload("a.jpg", 9, place=True) == {"file": file, "exif": exif}
    assert PictureFacts(4, 3, "PNG").payload(None, 9) == {
        "file": {"bytes": 9, "format": "PNG", "width": 4, "height": 3}
    }
