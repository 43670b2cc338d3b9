from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from embed.decoding.steps import colour
from embed.pictures import Opened, decode
from tests.embed.helpers import encoded, noise, slope
from tests.embed.profiles import (
    ADOBE,
    BT_2020,
    D50,
    P3,
    PROPHOTO,
    SRGB,
    cmyk,
    gamma,
    grey,
    matrix,
    profile,
    srgb_curve,
    srgb_table,
    xyz,
)
from tests.torture.bombs import png_chunk

DISPLAY_P3 = matrix(P3, srgb_curve(), version=4)
ADOBE_RGB = matrix(ADOBE, gamma(2.2))


def linear(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def converted(
    picture: NDArray[np.uint8], primaries: tuple[tuple[float, ...], ...], power: float | None
) -> NDArray[np.int64]:
    """What sRGB values show the same, by the textbook."""
    values = picture / 255
    light = linear(values) if power is None else values**power
    to_srgb = np.linalg.inv(np.array(SRGB).T) @ np.array(primaries).T
    light = np.clip(light @ to_srgb.T, 0, 1)
    shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * shown).astype(int)


def assert_near(
    data: bytes, expected: NDArray[np.int64] | NDArray[np.uint8], most: int = 3
) -> None:
    assert np.abs(decode(data).astype(int) - expected).max() <= most


PICTURE = slope(40, 60)
KINDS = [
    (P3, None, DISPLAY_P3),
    (ADOBE, 2.2, ADOBE_RGB),
    (PROPHOTO, 1.8, matrix(PROPHOTO, gamma(1.8))),
]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("primaries", "power", "icc"), KINDS)
def test_wider_colours_are_converted(
    form: str, primaries: tuple[tuple[float, ...], ...], power: float | None, icc: bytes
) -> None:
    lossless = {"lossless": True} if form == "WEBP" else {}
    expected = converted(PICTURE, primaries, power)
    assert np.abs(expected - PICTURE).max() > 10  # it matters
    assert_near(encoded(PICTURE, form, icc_profile=icc, **lossless), expected)


def test_a_jpeg_is_converted_at_any_scale() -> None:
    picture = np.broadcast_to(np.uint8([200, 90, 60]), (320, 480, 3))
    expected = converted(picture[0, 0], P3, None)
    data = encoded(picture, "JPEG", quality=95, icc_profile=DISPLAY_P3)
    for at_least in (None, 32):
        decoded = decode(data, at_least=at_least).astype(int)
        assert np.abs(decoded - expected).max() <= 4
    large = encoded(Image.new("RGB", (2400, 2100), (200, 90, 60)), "PNG", icc_profile=DISPLAY_P3)
    for at_least in (None, 32):  # in bands, and averaged down
        assert np.abs(decode(large, at_least=at_least).astype(int) - expected).max() <= 3


@pytest.mark.parametrize(
    "icc",
    [matrix(SRGB, srgb_curve()), matrix(SRGB, srgb_table(), 4), matrix(SRGB, srgb_table(4096)),
     ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()],
)  # fmt: skip
def test_srgb_stays_exactly_as_it_is(icc: bytes) -> None:
    picture = noise(20, 30)
    data = encoded(picture, "PNG", icc_profile=icc)
    opened = Opened(data)
    assert opened.in_process
    assert np.array_equal(opened.decode(), picture)
    assert colour.profile_of(Image.open(io.BytesIO(data)), data) is None


def test_alpha_and_palettes_with_a_profile() -> None:
    rgba = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 255, np.uint8)])
    rgba[:20, :, 3] = 0
    expected = converted(PICTURE, P3, None)
    expected[:20] = 255
    assert_near(encoded(Image.fromarray(rgba), "PNG", icc_profile=DISPLAY_P3), expected)
    flat = Image.new("RGB", (8, 8), (200, 90, 60)).quantize(4)
    assert_near(
        encoded(flat, "PNG", icc_profile=DISPLAY_P3),
        converted(np.uint8([200, 90, 60]), P3, None),
    )


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_profiles(mode: str) -> None:
    values = np.arange(256, dtype=np.uint8)[None].repeat(4, 0)
    image = {
        "L": Image.fromarray(values),
        "LA": Image.fromarray(np.dstack([values, np.full_like(values, 255)])),
        "I;16": Image.fromarray(values.astype(np.uint16) * 257),
    }[mode]
    for power in (1.0, 1.8, 2.2):
        expected = converted(values[:, :, None].repeat(3, 2), SRGB, power)
        assert_near(encoded(image, "PNG", icc_profile=grey(gamma(power))), expected)
    assert np.array_equal(
        decode(encoded(image, "PNG", icc_profile=grey(srgb_curve()))), decode(encoded(image, "PNG"))
    )


