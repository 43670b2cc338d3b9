"""Files that lack their last bytes: read if every pixel is there, refused otherwise."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embed.decoding.steps import ends
from embed.pictures import PictureError, PictureLimits, decode
from embed.scenes import SCENES, render
from tests.embed.helpers import encoded, noise, slope
from tests.torture.bombs import png_chunk

INPUTS = Path(__file__).parents[4] / "shared/inputs"
SCENE = Image.fromarray(render(next(iter(SCENES)), 1)).resize((240, 180))
KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "baseline": ("RGB", {}),
    "without subsampling": ("RGB", {"subsampling": 0}),
    "grey": ("L", {}),
    "CMYK": ("CMYK", {}),
    "restarts": ("RGB", {"restart_marker_blocks": 7}),
    "restarts of rows": ("RGB", {"restart_marker_rows": 1}),
    "progressive": ("RGB", {"progressive": True}),
    "grey progressive": ("L", {"progressive": True}),
}


def jpeg(kind: str) -> bytes:
    mode, options = KINDS[kind]
    return encoded(SCENE.convert(mode), "JPEG", quality=85, **options)


def refused(data: bytes, at_least: int | None = None) -> bool:
    try:
        decode(data, at_least=at_least)
    except PictureError as error:
        assert error.reason == "truncated"
        assert str(error).endswith("send the whole file")
        return True
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_every_pixel_of_a_jpeg_without_its_end_marker(kind: str) -> None:
    data = jpeg(kind)
    whole = decode(data)
    fills = (b"", b"\xff", bytes(5000), b"\xff" * 5000, b"\0\0 garbage")
    for end in fills:
        assert np.array_equal(decode(data[:-2] + end), whole)
    assert np.array_equal(decode(data[:-1]), whole)
    assert np.array_equal(decode(data[:-2], at_least=32), decode(data, at_least=32))
    assert np.array_equal(decode(data + b"garbage"), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_bytes_of_a_jpeg(kind: str) -> None:
    data = jpeg(kind)
    whole = decode(data).astype(int)
    for n in (3, 4, 6, 10):
        difference = np.abs(decode(data[:-n]).astype(int) - whole)
        assert difference.mean() < 1
        if "progressive" not in kind:
            assert not difference[:-16].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_a_jpeg_that_ends_in_the_middle(kind: str, share: float) -> None:
    data = jpeg(kind)
    cut = data[: int(len(data) * share)]
    for end in (b"", bytes(5000), b"\xff" * 5000):
        assert refused(cut + end)
    assert refused(cut, at_least=32)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "progressive" not in kind])
def test_a_baseline_jpeg_that_lacks_its_last_rows(kind: str) -> None:
    data = jpeg(kind)
    scan = data.rindex(b"\xff\xda")
    assert refused(data[: scan + int(0.85 * (len(data) - scan))])
    if "restarts" in kind:  # exactly between two restarts
        at = max(data.rindex(b"\xff" + bytes([0xD0 + n])) for n in range(8))
        at = max(data.rindex(b"\xff" + bytes([0xD0 + n]), 0, at) for n in range(8))
        assert refused(data[:at]) and refused(data[: at + 2])


def scans_of(data: bytes) -> list[int]:
    return [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]


def test_a_progressive_jpeg_that_ends_early() -> None:
    data = jpeg("progressive")
    whole = decode(data).astype(int)
    starts = scans_of(data)
    assert len(starts) == 10
    # The first five send all but the last one or two bits, the sixth the last but one.
    assert refused(data[: starts[3]]) and refused(data[: starts[5]])
    assert refused(data[: (starts[5] + starts[6]) // 2])
    for end in (starts[7], starts[8] + 5, (starts[9] + len(data)) // 2, starts[9] + 3):
        early = decode(data[:end]).astype(int)
        assert 0 < np.abs(early - whole).mean() < 3
    # In the tables before a scan.
    assert np.abs(decode(data[: starts[7] - 10]).astype(int) - whole).mean() < 3


@pytest.mark.parametrize("kind", ["baseline", "without subsampling", "grey", "restarts"])
def test_every_place_where_a_jpeg_may_end(kind: str) -> None:
    mode, options = KINDS[kind]
    y, x = np.mgrid[:48, :64]
    rough = 128 + 80 * np.sin(x / 9) + np.random.default_rng(3).normal(0, 16, x.shape)
    waves = np.dstack([rough, rough + 40 * np.cos(y / 11), 128 + 60 * np.cos(y / 7)])
    image = Image.fromarray(np.clip(waves, 0, 255).astype(np.uint8)).convert(mode)
    data = encoded(image, "JPEG", quality=92, **options)
    whole = decode(data)
    for end in range(data.index(b"\xff\xda") + 14, len(data)):
        completed = ends.completed(data[:end], "JPEG")
        if completed is None:
            continue
        picture = np.asarray(Image.open(io.BytesIO(completed)).convert("RGB"))
        differs = np.abs(picture.astype(int) - whole).max(2) > 8
        # Those of the last block's colours reach into its neighbours.
        assert not differs[:31].any() and differs.mean() <= 0.1, end


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_marker_does_not_make_half_a_jpeg_whole(kind: str) -> None:
    data = jpeg(kind)
    start = data.index(b"\xff\xda") + 14
    for share in (0.3, 0.6):
        cut = data[: start + round(share * (len(data) - start))].rstrip(b"\xff") + b"\xff\xd9"
        if "progressive" not in kind:
            assert refused(cut) and refused(cut, at_least=22) and refused(cut + b"\0\0")
    # Not even what ends in one colour: below a drawing, or all of it.
    mode, options = KINDS[kind]
    image = SCENE.convert(mode)
    image.paste(SCENE.convert(mode).getpixel((0, 0)), (0, 90, 240, 180))
    for plain in (image, image.resize((64, 64)), Image.new(mode, (40, 30))):
        for end in (b"", b"after the end"):
            decode(encoded(plain, "JPEG", quality=85, **options) + end)


def test_a_small_jpeg_has_no_block_to_spare() -> None:
    data = encoded(SCENE.resize((32, 32)), "JPEG", quality=90)
    assert np.array_equal(decode(data[:-2]), decode(data))
    assert refused(data[: len(data) - 150])


def test_a_jpeg_of_a_component_that_never_came() -> None:
    # Grey in the frame of a colour picture: the scan names one component of three.
    data = bytearray(encoded(SCENE, "JPEG", subsampling=0))
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    assert data[frame + 9] == 3
    head = struct.pack(">H", 8) + bytes([1, data[scan + 5], 0, 0, 63, 0])
    one = bytes(data[: scan + 2]) + head + bytes(data[scan + 14 : -2])
    assert refused(one)


def test_the_inputs() -> None:
    if not INPUTS.exists():
        pytest.skip(f"needs {INPUTS}")
    whole = decode((INPUTS / "whole.jpg").read_bytes())
    assert np.array_equal(decode((INPUTS / "no_end_marker.jpg").read_bytes()), whole)


def test_a_jpeg_that_other_pictures_follow_is_scaled_too() -> None:
    data = encoded(slope(320, 480), "MPO", save_all=True, append_images=[SCENE])
    assert decode(data, at_least=32).shape == (40, 60, 3)
    assert decode(data).shape == (320, 480, 3)


def test_a_png_without_its_end() -> None:
    picture = noise(40, 60)
    data = encoded(picture, "PNG")
    assert data.endswith(b"IEND\xaeB`\x82")
    # The end chunk, the checksum before it, and that of the compressed data.
    for n in (1, 12, 14, 16, 18):
        assert np.array_equal(decode(data[:-n]), picture)
    assert refused(data[:-400]) and refused(data[: len(data) // 2])


def test_a_png_with_damaged_chunks_that_are_not_needed() -> None:
    picture = noise(40, 60)
    data = encoded(picture, "PNG", dpi=(300, 300))
    at = data.index(b"pHYs")
    damaged = data[: at + 6] + b"\x99" + data[at + 7 :]
    assert np.array_equal(decode(damaged), picture)
    bad = png_chunk(b"tEXt", b"a\0b")[:-1] + b"?"
    start = data.index(b"IDAT") - 4
    assert np.array_equal(decode(data[:start] + bad + data[start:]), picture)
    critical = data.index(b"IHDR")
    with pytest.raises(PictureError):
        decode(data[: critical + 4] + b"\0\0\1" + data[critical + 7 :])


def test_a_gif_without_its_end() -> None:
    picture = SCENE.quantize(64)
    data = encoded(picture, "GIF")
    assert np.array_equal(decode(data[:-1]), decode(data))
    assert refused(data[: len(data) * 3 // 4])


def test_a_bmp_without_its_last_bytes() -> None:
    picture = noise(60, 39)  # rows are padded by three bytes
    data = encoded(picture, "BMP")
    assert np.array_equal(decode(data[:-3]), picture)
    assert np.array_equal(decode(data[:-30])[1:], picture[1:])
    assert refused(data[:-130]) and refused(data[: len(data) // 2])


@pytest.mark.parametrize("form", ["WEBP", "TIFF"])
def test_others_are_refused(form: str) -> None:
    assert refused(encoded(noise(40, 60), form)[:-40])


@pytest.mark.parametrize("marker", [b"\xff\xc4\0\2", b"\xff\1"])
def test_a_cut_file_of_very_many_segments(marker: bytes) -> None:
    data = jpeg("progressive")[:-2] + marker * 100_000
    assert refused(data)
    with pytest.raises(PictureError):
        decode(data + b"\xff\xda\0\2" * 60)
    seen = []
    with pytest.raises(ValueError, match="more than 8,192 segments"):
        seen.extend(ends.segments(data))
    assert len(seen) <= 8192


def test_a_cut_bomb_costs_what_is_allowed() -> None:
    data = encoded(Image.new("L", (4000, 4000)), "JPEG", progressive=True)[:-2]
    with pytest.raises(PictureError) as caught:
        decode(data, PictureLimits(max_memory=16 * 2**20))
    assert caught.value.reason == "too-costly"
