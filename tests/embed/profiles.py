"""ICC profiles for the tests, written by hand."""

from __future__ import annotations

import struct

import numpy as np

# XYZ of red, green and blue, adapted to D50, as the profiles of each have them.
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
PROPHOTO = ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249))
BT_2020 = ((0.6734, 0.2790, -0.0019), (0.1656, 0.6753, 0.0300), (0.1251, 0.0456, 0.7969))
D50 = (0.9642, 1.0, 0.8249)


def xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * value))


def srgb_curve() -> bytes:
    values = [2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045]
    return b"para\0\0\0\0\0\3\0\0" + struct.pack(">5i", *(round(65536 * value) for value in values))


def srgb_table(n: int = 1024) -> bytes:
    x = np.linspace(0, 1, n)
    y = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return b"curv\0\0\0\0" + struct.pack(f">I{n}H", n, *np.rint(65535 * y).astype(int).tolist())


def profile(
    tags: dict[bytes, bytes], space: bytes = b"RGB ", connection: bytes = b"XYZ ", version: int = 2
) -> bytes:
    tags = {
        b"desc": b"desc\0\0\0\0\0\0\0\5test\0" + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": xyz(D50),
        **tags,
    }
    table, body = struct.pack(">I", len(tags)), b""
    start = 132 + 12 * len(tags)
    for name, tag in tags.items():
        table += name + struct.pack(">II", start + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    head = struct.pack(">I4sBBH", start + len(body), b"test", version, 0x40, 0)
    head += b"prtr" if space == b"CMYK" else b"mntr"
    head += space + connection + bytes(12) + b"acsp" + bytes(28) + xyz(D50)[8:]
    return head.ljust(128, b"\0") + table + body


def matrix(primaries: tuple[tuple[float, ...], ...], curve: bytes, version: int = 2) -> bytes:
    names = (b"r", b"g", b"b")
    tags = {name + b"XYZ": xyz(values) for name, values in zip(names, primaries, strict=True)} | {
        name + b"TRC": curve for name in names
    }
    return profile(tags, version=version)


def grey(curve: bytes) -> bytes:
    return profile({b"kTRC": curve}, b"GRAY")


def cmyk(corners: dict[tuple[int, ...], tuple[float, float, float]], rest: float = 1.0) -> bytes:
    """A table of the 16 corners of CMYK to Lab; those that are not named are mixed by subtraction.

    Args:
        corners: L, a and b of some corners.
        rest: how dark what is not named becomes, at most 1.
    """
    grid = []
    for corner in np.ndindex(2, 2, 2, 2):
        lab = corners.get(corner)
        if lab is None:
            darkness = min(1.0, rest * (sum(corner[:3]) / 3 + corner[3]))
            lab = (100 * (1 - darkness), 0.0, 0.0)
        grid += [round(lab[0] / 100 * 255), round(lab[1] + 128), round(lab[2] + 128)]
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0\4\3\2\0" + struct.pack(">9i", *(65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    table += 4 * ramp + bytes(grid) + 3 * ramp
    return profile({b"A2B0": table, b"A2B1": table}, b"CMYK", b"Lab ")