PAPER = {
    (0, 0, 0, 0): (100.0, 0.0, 0.0),
    (1, 0, 0, 0): (55.0, -37.0, -50.0),
    (0, 1, 0, 0): (48.0, 74.0, -3.0),
    (0, 0, 1, 0): (89.0, -5.0, 93.0),
    (0, 1, 1, 0): (47.0, 68.0, 48.0),
}


def lab_to_srgb(lab: tuple[float, float, float]) -> NDArray[np.int64]:
    fy = (lab[0] + 16) / 116
    f = np.array([fy + lab[1] / 500, fy, fy - lab[2] / 200])
    light = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50
    light = np.clip(np.linalg.inv(np.array(SRGB).T) @ light, 0, 1)
    shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * shown).astype(int)


@pytest.mark.parametrize("form", ["TIFF", "JPEG"])
def test_cmyk_with_a_profile(form: str) -> None:
    options = {"quality": 95} if form == "JPEG" else {}
    for inks, lab in PAPER.items():
        image = Image.new("CMYK", (16, 16), tuple(255 * ink for ink in inks))
        data = encoded(image, form, icc_profile=cmyk(PAPER), **options)
        assert not Opened(data).in_process
        assert_near(data, lab_to_srgb(lab), 8)
    plain = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert_near(encoded(plain, form, **options), np.array([0, 255, 255]), 4)


def test_lab() -> None:
    for lab in ((60.0, 40.0, -20.0), (0.0, 0.0, 0.0), (100.0, 0.0, 0.0), (30.0, -20.0, 30.0)):
        stored = (round(lab[0] * 2.55), round(lab[1]) + 128, round(lab[2]) + 128)
        image = Image.new("LAB", (8, 8), stored)
        assert_near(encoded(image, "TIFF"), lab_to_srgb(lab), 4)


DAMAGED = {
    "nonsense": b"nonsense",
    "zeros": bytes(3000),
    "cut": DISPLAY_P3[:200],
    "cut in its curves": ADOBE_RGB[:-6],
    "a curve of 2^32 - 1 values": ADOBE_RGB.replace(
        struct.pack(">IH", 1, round(256 * 2.2)), struct.pack(">IH", 2**32 - 1, 1)
    ),
    "for CMYK": cmyk(PAPER),
    "for grey": grey(gamma(1.0)),
    "2^32 - 1 tags": DISPLAY_P3[:128] + b"\xff\xff\xff\xff" + DISPLAY_P3[132:],
    "no primaries": profile({name: gamma(2.2) for name in (b"rTRC", b"gTRC", b"bTRC")}),
    "black": matrix(((0.0, 0.0, 0.0),) * 3, gamma(2.2)),
    "a table that is none": profile({b"A2B0": b"mft1" + bytes(20)}),
    "too large": DISPLAY_P3 + bytes(4 * 2**20),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_damaged_and_unsuitable_profiles_are_left_out(name: str, form: str) -> None:
    plain = decode(encoded(PICTURE, form))
    assert np.array_equal(decode(encoded(PICTURE, form, icc_profile=DAMAGED[name])), plain)


def test_where_a_profile_is_read() -> None:
    for icc, here in (
        (DISPLAY_P3, True), (ADOBE_RGB, True), (DAMAGED["nonsense"], False),
        (profile({b"A2B0": b"mft1" + bytes(20)}), False),
        (matrix(P3, b"curv\0\0\0\0" + struct.pack(">I", 5000) + bytes(10000)), False),
        (DISPLAY_P3 + bytes(70_000), False),
    ):  # fmt: skip
        assert Opened(encoded(PICTURE, "JPEG", icc_profile=icc)).in_process is here
    # Little CMS gets primaries and curves only, whatever else there is.
    more = {b"rXYZ": xyz(P3[0]), b"gXYZ": xyz(P3[1]), b"bXYZ": xyz(P3[2]), b"vcgt": b"evil" * 9}
    more |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), srgb_curve() + b"evil")
    data = encoded(PICTURE, "JPEG", icc_profile=profile(more))
    cleaned = colour.profile_of(Image.open(io.BytesIO(data)), data)
    assert cleaned is not None and b"evil" not in cleaned and b"P3" not in cleaned
    assert cleaned[:4] == struct.pack(">I", len(cleaned))


