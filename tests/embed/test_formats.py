"""Formats that are decoded in worker processes only: what comes out is what was drawn."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, ImageOps

from embed.decoding.header import read_header
from embed.decoding.pixels import open_image
from embed.pictures import RGB, Opened, PictureError, PictureLimits, decode
from tests.embed.boxed import with_ispe
from tests.embed.helpers import encoded, noise, slope

SLOPE = slope(96, 128)
LOSSY = {
    "HEIF": {"quality": 95, "chroma": 444},
    "HEIF in tiles": {"quality": 95, "tile_size": 64},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}
LOSSLESS: dict[str, dict[str, Any]] = {
    "JPEG2000": {},
    "JPEG2000 codestream": {"no_jp2": True},
    "JPEG2000 in tiles": {"tile_size": (32, 32)},
    "ICO": {},
    "ICO of bitmaps": {"bitmap_format": "bmp"},
    "PPM": {},
    "DIB": {},
}


def made(name: str, picture: Image.Image | RGB = SLOPE, **more: Any) -> bytes:
    return encoded(picture, name.split()[0], **({**LOSSY, **LOSSLESS}[name] | more))


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_keep_every_pixel(name: str) -> None:
    assert np.array_equal(decode(made(name, noise(96, 128))), noise(96, 128))


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_formats_stay_close(name: str) -> None:
    decoded = decode(made(name))
    assert decoded.shape == SLOPE.shape
    assert np.abs(decoded.astype(int) - SLOPE).max() <= 8


@pytest.mark.parametrize("name", [*LOSSY, *LOSSLESS])
def test_none_is_decoded_in_the_process_that_serves(name: str) -> None:
    assert not Opened(made(name)).in_process


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_turned_once(name: str, orientation: int) -> None:
    """Encoders state it twice, in EXIF and as a transformation; only the second counts."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = made(name, exif=exif.tobytes())
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    reference = Image.fromarray(SLOPE)
    reference.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(reference)).astype(int)
    decoded = decode(data)
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() <= 8


@pytest.mark.parametrize("form", ["HEIF", "AVIF", "JPEG2000", "ICO"])
def test_transparency_is_composited_over_white(form: str) -> None:
    picture = Image.new("RGBA", (128, 96), (200, 0, 0, 255))
    picture.paste((0, 0, 200, 0), (0, 0, 64, 96))
    options = {"quality": 95, "chroma": 444} if form == "HEIF" else {}
    decoded = decode(encoded(picture, form, **options)).astype(int)
    assert np.abs(decoded[:, :56] - 255).max() <= 6
    assert np.abs(decoded[:, 72:] - [200, 0, 0]).max() <= 6


@pytest.mark.parametrize("form", ["HEIF", "AVIF"])
def test_the_primary_picture_of_several(form: str) -> None:
    other = Image.new("RGB", (128, 96), "black")
    data = encoded(Image.fromarray(SLOPE), form, save_all=True, append_images=[other], quality=90)
    assert np.abs(decode(data).astype(int) - SLOPE).mean() < 3


def test_a_primary_picture_that_is_not_the_first() -> None:
    picture, other = Image.fromarray(SLOPE), Image.new("RGB", (128, 96), "black")
    options = {"save_all": True, "append_images": [picture], "primary_index": 1, "quality": 90}
    assert np.abs(decode(encoded(other, "HEIF", **options)).astype(int) - SLOPE).mean() < 3


