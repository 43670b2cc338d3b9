from __future__ import annotations

import io
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from embed.decoding.pixels import decode_image, open_image
from embed.pictures import (
    FORMATS,
    Opened,
    PictureError,
    PictureLimits,
    decode,
    encode_jpeg,
    encode_png,
)
from embed.preprocess import Preprocess, Resize
from tests.embed.helpers import encoded, flat_jpeg, noise, png_header, slope, with_more_scans


def refused(data: bytes, limits: PictureLimits = PictureLimits()) -> PictureError:
    with pytest.raises(PictureError) as caught:
        decode(data, limits)
    return caught.value


def grey(values: list[int]) -> list[list[int]]:
    return [[value] * 3 for value in values]


@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True}),
     ("TIFF", {"compression": "tiff_lzw"})],
)  # fmt: skip
def test_lossless_formats_keep_every_pixel(form: str, options: dict[str, object]) -> None:
    picture = noise(20, 30)
    decoded = decode(encoded(picture, form, **options))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, picture)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_lossy_formats_stay_close(form: str) -> None:
    picture = slope(24, 40)
    decoded = decode(encoded(picture, form, quality=95))
    assert decoded.shape == (24, 40, 3)
    assert np.abs(decoded.astype(int) - picture).max() <= 8


def test_gif_keeps_the_colours_of_its_palette() -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:, :3] = (200, 10, 30)
    assert np.array_equal(decode(encoded(picture, "GIF")), picture)


def test_encode_png_round_trip() -> None:
    picture = noise(7, 5)
    data = encode_png(picture)
    assert data.startswith(b"\x89PNG")
    assert np.array_equal(decode(data), picture)


def test_encode_jpeg_stays_close() -> None:
    data = encode_jpeg(slope(24, 40), quality=95)
    assert data.startswith(b"\xff\xd8")
    assert len(data) > len(encode_jpeg(slope(24, 40), quality=30))
    assert np.abs(decode(data).astype(int) - slope(24, 40)).max() <= 8


def test_transparency_is_composited_over_white() -> None:
    rgba = np.array([[[100, 50, 0, 0], [100, 50, 0, 255], [100, 50, 0, 51]]], np.uint8)
    # alpha 51 is a fifth: 100/5 + 255*4/5 = 224, 50/5 + 204 = 214, 0 + 204 = 204.
    expected = [[[255, 255, 255], [100, 50, 0], [224, 214, 204]]]
    assert decode(encoded(Image.fromarray(rgba, "RGBA"), "PNG")).tolist() == expected


def test_grey_with_alpha() -> None:
    image = Image.fromarray(np.array([[[0, 0], [10, 255], [0, 51]]], np.uint8), "LA")
    assert decode(encoded(image, "PNG")).tolist() == [grey([255, 10, 204])]


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_palette_with_a_transparent_colour(form: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([0, 1])
    decoded = decode(encoded(image, form, transparency=1))
    assert decoded.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_greyscale_and_bilevel() -> None:
    image = Image.fromarray(np.array([[0, 7, 255]], np.uint8))
    assert decode(encoded(image, "PNG")).tolist() == [grey([0, 7, 255])]
    assert decode(encoded(image.point(lambda v: v > 6 and 255, "1"), "PNG")).tolist() == [
        grey([0, 255, 255])
    ]


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(form: str) -> None:
    image = Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16))
    assert image.mode == "I;16"
    assert decode(encoded(image, form)).tolist() == [grey([0, 1, 128, 255])]


def test_float_tiff_counts_from_zero_to_one() -> None:
    image = Image.fromarray(np.array([[0.0, 0.2, 1.0, -3.0]], np.float32))
    assert decode(encoded(image, "TIFF")).tolist() == [grey([0, 51, 255, 0])]


def test_float_tiff_with_larger_values_is_scaled_by_the_largest() -> None:
    image = Image.fromarray(np.array([[0.0, 2.0, 10.0]], np.float32))
    assert decode(encoded(image, "TIFF")).tolist() == [grey([0, 51, 255])]


