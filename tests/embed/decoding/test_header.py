from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from PIL import Image

from embed.decoding.header import _READERS, PIXEL, Header, read_header
from embed.decoding.limits import FORMATS, LARGE, PictureError, PictureLimits
from tests.embed.helpers import (
    encoded,
    noise,
    rgb_tags,
    slope,
    tiff,
    with_more_scans,
    zeros_deflated,
)
from tests.torture.bombs import png, png_chunk

MB = 2**20


def header(data: bytes) -> Header:
    found = read_header(data)
    assert found is not None
    return found


def reason(found: Header, limits: PictureLimits = PictureLimits()) -> str:
    with pytest.raises(PictureError) as caught:
        found.check(limits)
    return caught.value.reason


def test_each_format_states_its_cost() -> None:
    assert set(_READERS) == set(FORMATS)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_size_of_each_format(form: str, mode: str) -> None:
    found = header(encoded(Image.fromarray(noise(64, 96)).convert(mode), form))
    assert (found.form, found.width, found.height, found.pixels) == (form, 96, 64, 6144)
    assert found.memory is not None and found.memory >= 6144 * PIXEL
    assert found.ordinary == (form in ("PNG", "JPEG"))
    assert not found.excess
    found.check(PictureLimits())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("size", [4, 12, 20, 30, 60])
def test_a_cut_header_is_left_to_a_worker(form: str, size: int) -> None:
    data = encoded(noise(64, 96), form)[:size]
    found = read_header(data)
    # Either it is not recognised, or nothing is known of it, or what there is of it is right.
    assert found is None or (found.form, found.pixels) in ((form, 0), (form, 6144))
    if form not in ("PNG", "JPEG"):
        assert found is None or not found.ordinary


@pytest.mark.parametrize("data", [b"hello, this is text", b"RIFF\0\0\0\0AVI ", b"\0" * 40])
def test_other_bytes(data: bytes) -> None:
    assert read_header(data) is None


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("frames", [0, 1])
def test_a_webp_costs_its_canvas(lossless: bool, frames: int) -> None:
    red, blue = (Image.new("RGB", (30, 20), colour) for colour in ("red", "blue"))
    more = {"save_all": True, "append_images": [blue]} if frames else {}
    found = header(encoded(red, "WEBP", lossless=lossless, **more))
    assert (found.width, found.height, found.memory) == (30, 20, 600 * 20)
    assert PictureLimits().max_memory >= 50_000_000 * 20  # the largest is allowed


def test_a_gif_grows_with_its_first_frame() -> None:
    data = bytearray(encoded(Image.new("P", (16, 16)), "GIF"))
    at = data.index(b"\x2c", 13)
    data[at + 1 : at + 9] = struct.pack("<HHHH", 5, 0, 1000, 10)
    found = header(bytes(data))
    assert (found.width, found.height) == (1005, 16)


def test_a_gif_has_bounded_blocks_before_its_picture() -> None:
    data = encoded(Image.new("P", (16, 16)), "GIF")
    at = data.index(b"\x2c", 13)

    def commented(blocks: int) -> Header:
        return header(data[:at] + b"\x21\xfe" + b"\x01a" * blocks + b"\0" + data[at:])

    assert commented(4095).pixels == 256
    assert commented(4096).excess == "more than 4,096 blocks before its picture"
    assert reason(commented(4096)) == "too-costly"


def test_a_jpeg_in_several_scans_keeps_coefficients() -> None:
    picture = slope(40, 60)
    baseline = header(encoded(picture, "JPEG", subsampling=0))
    progressive = header(encoded(picture, "JPEG", progressive=True))
    grey = header(encoded(Image.fromarray(picture).convert("L"), "JPEG", progressive=True))
    assert [h.memory for h in (baseline, progressive, grey)] == [2400 * n for n in (8, 11, 10)]
    # libjpeg does not read what follows a scan of all components.
    assert header(with_more_scans(encoded(picture, "JPEG", subsampling=0), 1)) == baseline
    # At a fraction of its size, it takes the same coefficients.
    limits = PictureLimits(max_pixels=600, max_memory=600 * PIXEL + 2400 * 3)
    progressive.check(limits)
    assert reason(progressive, replace(limits, max_memory=limits.max_memory - 1)) == "too-costly"
    baseline.check(PictureLimits(max_pixels=600, max_memory=600 * PIXEL))
    assert baseline.ordinary and progressive.ordinary