@pytest.mark.parametrize("twelve", [False, True])
def test_heic_of_more_than_8_bits(twelve: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", twelve)
    deep = SLOPE.astype(np.uint16) * 257
    grey = deep[:, :, 0].copy()
    for mode, values in (("RGB;16", deep), ("L;16", grey)):
        buffer = io.BytesIO()
        file = pillow_heif.from_bytes(mode, (128, 96), values.tobytes())
        file.save(buffer, quality=95, chroma=444)
        expected = SLOPE if mode == "RGB;16" else SLOPE[:, :, :1].repeat(3, 2)
        assert np.abs(decode(buffer.getvalue()).astype(int) - expected).max() <= 8, mode


def test_jpeg_2000_of_16_bits() -> None:
    grey = np.repeat(np.arange(0, 65_536, 512, dtype=np.uint16)[None], 64, 0)
    decoded = decode(encoded(Image.fromarray(grey), "JPEG2000"))
    assert np.abs(decoded[:, :, 0].astype(float) - grey / 257).max() <= 1


PNM: list[tuple[bytes, list[list[int]]]] = [
    (b"P1 2 1\n1 0", [[0], [255]]),
    (b"P4 2 1\n\x80", [[0], [255]]),
    (b"P2 2 1 15\n3 15", [[51], [255]]),
    (b"P2\n# made by hand\n2 1\n255\n51 255", [[51], [255]]),
    (b"P5 2 1 15\n\x03\x0f", [[51], [255]]),
    (b"P5 2 1 4095\n\x03\x33\x0f\xff", [[51], [255]]),
    (b"P5 2 1 65535\n\x33\x33\xff\xff", [[51], [255]]),
    (b"P3 2 1 15\n0 3 15 15 3 0", [[0, 51, 255], [255, 51, 0]]),
    (b"P6 2 1 15\n\x00\x03\x0f\x0f\x03\x00", [[0, 51, 255], [255, 51, 0]]),
    (b"P6 2 1 65535\n\0\0\x33\x33\xff\xff\xff\xff\x33\x33\0\0", [[0, 51, 255], [255, 51, 0]]),
    (b"Pf 2 1 -1.0\n" + struct.pack("<2f", 0.2, 1.0), [[51], [255]]),
]


@pytest.mark.parametrize(("data", "row"), PNM, ids=lambda value: str(value)[:9])
def test_pnm_values_are_relative_to_the_largest(data: bytes, row: list[list[int]]) -> None:
    expected = [pixel * 3 if len(pixel) == 1 else pixel for pixel in row]
    assert decode(data).tolist() == [expected]


def test_12_bits_in_16_look_alike_in_every_container() -> None:
    grey = np.tile(np.arange(4096, dtype=np.uint16)[::16], (64, 1))
    expected = np.rint(grey / 4095 * 255).astype(np.uint8)
    data = [b"P5 256 64 %d\n" % most + grey.astype(">u2").tobytes() for most in (4095, 65535)]
    for form, options in (("PNG", {}), ("TIFF", {}), ("JPEG2000", {"irreversible": False})):
        buffer = io.BytesIO()
        Image.fromarray(grey).save(buffer, form, **options)
        data.append(buffer.getvalue())
    for picture in map(decode, data):
        assert np.abs(picture[:, :, 0].astype(int) - expected).max() <= 1


def test_the_largest_icon_of_several() -> None:
    data = encoded(
        Image.fromarray(slope(256, 256)), "ICO", sizes=[(16, 16), (32, 32), (256, 256), (48, 48)]
    )
    assert np.array_equal(decode(data), slope(256, 256))


def test_an_animated_png_shows_its_first_frame() -> None:
    red, blue = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue"))
    data = encoded(red, "PNG", save_all=True, append_images=[blue])
    assert b"acTL" in data
    assert decode(data).tolist() == [[[255, 0, 0]] * 40] * 30


@pytest.mark.parametrize("form", ["HEIF", "AVIF", "JPEG2000"])
def test_the_colour_profile_is_there_to_be_converted(form: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(SLOPE, form, icc_profile=profile)
    if form == "JPEG2000":  # Pillow writes none
        at = data.index(b"colr") - 4
        (size,) = struct.unpack_from(">I", data, at)
        colour = struct.pack(">I4s3B", 11 + len(profile), b"colr", 2, 0, 0) + profile
        boxes = data.index(b"jp2h") - 4
        (whole,) = struct.unpack_from(">I", data, boxes)
        head = data[:boxes] + struct.pack(">I", whole - size + len(colour)) + data[boxes + 4 : at]
        data = head + colour + data[at + size :]
    with open_image(data, form, PictureLimits()) as image:
        assert image.info["icc_profile"] == profile
    assert np.abs(decode(data).astype(int) - SLOPE).mean() < 3


INPUTS = Path(__file__).parents[3] / "shared" / "inputs"


@pytest.mark.skipif(not INPUTS.is_dir(), reason="no inputs in ../shared")
@pytest.mark.parametrize("name", ["photo.heic", "photo.avif"])
def test_a_photograph_in_other_formats_is_the_same(name: str) -> None:
    whole = decode((INPUTS / "whole.jpg").read_bytes()).astype(int)
    decoded = decode((INPUTS / name).read_bytes())
    assert decoded.shape == whole.shape
    assert np.abs(decoded - whole).mean() < 4


@pytest.mark.parametrize("form", ["HEIF", "AVIF"])
def test_a_picture_that_is_larger_than_its_boxes_say(form: str) -> None:
    data = encoded(Image.new("RGB", (2048, 1024)), form)
    limits = PictureLimits(max_pixels=1_000_000)
    with pytest.raises(PictureError) as caught:
        decode(with_ispe(data, 64, 64), limits)
    assert caught.value.reason == "too-many-pixels"
    assert "2048 x 1024" in str(caught.value)


@pytest.mark.parametrize("form", ["HEIF", "AVIF", "JPEG2000"])
def test_damage_says_what_to_do(form: str) -> None:
    data = bytearray(encoded(noise(96, 128), form))
    at = data.index({"HEIF": b"hvcC", "AVIF": b"ispe", "JPEG2000": b"ihdr"}[form])
    data[at : at + 4] = b"junk"
    with pytest.raises(PictureError) as caught:
        decode(bytes(data))
    assert caught.value.reason == "truncated"
    assert str(caught.value).endswith("send the whole file, or save it as PNG or JPEG")


def test_a_worker_reads_what_the_header_says_and_nothing_else() -> None:
    """What was estimated is what is decoded: no other format's decoder sees the bytes."""
    data = made("PPM")
    header = read_header(data)
    assert header is not None and header.form == "PPM"
    with pytest.raises(PictureError):
        open_image(data, "JPEG2000", PictureLimits())