def test_cmyk_is_converted() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan: red
    exact = decode(encoded(image, "TIFF"))
    assert exact[0, 0].tolist() == [255, 0, 0]
    lossy = decode(encoded(image, "JPEG", quality=95)).astype(int)
    assert np.abs(lossy - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda p: p),
        (2, lambda p: p[:, ::-1]),
        (3, lambda p: p[::-1, ::-1]),
        (4, lambda p: p[::-1]),
        (5, lambda p: p.transpose(1, 0, 2)),
        (6, lambda p: np.rot90(p, -1)),
        (7, lambda p: p[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda p: np.rot90(p, 1)),
    ],
)
def test_exif_orientation(form: str, orientation: int, turn) -> None:  # type: ignore[no-untyped-def]
    stored = noise(2, 3) if form != "JPEG" else np.repeat(np.repeat(noise(2, 3), 8, 0), 8, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = encoded(stored, form, **({"quality": 95} if form == "JPEG" else {}))
    turned = encoded(stored, form, exif=exif, **({"quality": 95} if form == "JPEG" else {}))
    assert np.array_equal(decode(turned), turn(decode(plain)))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_leaves_the_picture_as_stored(form: str) -> None:
    picture = slope(16, 24)
    damaged = encoded(picture, form, exif=b"Exif\0\0nonsense")
    assert np.array_equal(decode(damaged), decode(encoded(picture, form)))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_several(form: str) -> None:
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(red, form, save_all=True, append_images=[blue], **options)
    assert decode(data).tolist() == [[[255, 0, 0]] * 4] * 4


def test_empty() -> None:
    error = refused(b"")
    assert error.reason == "empty"
    assert str(error) == "the file is empty (0 bytes); expected a picture"


def test_text_is_not_a_picture() -> None:
    error = refused(b"hello, this is text")
    assert error.reason == "not-a-picture"
    assert str(error) == (
        "the 19 bytes are not a picture in a known format; expected one of"
        " JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF, JPEG 2000, ICO, PNM"
    )


@pytest.mark.parametrize("form", ["TGA", "PCX", "SGI"])
def test_formats_not_listed_are_refused(form: str) -> None:
    assert refused(encoded(noise(16, 16), form)).reason == "not-a-picture"


@pytest.mark.parametrize("form", FORMATS)
def test_half_a_file_is_truncated(form: str) -> None:
    data = encoded(noise(40, 60), form)
    error = refused(data[: len(data) // 2])
    assert error.reason == "truncated"
    assert "send the whole file" in str(error)


def test_progressive_jpeg_cut_short() -> None:
    data = encoded(noise(40, 60), "JPEG", progressive=True)
    assert refused(data[: len(data) // 2]).reason == "truncated"


def test_pixels_are_counted_before_any_is_decoded() -> None:
    error = refused(png_header(8000, 9000))
    assert error.reason == "too-many-pixels"
    assert str(error) == (
        "the picture has 8000 x 9000 = 72,000,000 pixels, more than the limit of 55,000,000;"
        " scale it down"
    )


def test_a_bomb_that_pillow_itself_refuses() -> None:
    error = refused(png_header(100_000, 100_000))
    assert error.reason == "too-many-pixels"
    assert "more than the limit of 55,000,000" in str(error)


def test_max_pixels_is_inclusive() -> None:
    data = encoded(noise(10, 10), "PNG")
    assert decode(data, PictureLimits(max_pixels=100)).shape == (10, 10, 3)
    assert refused(data, PictureLimits(max_pixels=99)).reason == "too-many-pixels"


@pytest.mark.parametrize(
    ("size", "full"),
    [((8160, 6144), (6144, 8160)), ((12000, 9000), (4500, 6000)), ((16320, 12240), (6120, 8160))],
)
def test_a_telephone_s_largest_jpegs(size: tuple[int, int], full: tuple[int, int]) -> None:
    data = flat_jpeg(*size)
    opened = Opened(data)
    assert (opened.pixels, opened.in_process) == (size[0] * size[1], False)
    small = opened.decode(224)
    assert small.shape == (size[1] // 8, size[0] // 8, 3)
    assert (small == 128).all()
    if size == (12000, 9000):  # whole, the others take as long as this
        assert decode(data).shape == (*full, 3)


def test_a_jpeg_has_a_limit_too() -> None:
    limits = PictureLimits(max_pixels=100)
    jpeg = encoded(slope(20, 25), "JPEG")
    assert decode(jpeg, limits).shape == (5, 7, 3)
    error = refused(encoded(slope(20, 26), "JPEG"), limits)
    assert error.reason == "too-many-pixels"
    assert "20 = 520 pixels, more than the limit of a JPEG of 500" in str(error)
    assert refused(flat_jpeg(20_000, 20_000)).reason == "too-many-pixels"
    assert refused(png_header(30_000, 30_000)).reason == "too-many-pixels"
    assert refused(png_header(12_000, 9_000)).reason == "too-many-pixels"


def test_a_jpeg_over_the_limit_of_pixels_has_fewer_scans() -> None:
    data = encoded(slope(40, 60), "JPEG", progressive=True)
    assert decode(data, PictureLimits(max_pixels=600, max_scans=40)).shape == (20, 30, 3)
    error = refused(data, PictureLimits(max_pixels=600, max_scans=36))
    assert (error.reason, "more than 9 scans" in str(error)) == ("too-large", True)


def test_scans_are_counted_before_any_is_decoded() -> None:
    data = encoded(slope(40, 60), "JPEG", progressive=True)
    scans = data.count(b"\xff\xda")
    assert decode(with_more_scans(data, 50 - scans)).shape == (40, 60, 3)
    error = refused(with_more_scans(data, 51 - scans))
    assert error.reason == "too-large"
    assert "more than 50 scans" in str(error)
    few = PictureLimits(max_scans=scans)
    assert decode(data, few).shape == (40, 60, 3)
    # Neither a marker without length nor fill bytes hide any.
    for hidden in (b"\xff\x01\xff\xff", b"\xff\xff\xff"):
        end = data.rindex(b"\xff\xd9")
        assert refused(data[:end] + hidden + with_more_scans(data, 1)[end:], few)


def test_what_only_looks_like_a_scan_does_not_count() -> None:
    marks = 100 * b"\xff\xda"
    comment = encoded(slope(40, 60), "JPEG", comment=marks)
    film = encoded(slope(40, 60), "JPEG") + marks  # as phones append it
    assert decode(comment).shape == decode(film).shape == (40, 60, 3)


def test_max_bytes_is_inclusive() -> None:
    data = encoded(noise(10, 10), "PNG")
    assert decode(data, PictureLimits(max_bytes=len(data))).shape == (10, 10, 3)
    error = refused(data, PictureLimits(max_bytes=len(data) - 1))
    assert error.reason == "too-large"
    assert f"{len(data):,} bytes, more than the limit of {len(data) - 1:,}" in str(error)


@pytest.mark.parametrize(
    ("at_least", "shape"),
    [(None, (320, 480, 3)), (32, (40, 60, 3)), (41, (80, 120, 3)), (161, (320, 480, 3)),
     (1000, (320, 480, 3))],
)  # fmt: skip
def test_jpeg_decodes_at_the_smallest_scale_that_suffices(
    at_least: int | None, shape: tuple[int, int, int]
) -> None:
    data = encoded(slope(320, 480), "JPEG")
    assert decode(data, at_least=at_least).shape == shape


def test_jpeg_scaled_and_turned_keeps_the_shorter_side() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(slope(320, 480), "JPEG", exif=exif)
    assert decode(data, at_least=32).shape == (60, 40, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", get_args(Resize))
def test_a_scaled_jpeg_fits_as_the_whole_picture_does(resize: Resize, orientation: int) -> None:
    preprocess = Preprocess(16, resize=resize, crop=0.8, interpolation="bicubic")
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Neither side is a multiple of the scale: 1/8, of which 16 x 16 blocks remain, and 1/4.
    for h, w in ((323, 485), (269, 147)):
        smooth = Image.fromarray(noise(6, 9)).resize((w, h), Image.Resampling.BICUBIC)
        data = encoded(np.asarray(smooth), "JPEG", quality=95, exif=exif)
        whole = preprocess.fit(decode(data)).astype(int)
        scaled = decode(data, at_least=preprocess)
        assert scaled.shape == (16, 16, 3)
        assert np.abs(scaled - whole).max() <= 3
        assert np.abs(scaled - whole).mean() < 0.7


def test_the_scale_for_a_network_leaves_twice_its_side() -> None:
    image = open_image(encoded(slope(320, 480), "JPEG"), "JPEG", PictureLimits())
    picture = decode_image(image, Preprocess(50))
    assert picture.shape == (50, 50, 3)
    assert image.size == (240, 160)  # not (120, 80), which `at_least=50` takes


def test_png_is_never_scaled() -> None:
    assert decode(encoded(slope(320, 480), "PNG"), at_least=32).shape == (320, 480, 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_large_pictures_are_averaged_down(mode: str) -> None:
    left = Image.new("RGB", (1200, 2100), (200, 0, 0))
    picture = Image.new("RGB", (2400, 2100), (0, 0, 100))
    picture.paste(left)
    data = encoded(picture.convert(mode), "PNG")
    whole = decode(data)
    assert whole.shape == (2100, 2400, 3)
    small = decode(data, at_least=32)
    factor = 2100 // (8 * 32)
    assert small.shape == (-(-2100 // factor), 2400 // factor, 3)
    # Each half keeps its colour, on its side.
    assert np.array_equal(small[:, :140], np.broadcast_to(whole[0, 0], (263, 140, 3)))
    assert np.array_equal(small[:, -140:], np.broadcast_to(whole[0, -1], (263, 140, 3)))


def test_a_large_picture_is_turned_as_its_exif_says() -> None:
    picture = Image.new("RGB", (2400, 2000), (200, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    assert decode(buffer.getvalue()).shape == (2400, 2000, 3)
    assert decode(buffer.getvalue(), at_least=100).shape == (1200, 1000, 3)