def with_segments(number: int, body: bytes) -> bytes:
    data = encoded(slope(40, 60), "JPEG")
    return data[:2] + number * (b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body) + data[2:]


def test_jpeg_segments() -> None:
    few, many = header(with_segments(50, b"x")), header(with_segments(200, b"x"))
    assert few.ordinary and not many.ordinary and not many.excess
    assert many.pixels == 2400
    assert header(with_segments(5000, b"x")).excess == (
        "more than 4,096 segments before its first scan"
    )
    assert not header(with_segments(6, b"x" * 60_000)).ordinary
    exif = b"Exif\0\0" + bytes(60_000)
    assert not header(with_segments(30, exif)).excess
    assert header(with_segments(40, exif)).excess == "more than 2,097,152 bytes of EXIF"
    assert not header(with_segments(40, b"Other" + bytes(60_000))).excess


def test_large_pictures_are_not_ordinary() -> None:
    for form in ("PNG", "JPEG"):
        at, above = (header(encoded(Image.new("L", (2000, high)), form)) for high in (1000, 1001))
        assert at.pixels == LARGE
        assert (at.ordinary, above.ordinary) == (True, False)


def with_chunks(*chunks: bytes) -> bytes:
    data = png(16, 16, bytes(16 * 49))
    at = data.index(b"IDAT") - 4
    return data[:at] + b"".join(chunks) + data[at:]


def test_png_chunks() -> None:
    text, plain = png_chunk(b"zTXt", b"a\0\0x"), png_chunk(b"tEXt", b"a\0x")
    few = header(with_chunks(*[text] * 4, *[plain] * 60))
    assert few.ordinary
    assert few.memory == 256 * PIXEL + 2 * 4 * MB
    for chunks in ([text] * 5, [plain] * 65, [png_chunk(b"eXIf", bytes(2**18 + 1))]):
        found = header(with_chunks(*chunks))
        assert not found.ordinary and not found.excess
    all_texts = header(with_chunks(*[text] * 1000))
    assert all_texts.memory == 256 * PIXEL + 2 * 64 * MB
    assert header(with_chunks(*[plain] * 70_000)).excess == "more than 65,536 chunks"


def test_png_animated_interlaced_or_of_16_bits_is_not_ordinary() -> None:
    red, blue = (Image.new("RGB", (30, 20), colour) for colour in ("red", "blue"))
    animated = header(encoded(red, "PNG", save_all=True, append_images=[blue]))
    assert not animated.ordinary and animated.memory == 600 * 2 * PIXEL
    deep = encoded(Image.new("I;16", (30, 20)), "PNG")
    assert not header(deep).ordinary and header(deep).memory == 600 * PIXEL
    colours = bytearray(encoded(red, "PNG"))
    colours[24] = 16
    assert not header(bytes(colours)).ordinary
    assert header(bytes(colours)).memory == 600 * 2 * PIXEL
    interlaced = bytearray(encoded(red, "PNG"))
    interlaced[28] = 1
    assert not header(bytes(interlaced)).ordinary


