from __future__ import annotations

import io
import struct
import zipfile

import pytest
from PIL import Image

from embed.decoding.signatures import recognise
from embed.pictures import PictureError, decode
from tests.embed.decoding.headers.test_camera_raw import CR2, raw
from tests.embed.helpers import encoded, noise


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"text" * 100)
    return buffer.getvalue()


FOREIGN: dict[str, bytes] = {
    "a Photoshop document (PSD)": b"8BPS\0\1" + bytes(40),
    "a drawing (SVG)": b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg xmlns='x'></svg>",
    "a PDF document": b"%PDF-1.7\n%\xe2\xe3",
    "a PostScript file (EPS, AI)": b"%!PS-Adobe-3.0 EPSF-3.0",
    "a video (MP4)": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
    "a video (QuickTime)": b"\0\0\0\x14ftypqt  \0\0\2\0qt  ",
    "a video (WebM, Matroska)": b"\x1aE\xdf\xa3\x01\0\0\0",
    "a video (AVI)": b"RIFF\0\0\0\0AVI LIST",
    "a sound file (MP3)": b"ID3\3\0",
    "a sound file (WAV)": b"RIFF\0\0\0\0WAVEfmt ",
    "an animated Windows cursor (ANI)": b"RIFF\0\0\0\0ACONanih",
    "a JPEG-LS picture": b"\xff\xd8\xff\xe0\0\x04ab\xff\xf7\0\x0b\x08\0\x10\0\x10\1\1\x11\0",
    "a JPEG of 12 bits per sample": b"\xff\xd8\xff\xc1\0\x0b\x0c\0\x10\0\x10\1\1\x11\0",
    "a sound file (M4A)": b"\0\0\0\x18ftypM4A \0\0\0\0",
    "an Office document (Word)": zipped("[Content_Types].xml", "word/document.xml"),
    "an Office document (Excel)": zipped("[Content_Types].xml", "xl/workbook.xml"),
    "an Office document (PowerPoint)": zipped("[Content_Types].xml", "ppt/presentation.xml"),
    "a ZIP file": zipped("IMG_0001.jpg"),
    "an old Office file, or Windows' Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(40),
    "a web page (HTML)": b"\n<!DOCTYPE html><html><body>404</body></html>",
    "an XML text": b"<?xml version='1.0'?><error>AccessDenied</error>",
    "a JSON text": b'{"error": "not found"}',
    "a camera RAW file (Canon CR2)": CR2,
    "a camera RAW file (Nikon NEF)": raw("NIKON"),
    "a camera RAW file (DNG)": raw(dng=True, photometric=2),
    "a camera RAW file": raw(),
    "a JPEG XL picture": b"\xff\x0a\xfa\x1f\x41",
    "an OpenEXR picture": b"v/1\x01\2\0\0\0",
    "a TGA picture": encoded(noise(9, 9), "TGA"),
    "a PCX picture": encoded(noise(9, 9), "PCX"),
    "an SGI picture": encoded(noise(9, 9), "SGI"),
    "a macOS icon (ICNS)": encoded(noise(16, 16), "ICNS"),
    "an XBM picture": encoded(Image.new("1", (9, 9)), "XBM"),
    "an animation (FLIC)": b"\0\1\0\0\x12\xaf\1\0" + bytes(120),
    "a PAM picture": b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 3\nMAXVAL 255\nENDHDR\n" + bytes(12),
    "a pointer of Git LFS, not the file": b"version https://git-lfs.github.com/spec/v1\noid",
    "a data URL, in text": b"data:image/png;base64,iVBORw0KGgo=",
    "a file of zeros": bytes(100_000),
    "a tar file": bytes(257).replace(b"\0", b"a") + b"ustar\0" + bytes(300),
    "a gzip file": b"\x1f\x8b\x08" + bytes(20),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_other_files_are_named(what: str) -> None:
    data = FOREIGN[what]
    found = recognise(data)
    assert found is not None
    assert found.what == what
    with pytest.raises(PictureError) as caught:
        decode(data)
    assert caught.value.reason == "not-a-picture"
    assert str(caught.value) == (
        f"the file ({len(data):,} bytes) is {what}, which is not read; {found.advice}"
    )


@pytest.mark.parametrize(
    "data", [b"hello, this is text", b"a{", b"1, 2", bytes(range(1, 99)), b"a,b,c\n1,2,3"]
)
def test_what_does_not_say_what_it_is(data: bytes) -> None:
    assert recognise(data) is None
    with pytest.raises(PictureError, match="not a picture in a known format; expected one of JPEG"):
        decode(data)


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_text_with_a_byte_order_mark(bom: bytes) -> None:
    found = recognise(bom + b"<svg></svg>")
    assert found is not None and found.what == "a drawing (SVG)"


def test_a_tga_of_version_1_is_named_by_its_header() -> None:
    whole = encoded(noise(9, 9), "TGA")
    assert whole.endswith(b"TRUEVISION-XFILE.\0")
    found = recognise(whole[:-26].replace(b"\0\0\2", b"\3\0\2", 1))
    assert found is not None and found.what == "a TGA picture"


def test_advice_says_what_to_do() -> None:
    found = recognise(CR2)
    assert found is not None
    assert found.advice == (
        "export it as JPEG, PNG or TIFF, with the camera's program or a photo editor"
    )


def test_long_texts_take_no_time() -> None:
    for text in (b" " * 5_000_000, b"<!--" * 1_000_000, b"<?xml " + b"?" * 5_000_000):
        recognise(text)


def test_an_old_quicktime_film_starts_with_any_box() -> None:
    found = recognise(struct.pack(">I4s", 8, b"wide"))
    assert found is not None and found.what == "a video (QuickTime)"