@pytest.mark.parametrize("order", [b"II", b"MM"])
@pytest.mark.parametrize("how", ["interoperability", "colour space"])
def test_exif_may_say_adobe_rgb(order: bytes, how: str) -> None:
    little = order == b"II"
    code = "<" if little else ">"
    if how == "interoperability":
        entry = struct.pack(code + "HHI4s", 1, 2, 4, b"R03\0")
    else:
        entry = struct.pack(code + "HHIHH", 0xA001, 3, 1, 2, 0)
    exif = b"Exif\0\0" + order + struct.pack(code + "HIH", 42, 8, 1)
    exif += struct.pack(code + "HHII", 0x8769, 4, 1, 26) + bytes(4)
    exif += struct.pack(code + "H", 1) + entry + bytes(4)
    expected = converted(PICTURE, ADOBE, 563 / 256)
    assert_near(encoded(PICTURE, "PNG", exif=exif), expected)
    other = exif.replace(b"R03", b"R98").replace(entry[-4:], entry[-4:].replace(b"\2", b"\1"))
    assert np.array_equal(decode(encoded(PICTURE, "PNG", exif=other)), PICTURE)
    # A profile counts for more.
    with_profile = encoded(PICTURE, "PNG", exif=exif, icc_profile=matrix(SRGB, srgb_curve()))
    assert np.array_equal(decode(with_profile), PICTURE)


def with_chunks(image: Image.Image | NDArray[np.uint8], *chunks: bytes) -> bytes:
    data = encoded(image, "PNG")
    at = data.index(b"IDAT") - 4
    return data[:at] + b"".join(chunks) + data[at:]


def test_png_gamma_and_primaries() -> None:
    def gama(value: float) -> bytes:
        return png_chunk(b"gAMA", struct.pack(">I", round(1e5 * value)))

    def chrm(*values: float) -> bytes:
        return png_chunk(b"cHRM", struct.pack(">8I", *(round(1e5 * value) for value in values)))

    usual = chrm(0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
    adobe = chrm(0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
    for chunks in (
        (gama(0.45455),), (gama(0.45455), usual), (adobe,), (png_chunk(b"sRGB", b"\0"), gama(1.0)),
        (gama(0.0),), (gama(900.0),), (gama(0.45455), chrm(*[0.0] * 8)),
        (gama(1.0), chrm(*[0.3] * 8)),
    ):  # fmt: skip
        assert np.array_equal(decode(with_chunks(PICTURE, *chunks)), PICTURE)
    assert_near(with_chunks(PICTURE, gama(1.0)), converted(PICTURE, SRGB, 1.0))
    assert_near(with_chunks(PICTURE, gama(0.45455), adobe), converted(PICTURE, ADOBE, 2.2))
    values = np.arange(256, dtype=np.uint8)[None]
    expected = converted(values[:, :, None].repeat(3, 2), SRGB, 1.0)
    assert_near(with_chunks(Image.fromarray(values), gama(1.0)), expected)


@pytest.mark.parametrize("number", [9, 12, 1, 2])
def test_colours_by_number(number: int) -> None:
    primaries = {12: P3, 9: BT_2020}.get(number, SRGB)
    expected = converted(PICTURE, primaries, None)
    assert_near(with_chunks(PICTURE, png_chunk(b"cICP", bytes([number, 13, 0, 1]))), expected)
    data = encoded(PICTURE, "AVIF", quality=100, subsampling="4:4:4")
    plain = decode(data)
    at = data.index(b"colrnclx") + 8
    avif = data[:at] + struct.pack(">H", number) + data[at + 2 :]
    assert_near(avif, converted(plain, primaries, None))
    # High dynamic range is left as it is, and so is an unknown number.
    for numbers in ([number, 16, 0, 1], [200, 13, 0, 1], [number]):
        data = with_chunks(PICTURE, png_chunk(b"cICP", bytes(numbers)))
        assert np.array_equal(decode(data), PICTURE)
