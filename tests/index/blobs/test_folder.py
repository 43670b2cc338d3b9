import os
import threading
from pathlib import Path

import pytest

from index.blobs import holding
from index.blobs.folder import FolderBlobs
from index.contract import BlobError, BlobsBusyError
from index.temporaries import temporary_file


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


def test_adding_again_mends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blobs = FolderBlobs(tmp_path)
    name = blobs.put(b"abc")
    (path,) = tmp_path.glob("??/*")
    before = path.stat().st_ino
    assert blobs.put(b"abc") == name
    assert path.stat().st_ino == before  # nothing is written if nothing is wrong
    for damaged in (b"abd", b"ab", b""):
        path.write_bytes(damaged)
        assert blobs.put(b"abc") == name
        assert blobs.get(name) == b"abc"
        assert "was damaged and is replaced" in caplog.text
    path.unlink()
    assert blobs.missing({name, "sha256:00"}) == {name, "sha256:00"}
    assert blobs.put(b"abc") == name
    assert blobs.missing({name, "sha256:00"}) == {"sha256:00"}


def test_bytes_that_others_have_just_written_are_durable_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = FolderBlobs(tmp_path)
    blobs.put(b"abc")
    (path,) = tmp_path.glob("??/*")
    synced: set[int] = set()
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr("os.fsync", noted)
    blobs.put(b"abc")
    assert {path.parent.stat().st_ino, tmp_path.stat().st_ino} <= synced


def test_a_sweep_holds_the_lock_only_if_something_is_unused(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    name = blobs.put(b"abc")
    with blobs.holding(), blobs.holding():
        assert blobs.sweep(lambda: {name}) == 0


def test_what_becomes_needed_before_the_lock_is_held_stays(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    name, other = blobs.put(b"abc"), blobs.put(b"other")
    answers = [set(), {name}]
    assert blobs.sweep(lambda: answers.pop(0)) == 1
    assert blobs.names() == [name]
    assert blobs.missing({other}) == {other}


def test_those_who_hold_bytes_go_before_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = FolderBlobs(tmp_path)
    name = blobs.put(b"abc")
    polls: list[float] = []

    def another_holder(seconds: float) -> None:
        polls.append(seconds)
        # A sweep that waits does not keep others from adding.
        with blobs.holding():
            blobs.put(b"new")

    monkeypatch.setattr(holding, "PATIENCE", 0.01)
    monkeypatch.setattr("time.sleep", another_holder)
    with blobs.holding(), pytest.raises(BlobsBusyError, match="try again later"):
        blobs.sweep(set)
    assert polls
    assert name in blobs.names()


def test_only_leftovers_of_the_dead_are_removed(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    blobs.put(b"abc")
    (path,) = tmp_path.glob("??/*")
    (path.parent / f".{path.name}.1-2.tmp").write_bytes(b"half")
    with temporary_file(path):
        assert blobs.remove_orphans() == 1
        assert len(list(path.parent.iterdir())) == 2
    assert list(path.parent.iterdir()) == [path]
    assert FolderBlobs(tmp_path / "none").remove_orphans() == 0
