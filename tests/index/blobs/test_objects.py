"""Blobs through fsspec: in memory, and in a folder."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest

from index.blobs import holding
from index.blobs.objects import ObjectBlobs
from index.contract import BlobError, BlobsBusyError, IndexInputError

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


def test_adding_again_mends(tmp_path: Path) -> None:
    blobs = ObjectBlobs(str(tmp_path))
    name = blobs.put(b"one")
    (path,) = tmp_path.glob("??/*")
    path.write_bytes(b"two")
    assert blobs.put(b"one") == name
    assert blobs.get(name) == b"one"
    assert blobs.missing({name, "sha256:00"}) == {"sha256:00"}


def test_one_machine_holds_objects_of_any_age(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "PATIENCE", 0.0)
    one, two = (
        ObjectBlobs(url, timedelta(seconds=-5), tmp_path / "pictures.lock") for _ in range(2)
    )
    name = one.put(b"one")
    with one.holding(), two.holding():
        with pytest.raises(BlobsBusyError, match="in use"):
            two.sweep(set)
        assert one.names() == [name]
    assert two.sweep(set) == 1
    assert (one.names(), one.remove_orphans()) == ([], 0)


def test_an_object_that_is_added_again_during_a_sweep_stays(url: str) -> None:
    blobs = ObjectBlobs(url, timedelta(seconds=0.2))
    name = blobs.put(b"one")
    time.sleep(0.3)  # longer than the grace period
    asked: list[None] = []

    def needed() -> set[str]:
        if asked:
            blobs.put(b"one")
        asked.append(None)
        return set()

    assert blobs.sweep(needed) == 0
    assert blobs.names() == [name]
    assert len(asked) == 2


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
