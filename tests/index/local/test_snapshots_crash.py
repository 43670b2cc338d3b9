import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from index.blobs.folder import FolderBlobs
from index.contract import SnapshotExistsError
from index.local import snapshots
from index.local.catalogue import SqliteCatalogue
from index.records import Record
from index.temporaries import is_temporary, remove_orphans
from tests.index.vectors import random_vectors


class Killed(BaseException):
    """Simulates the end of the process."""


@contextmanager
def killed_before(step: int) -> Iterator[None]:
    """Kill before the step-th call that changes the disk, without any clean-up."""
    calls = itertools.count()

    def killer(patch: pytest.MonkeyPatch, name: str, original: Callable[..., object]) -> None:
        def call(*args: object, **kwargs: object) -> object:
            if next(calls) >= step:
                raise Killed
            return original(*args, **kwargs)

        patch.setattr(name, call)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "replace", "fsync", "mkdir", "unlink"):
            killer(patch, f"os.{name}", getattr(os, name))
        killer(patch, "shutil.rmtree", shutil.rmtree)
        yield


def left(root: Path) -> list[str]:
    return [path.name for path in (root / "snapshots").rglob("*") if is_temporary(path.name)]


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[SqliteCatalogue]:
    with SqliteCatalogue(tmp_path / "catalogue.sqlite") as opened:
        name = FolderBlobs(tmp_path / "pictures").put(b"x")
        record = Record("key:x", None, None, {}, name, "added")
        opened.upsert([record], random_vectors(1, 8, seed=0), "m")
        yield opened


def test_killed_at_any_step_it_is_whole_or_not_there(
    catalogue: SqliteCatalogue, tmp_path: Path
) -> None:
    for step in itertools.count():
        try:
            with killed_before(step):
                snapshots.create(tmp_path, catalogue, "a")
            finished = True
        except Killed:
            finished = False
        whole = snapshots.names(tmp_path) == ["a"]
        assert whole or not finished
        remove_orphans(tmp_path / "snapshots")
        assert left(tmp_path) == []
        if whole:
            with pytest.raises(SnapshotExistsError, match="of 1 pictures"):
                snapshots.create(tmp_path, catalogue, "a")
        else:
            snapshots.create(tmp_path, catalogue, "a")
        assert snapshots.verify(tmp_path, "a").count == 1
        snapshots.remove(tmp_path, "a")
        if finished:
            break
    assert step > 8


def test_killed_at_any_step_of_deleting_it(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    for step in itertools.count():
        snapshots.create(tmp_path, catalogue, "a")
        try:
            with killed_before(step):
                snapshots.remove(tmp_path, "a")
            finished = True
        except Killed:
            finished = False
        remove_orphans(tmp_path / "snapshots")
        assert left(tmp_path) == []
        if snapshots.names(tmp_path):
            assert not finished
            assert snapshots.verify(tmp_path, "a").count == 1
            snapshots.remove(tmp_path, "a")
        if finished:
            break
    assert step > 2


def test_everything_is_on_disk_before_it_is_named(
    catalogue: SqliteCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, int]] = []
    fsync, rename = os.fsync, os.rename

    def synced(handle: int) -> None:
        events.append(("fsync", os.fstat(handle).st_ino))
        fsync(handle)

    def renamed(source: Path, target: Path) -> None:
        rename(source, target)
        events.append(("rename", target.stat().st_ino))

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("os.rename", renamed)
    snapshots.create(tmp_path, catalogue, "a")
    monkeypatch.undo()
    folder = tmp_path / "snapshots" / "a"
    named = events.index(("rename", folder.stat().st_ino))
    for path in (folder / "catalogue.sqlite", folder / "snapshot.json", folder, tmp_path):
        assert ("fsync", path.stat().st_ino) in events[:named], path
    assert ("fsync", folder.parent.stat().st_ino) in events[named:]
