from __future__ import annotations

import struct

import pytest
from PIL import Image

from embed.decoding.headers import coded_size
from embed.decoding.headers.heif import avif, form, heif
from embed.decoding.headers.measured import UnreadableError
from tests.embed.boxed import box, full, grid, with_ispe
from tests.embed.helpers import encoded, noise, slope

READERS = {"HEIF": heif, "AVIF": avif}


def brands(major: bytes, *others: bytes, more: bytes = b"") -> bytes:
    return box(b"ftyp", major, bytes(4), *others) + more


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (brands(b"heic", b"mif1", b"heic"), "HEIF"),
        (brands(b"heix"), "HEIF"),
        (brands(b"hevc", b"msf1"), "HEIF"),
        (brands(b"avif", b"mif1", b"miaf"), "AVIF"),
        (brands(b"avis", b"avif"), "AVIF"),
        (brands(b"mif1", b"heic"), "HEIF"),
        (brands(b"mif1", b"miaf", b"avif"), "AVIF"),
        (brands(b"mif1", b"miaf"), "HEIF"),
        (brands(b"mif1", b"miaf", more=b"....infe....av01"), "AVIF"),
        (brands(b"isom", b"mp42", b"avif"), None),
        (brands(b"qt  "), None),
        (brands(b"crx ", b"heic"), None),
        (b"", None),
        (b"\0\0\0\x10ftyp", None),
    ],
)
def test_the_brand_says_which_it_is(data: bytes, expected: str | None) -> None:
    assert form(data) == expected


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(("high", "wide"), [(64, 128), (200, 320)])
def test_size_and_memory(kind: str, high: int, wide: int) -> None:
    found = READERS[kind](encoded(noise(high, wide), kind))
    assert (found.width, found.height, found.excess) == (wide, high, "")
    assert found.memory == wide * high * {"HEIF": 12, "AVIF": 16}[kind]


@pytest.mark.parametrize("kind", READERS)
def test_an_alpha_plane_costs_more(kind: str) -> None:
    picture = Image.fromarray(slope(64, 128)).convert("RGBA")
    picture.putalpha(100)
    more = {"HEIF": 16, "AVIF": 20}[kind]
    assert READERS[kind](encoded(picture, kind)).memory == 64 * 128 * more


def test_a_grid_costs_its_canvas_and_its_largest_tile() -> None:
    data = encoded(noise(256, 384), "HEIF", tile_size=128)
    assert data.count(b"infe") >= 7
    found = heif(data)
    assert (found.width, found.height, found.excess) == (384, 256, "")
    assert found.memory == 384 * 256 * 12 + 128 * 128 * 8


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("claimed", [(100_000, 100_000), (1, 1), (70, 50)])
def test_the_larger_of_the_boxes_size_and_the_codecs_counts(
    kind: str, claimed: tuple[int, int]
) -> None:
    data = encoded(Image.new("RGB", (2048, 1024)), kind)
    found = READERS[kind](with_ispe(data, *claimed))
    expected = claimed if claimed[0] > 2048 else (2048, 1024)
    assert (found.width, found.height) == expected


@pytest.mark.parametrize("coding", [b"hvc1", b"av01"])
def test_grids_of_far_too_much(coding: bytes) -> None:
    kind = {b"hvc1": "HEIF", b"av01": "AVIF"}[coding]

    def excess(*args: object) -> str:
        data = grid(*args, coding)  # type: ignore[arg-type]
        assert form(data) == kind
        return READERS[kind](data).excess

    assert excess(4096, 4096, (512, 512), 64) == ""
    assert excess(4096, 4096, (512, 512), 1000) == (
        "tiles of 262,144,000 pixels for a picture of 16,777,216"
    )
    assert excess(4096, 4096, (64, 64), 4096) == "more than 1,000 tiles"
    assert excess(64, 64, (8192, 8192), 1) == ("tiles of 67,108,864 pixels for a picture of 4,096")


def test_a_grid_states_its_own_size() -> None:
    data = grid(100_000, 100_000, (64, 64), 1)
    lying = data.replace(
        full(b"ispe", struct.pack(">II", 100_000, 100_000)), full(b"ispe", struct.pack(">II", 8, 8))
    )
    assert lying != data
    assert (heif(lying).width, heif(lying).height) == (100_000, 100_000)


def test_a_picture_that_is_a_tile_of_itself() -> None:
    data = grid(64, 64, (64, 64), 3)
    circle = data.replace(
        struct.pack(">HHHHH", 1, 3, 2, 2, 2), struct.pack(">HHHHH", 1, 3, 1, 1, 1)
    )
    assert circle != data
    with pytest.raises(UnreadableError):
        heif(circle)


def test_what_is_cut_or_damaged_is_unreadable() -> None:
    data = encoded(noise(64, 128), "HEIF")
    at = data.index(b"mdat")
    for end in range(30, at, 7):
        with pytest.raises((UnreadableError, struct.error, IndexError)):
            found = heif(data[:end])
            assert found.pixels == 64 * 128
            raise UnreadableError
    with pytest.raises(UnreadableError):
        heif(box(b"ftyp", b"heic", bytes(4)))
    with pytest.raises(UnreadableError):
        heif(struct.pack(">I4s", 4, b"meta") * 3)


def test_a_sequence_without_a_still_picture() -> None:
    entry = box(b"av01", bytes(24), struct.pack(">HH", 6000, 4000), bytes(50))
    table = full(b"stsd", struct.pack(">I", 1), entry)
    movie = box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", table)))))
    found = avif(box(b"ftyp", b"avis", bytes(4)) + movie)
    assert (found.width, found.height) == (6000, 4000)
    assert found.memory == 6000 * 4000 * 20


@pytest.mark.parametrize("size", [(2048, 1024), (64, 64), (120, 4000)])
def test_the_codecs_own_sizes(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size)
    data = encoded(picture, "AVIF")
    units = data[data.index(b"mdat") + 4 :]
    assert coded_size.av1(b"\x81\0\0\0", units) == size
    assert coded_size.av1(b"\x81\0\0\0" + units[:40], b"") == size
    data = encoded(picture, "HEIF")
    at = data.index(b"hvcC") + 4
    wide, high = coded_size.hevc(data[at:], b"")
    assert 0 <= wide - size[0] < 64 and 0 <= high - size[1] < 64


def test_a_parameter_set_in_the_data_counts_too() -> None:
    data = encoded(Image.new("RGB", (2048, 1024)), "HEIF")
    at = data.index(b"hvcC") + 4
    (unit,) = [u for u in coded_size._configured(data[at:]) if u[0] >> 1 & 0x3F == 33]
    empty = data[at : at + 21] + b"\3\0"
    assert coded_size.hevc(empty, b"") == (0, 0)
    assert coded_size.hevc(empty, struct.pack(">I", len(unit)) + unit) == (2048, 1024)
