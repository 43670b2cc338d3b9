from __future__ import annotations

import struct

import pytest
from PIL import Image

from embed.decoding.headers import plain
from embed.decoding.headers.measured import UnreadableError
from tests.embed.boxed import icon
from tests.embed.helpers import encoded, noise, png_header


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"P6 60 40 255\n", (60, 40)),
        (b"P4\n60 40\n", (60, 40)),
        (b"P5\n# made by hand\n60\n#again\r40\n65535\n", (60, 40)),
        (b"P1#c\n60\t40 ", (60, 40)),
        (b"P3\r\n60\r\n40\r\n255", (60, 40)),
        (b"Pf 60 40 -1.0\n", (60, 40)),
        (b"P6 100000 100000 255\n", (100_000, 100_000)),
        (b"P6 9999999999 1 255\n", (9_999_999_999, 1)),
    ],
)
def test_pnm(data: bytes, size: tuple[int, int]) -> None:
    assert plain.is_pnm(data)
    found = plain.pnm(data)
    assert (found.width, found.height) == size
    assert found.memory == size[0] * size[1] * 8


@pytest.mark.parametrize("data", [b"P6 -5 40 255", b"P6 60", b"P6 60 x", b"P6 99999999999 1 1"])
def test_a_pnm_without_a_size(data: bytes) -> None:
    with pytest.raises(UnreadableError):
        plain.pnm(data)


@pytest.mark.parametrize("data", [b"P7 332", b"P6", b"P60 40", b"PK\3\4", b"Polaris", b"P8 1 1"])
def test_what_is_no_pnm(data: bytes) -> None:
    assert not plain.is_pnm(data)


def test_a_long_comment_takes_no_time() -> None:
    with pytest.raises(UnreadableError):
        plain.pnm(b"P6 " + b"#\n" * 200_000 + b"#" * 200_000)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_dib(mode: str) -> None:
    data = encoded(Image.fromarray(noise(40, 60)).convert(mode), "DIB")
    assert plain.is_dib(data)
    assert (plain.dib(data).width, plain.dib(data).height) == (60, 40)
    upside_down = data[:8] + struct.pack("<i", -40) + data[12:]
    assert plain.dib(upside_down).height == 40


@pytest.mark.parametrize(
    "data", [b"(\0\0\0", b"(\0\0\0" + bytes(60), b"\x0c\0\0\0" + bytes(60), b"(" + b"\1" * 60]
)
def test_what_is_no_dib(data: bytes) -> None:
    assert not plain.is_dib(data)


def test_an_icon_has_the_size_of_its_largest_picture() -> None:
    data = encoded(Image.new("RGB", (256, 256)), "ICO", sizes=[(16, 16), (256, 256), (48, 48)])
    assert plain.is_icon(data)
    found = plain.icon(data)
    assert (found.width, found.height, found.memory) == (256, 256, 256 * 256 * 24)


def test_an_icons_directory_is_not_believed() -> None:
    bomb = plain.icon(icon([(16, 16, png_header(100_000, 100_000)), (32, 32, png_header(32, 32))]))
    assert (bomb.width, bomb.height) == (100_000, 100_000)
    bitmap = struct.pack("<IiiHH", 40, 5000, 2 * 4000, 1, 32) + bytes(24)
    found = plain.icon(icon([(16, 16, bitmap)]))
    assert (found.width, found.height) == (5000, 4000)


def test_icons_that_lie_outside_the_file() -> None:
    data = icon([(16, 16, png_header(16, 16))])
    assert not plain.is_icon(data[:18] + struct.pack("<I", 10**6) + data[22:])
    assert not plain.is_icon(b"\0\0\1\0" + bytes(60))
    empty = data[:4] + b"\0\0" + data[6:]
    with pytest.raises(UnreadableError):
        plain.icon(empty)
    many = data[:4] + struct.pack("<H", 60_000) + data[6:]
    assert plain.icon(many).excess == "60,000 icons"