def test_bmp_of_either_header_and_direction() -> None:
    data = bytearray(encoded(noise(40, 60), "BMP"))
    struct.pack_into("<i", data, 22, -40)
    assert (header(bytes(data)).width, header(bytes(data)).height) == (60, 40)
    old = b"BM" + struct.pack("<IHHIIHHHH", 0, 0, 0, 26, 12, 60, 40, 1, 24)
    assert (header(old).width, header(old).height) == (60, 40)


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True), (">", True)])
def test_a_tiff_costs_its_tiles(order: str, big: bool) -> None:
    tags = rgb_tags(64, 64) | {322: (4, [4096]), 323: (4, [1024])}
    found = header(tiff(tags, [zeros_deflated(100)], order, big))
    assert (found.width, found.height, found.tile) == (64, 64, (4096, 1024))
    assert found.memory is not None
    assert found.memory - 64 * 64 * PIXEL - 4096 * 1024 * 3 in range(600 * 20)
    found.check(PictureLimits(max_memory=13 * MB))
    assert reason(found, PictureLimits(max_memory=12 * MB)) == "too-costly"
    assert reason(found, PictureLimits(max_pixels=4096 * 1024 - 1)) == "too-costly"


@pytest.mark.parametrize(
    ("tags", "cost"),
    [
        ({258: (3, [16, 16, 16])}, 6),
        ({258: (3, [32]), 262: (3, [1]), 277: (3, [1]), 339: (3, [3])}, 4),
        ({284: (3, [2])}, 1),
        ({259: (3, [5])}, 3),
        ({259: (3, [7])}, 7),  # and its conversion to RGBA
        ({262: (3, [6])}, 7),
        ({259: (3, [1])}, 0),  # not compressed: read row by row
    ],
)
def test_bytes_per_pixel_of_a_tile(tags: dict[int, tuple[int, list[int]]], cost: int) -> None:
    tags = rgb_tags(64, 64) | {322: (4, [1024]), 323: (4, [1024])} | tags
    memory = header(tiff(tags, [b"x"])).memory
    assert memory is not None
    assert memory - 64 * 64 * PIXEL - 1024 * 1024 * cost in range(600 * 20)


def test_a_strip_is_no_higher_than_the_picture() -> None:
    memory = header(tiff(rgb_tags(64, 64) | {278: (4, [2**32 - 1])}, [b"x"])).memory
    assert memory is not None
    assert memory - 64 * 64 * (PIXEL + 3) in range(600 * 20)


def test_a_tag_that_occurs_twice_counts_with_its_largest_value() -> None:
    data = bytearray(
        tiff(rgb_tags(64, 64) | {322: (4, [16]), 323: (4, [16]), 65000: (4, [1])}, [b"x"])
    )
    at = data.index(struct.pack("<HH", 65000, 4))
    struct.pack_into("<HHII", data, at, 322, 4, 1, 2**31)
    assert header(bytes(data)).tile == (2**31, 16)
    assert reason(header(bytes(data))) == "too-costly"


def test_directories_that_point_to_themselves() -> None:
    found = header(tiff(rgb_tags(16, 16, 1) | {330: (13, [8] * 30), 34665: (4, [8])}, [bytes(768)]))
    assert found.pixels == 256 and not found.excess


def test_many_directories_tags_or_values() -> None:
    data = tiff(rgb_tags(16, 16, 1) | {330: (4, [1, 2, 3])}, [bytes(768)])
    start = len(data)
    at = data.index(struct.pack("<III", 1, 2, 3))
    data = data[:at] + struct.pack("<III", start, start + 200, start + 400) + data[at + 12 :]
    for n in range(3):  # each names 32 more, all of them empty
        more = struct.pack("<HHHII", 1, 330, 4, 32, start + 200 * n + 20).ljust(20, b"\0")
        places = range(start + 600 + 128 * n, start + 600 + 128 * (n + 1), 4)
        data += (more + struct.pack("<32I", *places)).ljust(200, b"\0")
    data += bytes(400)
    assert header(data).excess == "more than 64 directories of tags"
    values = tiff(rgb_tags(16, 16, 1) | {700: (3, [0] * 250_000)}, [bytes(768)])
    assert header(values).excess == "more than 250,000 values in its tags"
    tags = tiff(rgb_tags(16, 16, 1) | {n: (3, [1]) for n in range(1000, 5200)}, [bytes(768)])
    assert header(tags).excess == "4,208 tags"
