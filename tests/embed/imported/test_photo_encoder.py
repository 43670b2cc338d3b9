from __future__ import annotations

import stat
from pathlib import Path

import pytest

from embed.bundle import Bundle
from embed.imported import photo_encoder
from embed.imported.photo_encoder import photo_bundle


def test_the_bundle_is_made_once_and_is_private(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = photo_bundle(cache)
    assert folder is not None
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    bundle = Bundle.load(folder)
    assert bundle.architecture.name == "timm:tf_efficientnet_lite0"
    assert bundle.preprocess.resize == photo_encoder.RESIZE
    assert bundle.classes[281] == "tabby"
    made = (folder / "bundle.json").stat().st_mtime_ns
    assert photo_bundle(cache) == folder
    assert (folder / "bundle.json").stat().st_mtime_ns == made
    assert [path.name for path in cache.iterdir()] == [folder.name]  # nothing half-written
    (folder / "weights.safetensors").write_bytes(b"damaged")
    assert photo_bundle(cache) == folder
    assert Bundle.load(folder).digest == bundle.digest


def test_without_the_package_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_encoder, "packaged_weights", lambda network: None)
    assert photo_bundle(tmp_path / "cache") is None
    assert not (tmp_path / "cache").exists()
