from __future__ import annotations

import struct

import pytest
from PIL import Image

from embed.decoding.headers.jpeg2000 import read
from embed.decoding.headers.measured import UnreadableError
from tests.embed.boxed import siz
from tests.embed.helpers import encoded, noise


@pytest.mark.parametrize("boxed", [True, False])
@pytest.mark.parametrize(
    ("mode", "components"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4), ("I;16", 1)]
)
def test_a_tile_costs_its_components(boxed: bool, mode: str, components: int) -> None:
    picture = Image.new(mode, (60, 40))
    found = read(encoded(picture, "JPEG2000", no_jp2=not boxed))
    assert (found.width, found.height, found.excess) == (60, 40, "")
    tiles = 8192 * (1 + components // 4)
    assert found.memory == 2400 * 8 + 2400 * 6 * components + tiles


def test_tiles_are_decoded_one_at_a_time() -> None:
    found = read(encoded(noise(256, 512), "JPEG2000", tile_size=(128, 128)))
    assert found.memory == 256 * 512 * 8 + 128 * 128 * 18 + 8 * 8192


def test_the_size_is_that_of_the_area_within_the_grid() -> None:
    assert (read(siz(30, 20, offset=100)).width, read(siz(30, 20, offset=100)).height) == (30, 20)


def test_the_larger_of_the_boxes_size_and_the_codestreams_counts() -> None:
    data = encoded(noise(40, 60), "JPEG2000")
    at = data.index(b"ihdr") + 4
    assert struct.unpack_from(">II", data, at) == (40, 60)
    larger = data[:at] + struct.pack(">II", 50_000, 60_000) + data[at + 8 :]
    assert (read(larger).width, read(larger).height) == (60_000, 50_000)
    assert read(larger).memory > 8 * 50_000 * 60_000
    smaller = data[:at] + struct.pack(">II", 1, 1) + data[at + 8 :]
    assert read(smaller) == read(data)


@pytest.mark.parametrize(
    ("data", "excess"),
    [
        (siz(60, 40, components=16_384), "16,384 components"),
        (siz(1000, 1000, (1, 1)), "1,000,000 tiles"),
        (siz(60, 40, components=4), ""),
        (siz(60, 40, (1, 40)), ""),
    ],
)
def test_far_too_much(data: bytes, excess: str) -> None:
    assert read(data).excess == excess


@pytest.mark.parametrize(
    "data", [siz(0, 40), siz(60, 40, (0, 1)), encoded(noise(9, 9), "JPEG2000")[:90]]
)
def test_unreadable(data: bytes) -> None:
    with pytest.raises((UnreadableError, struct.error)):
        read(data)
