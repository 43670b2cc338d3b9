import os
import threading
from pathlib import Path

import pytest

from index.blobs.folder import FolderBlobs
from index.contract import BlobError


def test_put_and_get(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "new" / "pictures")
    name = blobs.put(b"abc")
    assert name == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert blobs.put(b"abc") == name
    assert blobs.get(name) == b"abc"
    assert blobs.names() == [name]
    assert FolderBlobs(tmp_path / "none").names() == []
    assert FolderBlobs(tmp_path / "none").sweep(set) == 0


@pytest.mark.parametrize("name", ["", "sha256:", "sha256:../../etc", "md5:" + "a" * 64, "x" * 64])
def test_invalid_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(BlobError, match="names no stored bytes"):
        FolderBlobs(tmp_path).get(name)


def test_missing_and_damaged(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    with pytest.raises(BlobError, match="No such file"):
        blobs.get("sha256:" + "a" * 64)
    name = blobs.put(b"abc")
    (path,) = tmp_path.glob("??/*")
    path.write_bytes(b"abd")
    with pytest.raises(BlobError, match="is damaged"):
        blobs.get(name)


def test_the_bytes_are_on_the_disk_before_put_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr("os.fsync", noted)
    with FolderBlobs(tmp_path / "pictures").holding():
        FolderBlobs(tmp_path / "pictures").put(b"abc")
    (path,) = tmp_path.glob("pictures/??/*")
    for each in (path, path.parent, path.parent.parent, tmp_path):
        assert each.stat().st_ino in synced, each


def test_sweep_waits_for_those_who_add(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    old, kept = blobs.put(b"old"), blobs.put(b"kept")
    needed = {kept}
    removed: list[int] = []
    sweeper = threading.Thread(target=lambda: removed.append(blobs.sweep(lambda: set(needed))))
    with blobs.holding():
        sweeper.start()
        new = blobs.put(b"new")
        assert removed == []
        needed.add(new)
    sweeper.join()
    assert removed == [1]
    assert blobs.names() == sorted([kept, new])
    with pytest.raises(BlobError):
        blobs.get(old)
