"""HEIC, AVIF, JPEG 2000 and icon files put together to claim what none would write."""

from __future__ import annotations

import struct


def box(kind: bytes, *bodies: bytes) -> bytes:
    body = b"".join(bodies)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, *bodies: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *bodies)


def item(number: int, kind: bytes) -> bytes:
    return full(b"infe", struct.pack(">HH4s", number, 0, kind), b"\0", version=2)


def ispe(width: int, height: int) -> bytes:
    return full(b"ispe", struct.pack(">II", width, height))


def grid(
    width: int, height: int, tile: tuple[int, int], tiles: int, coding: bytes = b"hvc1"
) -> bytes:
    """A grid whose ``tiles`` all are the same item, without the data of that.

    The boxes claim ``width`` x ``height`` for the grid and ``tile`` for the item.
    """
    payload = struct.pack(">BBBBII", 0, 1, 255, 255, width, height)
    references = struct.pack(f">HH{tiles}H", 1, tiles, *[2] * tiles)
    owned = struct.pack(">I", 2) + struct.pack(">HBB", 1, 1, 1) + struct.pack(">HBB", 2, 1, 2)
    places = struct.pack(">HH", 0x4400, 2)
    places += struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(payload))
    places += struct.pack(">HHHHII", 2, 0, 0, 1, 0, 0)
    brand = b"avif" if coding == b"av01" else b"heic"
    return box(b"ftyp", brand, bytes(4), b"mif1", brand) + full(
        b"meta",
        full(b"hdlr", bytes(4), b"pict", bytes(13)),
        full(b"pitm", struct.pack(">H", 1)),
        full(b"iinf", struct.pack(">H", 2), item(1, b"grid"), item(2, coding)),
        full(b"iref", box(b"dimg", references)),
        box(
            b"iprp",
            box(b"ipco", ispe(width, height), ispe(*tile)),
            full(b"ipma", owned),
        ),
        full(b"iloc", places, version=1),
        box(b"idat", payload),
    )


def with_ispe(data: bytes, width: int, height: int) -> bytes:
    """An HEIC or AVIF whose boxes claim another size; its coded data stays."""
    changed, at = bytearray(data), 0
    while (at := data.find(b"ispe", at)) >= 0:
        at += 8
        changed[at : at + 8] = struct.pack(">II", width, height)
    return bytes(changed)


def siz(
    width: int, height: int, tile: tuple[int, int] = (0, 0), components: int = 3, offset: int = 0
) -> bytes:
    """The start of a JPEG 2000 codestream."""
    wide, high = tile if any(tile) else (width, height)
    sizes = struct.pack(">8IH", width + offset, height + offset, offset, offset, wide, high, 0, 0,
                        components)  # fmt: skip
    body = struct.pack(">H", 0) + sizes + b"\7\1\1" * components
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(body) + 2) + body


def icon(entries: list[tuple[int, int, bytes]]) -> bytes:
    """An icon of pictures, each with the sides that the directory claims."""
    head = struct.pack("<HHH", 0, 1, len(entries))
    at = 6 + 16 * len(entries)
    bodies = b""
    for wide, high, body in entries:
        head += struct.pack("<BBBBHHII", wide, high, 0, 0, 1, 32, len(body), at + len(bodies))
        bodies += body
    return head + bodies
