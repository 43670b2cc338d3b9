"""Every order of the steps of adding, deleting, snapshots, restores and sweeps keeps the bytes."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest

from index.blobs import holding
from index.blobs.folder import FolderBlobs
from index.contract import (
    BlobsBusyError,
    SnapshotBusyError,
    SnapshotExistsError,
    UnknownSnapshotError,
)
from index.local import snapshots
from index.local.catalogue import SqliteCatalogue
from index.records import Record
from index.temporaries import is_temporary
from tests.index.local.interleaving import explore, locks_give_way, stepping
from tests.index.vectors import random_vectors

XB = random_vectors(3, 4, seed=0)
CONTENTS = (b"x", b"y", b"z")
REFUSED = (BlobsBusyError, SnapshotBusyError, SnapshotExistsError, UnknownSnapshotError)


class Work:
    """What can be done to one store: `x` is indexed, `y` is in the snapshot `old` only."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.catalogue = SqliteCatalogue(root / "catalogue.sqlite")
        self.blobs = FolderBlobs(root / "pictures")

    def add(self, key: str = "x") -> None:
        with self.blobs.holding():
            name = self.blobs.put(key.encode())
            record = Record(f"key:{key}", None, None, {}, name, "added")
            self.catalogue.upsert([record], XB[:1], "m")

    def add_y(self) -> None:
        self.add("y")

    def delete(self) -> None:
        self.catalogue.delete(self.catalogue.ids())

    def create(self) -> None:
        snapshots.create(self.root, self.catalogue, "new")

    create_too = create

    def restore(self) -> None:
        snapshots.restore(self.root, self.catalogue, "old")

    restore_too = restore

    def remove(self) -> None:
        snapshots.remove(self.root, "old")

    def sweep(self) -> None:
        def needed() -> set[str]:
            return self.catalogue.content_hashes("added") | snapshots.content_hashes(self.root)

        self.blobs.sweep(needed)

    sweep_too = sweep

    def check(self, results: Mapping[str, object]) -> None:
        """Nothing failed but what may be refused, and whoever refers to bytes has them."""
        for result in results.values():
            assert result is None or isinstance(result, REFUSED), result
        made = [results[name] for name in ("create", "create_too") if name in results]
        assert made.count(None) == min(len(made), 1)
        needed = self.catalogue.content_hashes("added")
        for name in snapshots.names(self.root):
            snapshots.verify(self.root, name)
        needed |= snapshots.content_hashes(self.root)
        assert self.blobs.missing(needed) == set()
        assert ("new" in snapshots.names(self.root)) == bool(made)
        if results.get("restore", "") is None and "delete" not in results:
            assert list(self.catalogue.all_sources()) == ["key:y"]
        left = [path for path in self.root.rglob("*") if is_temporary(path.name)]
        assert left == []
        self.catalogue.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    work = Work(root)
    work.add("y")
    snapshots.create(root, work.catalogue, "old")
    work.delete()
    work.add("x")
    work.catalogue.close()
    return root


@pytest.fixture
def stepped(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(holding, "PATIENCE", 0.0)
    monkeypatch.setattr(snapshots, "_PATIENCE", 0.0)
    monkeypatch.setattr("os.fsync", lambda handle: None)
    locks_give_way(monkeypatch)
    for name in ("upsert", "delete", "restore", "backup"):
        stepping(monkeypatch, SqliteCatalogue, name)
    stepping(monkeypatch, SqliteCatalogue, "content_hashes", after=True)
    for name in ("put", "names"):
        stepping(monkeypatch, FolderBlobs, name)
    stepping(monkeypatch, FolderBlobs, "missing", after=True)
    for name in ("_locked", "remove_folder", "content_hashes"):
        stepping(monkeypatch, snapshots, name)
    return monkeypatch


def orders(template: Path, tmp_path: Path, names: tuple[str, ...], bound: int) -> int:
    """Try all orders; return how many there are."""
    numbers = itertools.count()
    opened: list[Work] = []

    def prepare() -> Mapping[str, Callable[[], object]]:
        root = tmp_path / str(next(numbers))
        shutil.copytree(template, root)
        opened.append(Work(root))
        return {name: getattr(opened[-1], name) for name in names}

    def check(results: Mapping[str, object]) -> None:
        opened[-1].check(results)
        shutil.rmtree(opened.pop().root)

    return explore(prepare, check, bound)


TOGETHER = [
    ("create", "delete", "sweep"),
    ("restore", "delete", "sweep"),
    ("restore", "remove", "sweep"),
    ("add", "delete", "sweep"),
    ("add_y", "remove", "sweep"),
    ("create", "create_too"),
    ("create", "restore", "remove"),
    ("restore", "restore_too", "sweep"),
    ("sweep", "sweep_too", "add_y"),
]


@pytest.mark.parametrize("names", [TOGETHER[3], TOGETHER[5]], ids=" ".join)
def test_whoever_refers_to_bytes_has_them(
    template: Path, tmp_path: Path, stepped: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    """All of them are in `tests.torture.index.test_bytes_protocol`."""
    assert orders(template, tmp_path, names, bound=1) > 10


@pytest.mark.parametrize("names", [TOGETHER[0], TOGETHER[3], TOGETHER[4]], ids=" ".join)
def test_without_holding_an_order_is_found_that_loses_bytes(
    template: Path, tmp_path: Path, stepped: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    stepped.setattr(FolderBlobs, "holding", lambda self: nullcontext())
    with pytest.raises(AssertionError, match="in the order"):
        orders(template, tmp_path, names, bound=1)
