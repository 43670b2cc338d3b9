"""Folders for tests."""

from __future__ import annotations

from pathlib import Path

from embed.pictures import encode_png
from tests.embed.helpers import noise

PICTURE = encode_png(noise(8, 8))


def put(root: Path, *names: str, data: bytes = PICTURE) -> None:
    """Write ``data`` into files with these names below ``root``."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
