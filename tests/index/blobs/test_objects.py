"""Blobs through fsspec: in memory, and in a folder."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from index.blobs.objects import ObjectBlobs
from index.contract import BlobError, IndexInputError

pytest.importorskip("fsspec")


@pytest.fixture(params=["memory", "folder"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/deep"


def test_put_and_get(url: str) -> None:
    blobs = ObjectBlobs(url)
    assert blobs.names() == []
    with blobs.holding():
        name = blobs.put(b"one")
    assert name == "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert blobs.put(b"one") == name
    assert ObjectBlobs(url).get(name) == b"one"
    assert blobs.names() == [name]


@pytest.mark.parametrize("name", ["x", "sha256:../../etc/passwd", "sha256:" + "0" * 64])
def test_what_is_not_there(url: str, name: str) -> None:
    with pytest.raises(BlobError):
        ObjectBlobs(url).get(name)


def test_damage_is_found(tmp_path: Path) -> None:
    blobs = ObjectBlobs(str(tmp_path))
    name = blobs.put(b"one")
    (path,) = tmp_path.glob("??/*")
    path.write_bytes(b"two")
    with pytest.raises(BlobError, match="is damaged"):
        blobs.get(name)


def test_sweep_spares_what_is_needed_and_what_is_new(url: str) -> None:
    blobs = ObjectBlobs(url)
    kept, other = blobs.put(b"one"), blobs.put(b"two")
    assert blobs.sweep(lambda: {kept}) == 0
    assert blobs.names() == sorted([kept, other])
    assert ObjectBlobs(url, grace=timedelta(seconds=-5)).sweep(lambda: {kept}) == 1
    assert blobs.names() == [kept]


def test_folders_go_there_and_back(url: str, tmp_path: Path) -> None:
    source = tmp_path / "bundle"
    source.mkdir()
    (source / "a.json").write_bytes(b"{}")
    (source / ".hidden").write_bytes(b"x")
    blobs = ObjectBlobs(url)
    assert not blobs.download("models/1", tmp_path / "got")
    blobs.upload(source, "models/1")
    assert blobs.download("models/1", tmp_path / "got")
    assert {p.name: p.read_bytes() for p in (tmp_path / "got").iterdir()} == {"a.json": b"{}"}
    assert blobs.names() == []


def test_an_unknown_protocol() -> None:
    with pytest.raises(IndexInputError, match="nonsense"):
        ObjectBlobs("nonsense://x")
