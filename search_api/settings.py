"""How an instance is set up: places, address and limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from embed.bundle import PRETRAINED
from embed.pictures import PictureLimits


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        picture: bounds of each uploaded picture.
        max_body_bytes: largest request body, bytes; enforced while it is being read.
        max_images: most pictures in one ``/v1/classify``.
        max_limit: largest ``limit``.
        max_offset: largest ``offset``.
        fold_least: changes since the index was built below which it is never rebuilt by itself.
        fold_share: changes, as a share of the index, at which it is rebuilt by itself.
    """

    picture: PictureLimits = field(default_factory=PictureLimits)
    max_body_bytes: int = 64 * 2**20
    max_images: int = 256
    max_limit: int = 1000
    max_offset: int = 10_000
    fold_least: int = 2_000
    fold_share: float = 0.05


@dataclass(frozen=True)
class Settings:
    """One instance of the service.

    Attributes:
        data: corpus root, or None to look for CIFAR-10.
        var: folder of the catalogue and the index.
        bundle: folder of the trained model.
        host: address to listen on.
        port: TCP port to listen on.
        limits: what one request may ask for.
    """

    data: Path | None = None
    var: Path = Path("var")
    bundle: Path = PRETRAINED
    host: str = "127.0.0.1"
    port: int = 8000
    limits: Limits = field(default_factory=Limits)
