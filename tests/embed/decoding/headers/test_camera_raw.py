from __future__ import annotations

import struct

import pytest

from embed.decoding.headers.camera_raw import named
from tests.embed.helpers import encoded, noise, rgb_tags, tiff

SENSOR, LINEAR = 32803, 34892


def raw(make: str = "", photometric: int = SENSOR, below: bool = True, dng: bool = False) -> bytes:
    """A TIFF with a thumbnail, and what a sensor recorded below it or in its place."""
    tags = rgb_tags(8, 8, 1)
    if make:
        tags[271] = (2, make.encode() + b"\0")
    if dng:
        tags[50706] = (1, [1, 4, 0, 0])
    if not below:
        return tiff(tags | {262: (3, [photometric])}, [bytes(192)])
    data = tiff(tags | {330: (4, [0])}, [bytes(192)])
    at = len(data) + len(data) % 2
    data = data.replace(struct.pack("<HHII", 330, 4, 1, 0), struct.pack("<HHII", 330, 4, 1, at))
    sub = struct.pack("<H", 1) + struct.pack("<HHIHH", 262, 3, 1, photometric, 0) + bytes(4)
    return data.ljust(at, b"\0") + sub


CR2 = b"II*\0\x10\0\0\0CR\x02\0" + bytes(40)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (CR2, "Canon CR2"),
        (raw("NIKON CORPORATION"), "Nikon NEF"),
        (raw("Sony"), "Sony ARW"),
        (raw("PENTAX", below=False), "Pentax PEF"),
        (raw("SAMSUNG"), "Samsung SRW"),
        (raw("Somebody", LINEAR), ""),
        (raw(), ""),
        (raw(photometric=2, dng=True), "DNG"),
        (raw("Apple", SENSOR, dng=True), "DNG"),
        (b"IIRS\x08\0\0\0" + bytes(40), "Olympus ORF"),
        (b"IIU\0\x18\0\0\0" + bytes(40), "Panasonic RW2"),
        (b"FUJIFILMCCD-RAW 0201", "Fujifilm RAF"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "Canon CR3"),
        (b"II*\0\x08\0\0\0IIIITwaR", "Phase One IIQ"),
        (b"FOVb" + bytes(40), "Sigma X3F"),
    ],
)
def test_camera_raw_is_named(data: bytes, expected: str) -> None:
    assert named(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        raw("NIKON CORPORATION", photometric=2),  # what its scanner or its own program exports
        raw("Canon", photometric=6),
        encoded(noise(8, 8), "TIFF"),
        encoded(noise(8, 8), "JPEG"),
        # Pixels, where those of a CR2 or an IIQ have their mark.
        tiff(rgb_tags(8, 8, 1), [b"CR\2" + bytes(189)]),
        b"II*\0\x20\1\0\0CR\2\0" + bytes(400),
        b"II*\0\x20\1\0\0IIIIIIII" + bytes(400),
        CR2[:6],
        raw("Nikon")[:60],
        b"",
    ],
)
def test_ordinary_pictures_are_not(data: bytes) -> None:
    assert named(data) is None


def test_directories_in_a_circle_end() -> None:
    data = bytearray(raw("Nikon", photometric=2))
    (count,) = struct.unpack_from("<H", data, 8)
    struct.pack_into("<I", data, 10 + 12 * count, 8)
    assert named(bytes(data)) is None


def test_a_sensor_in_a_later_directory_counts() -> None:
    data = bytearray(raw("Nikon", photometric=2))
    (count,) = struct.unpack_from("<H", data, 8)
    struct.pack_into("<I", data, 10 + 12 * count, len(data))
    data += struct.pack("<H", 1) + struct.pack("<HHIHH", 262, 3, 1, SENSOR, 0) + bytes(4)
    assert named(bytes(data)) == "Nikon NEF"
