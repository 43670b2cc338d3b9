import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from index.blobs import holding
from index.blobs.folder import FolderBlobs
from index.contract import (
    BlobsBusyError,
    CatalogueError,
    IndexInputError,
    SnapshotBusyError,
    SnapshotCorruptError,
    SnapshotExistsError,
    SnapshotIncompleteError,
    SnapshotModelError,
    UnknownSnapshotError,
)
from index.local import snapshots
from index.local.catalogue import SqliteCatalogue
from index.records import Record
from index.temporaries import remove_orphans
from tests.index.vectors import random_vectors

X = f"sha256:{hashlib.sha256(b'x').hexdigest()}"
XB = random_vectors(20, 8, seed=0)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[SqliteCatalogue]:
    with SqliteCatalogue(tmp_path / "catalogue.sqlite") as opened:
        records = [Record(f"{i}", "train", "ab"[i % 2], {"n": i}) for i in range(6)]
        opened.upsert(records, XB[:6], "m")
        name = FolderBlobs(tmp_path / "pictures").put(b"x")
        opened.upsert([Record("key:x", None, "z", {}, name, "added")], XB[6:7], "m")
        yield opened


def content(catalogue: SqliteCatalogue) -> tuple[object, ...]:
    ids, xb = catalogue.embeddings("m")
    return catalogue.get(ids), xb.tobytes(), catalogue.tombstones()


def test_restoring_brings_back_exactly_what_was(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    catalogue.delete([6], tombstone=True)
    before = content(catalogue)
    made = snapshots.create(tmp_path, catalogue, "monday")
    assert (made.count, made.model_digest, made.sequence) == (6, "m", catalogue.sequence())
    assert snapshots.names(tmp_path) == ["monday"]
    assert snapshots.content_hashes(tmp_path) == {X}

    seen = catalogue.moment()
    catalogue.delete([1, 7], tombstone=True)
    catalogue.update([2], label="new", payload={"more": 1}, by_hand=True)
    catalogue.embed([3], XB[10:11], "m", ["pixels:1"])
    new = catalogue.upsert([Record("new"), Record("5")], XB[11:13], "m")
    later = catalogue.moment()
    snapshot, changed, deleted = snapshots.restore(tmp_path, catalogue, "monday")
    assert snapshot == made
    assert (changed, deleted) == (4, 2)
    assert content(catalogue) == before
    assert catalogue.check() is None

    # Readers of the changes arrive at the same state.
    for since in (seen, later):
        changes = catalogue.changes(since, "m")
        assert {1, 3, 7} <= set(changes.ids.tolist())
        assert set(new) & set(changes.deleted.tolist())
    assert catalogue.changes(later, "m").ids.tolist() == [1, 3, 7]
    assert catalogue.upsert([Record("never used again")], XB[:1], "m")[0] > max(new)


def test_restoring_twice_changes_nothing(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    snapshots.create(tmp_path, catalogue, "a")
    before = content(catalogue)
    assert snapshots.restore(tmp_path, catalogue, "a")[1:] == (0, 0)
    assert content(catalogue) == before
    assert len(catalogue.changes(catalogue.moment()._replace(sequence=0), "m").ids) == 7


def test_sources_that_moved_between_ids(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    snapshots.create(tmp_path, catalogue, "a")
    before = content(catalogue)
    catalogue.delete([1, 2])
    assert catalogue.upsert([Record("1"), Record("0")], XB[:2], "m") == [8, 9]
    snapshots.restore(tmp_path, catalogue, "a")
    assert content(catalogue) == before


def test_another_models_snapshot_is_refused(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    snapshots.create(tmp_path, catalogue, "old")
    catalogue.staging.add(catalogue.ids(), XB[:7], "other")
    catalogue.staging.promote("other")
    with pytest.raises(SnapshotModelError, match="with the model m, the store has other"):
        snapshots.restore(tmp_path, catalogue, "old")
    assert catalogue.model_digests() == {"other": 7}
    # Also if the store switches to the other model after the snapshot was checked.
    before = content(catalogue)
    with pytest.raises(CatalogueError, match="with the model m, but the store now has other"):
        catalogue.restore(tmp_path / "snapshots" / "old" / "catalogue.sqlite")
    assert content(catalogue) == before
    assert catalogue.model_digests() == {"other": 7}


def test_another_corpus_is_refused(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    snapshots.create(tmp_path, catalogue, "old")
    catalogue.set_meta("corpus", "elsewhere")
    with pytest.raises(SnapshotModelError, match="the store has 'elsewhere'"):
        snapshots.restore(tmp_path, catalogue, "old")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", ".hidden", "x" * 101, "ü", "a\n"])
def test_names_are_checked(catalogue: SqliteCatalogue, tmp_path: Path, name: str) -> None:
    for call in (
        lambda: snapshots.create(tmp_path, catalogue, name),
        lambda: snapshots.read(tmp_path, name),
        lambda: snapshots.remove(tmp_path, name),
    ):
        with pytest.raises(IndexInputError, match="the snapshot's name is"):
            call()


def test_existing_unknown_and_removed(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    snapshots.create(tmp_path, catalogue, "a")
    with pytest.raises(SnapshotExistsError, match="already a snapshot 'a'"):
        snapshots.create(tmp_path, catalogue, "a")
    with pytest.raises(UnknownSnapshotError, match="no snapshot 'b'; there are: a"):
        snapshots.restore(tmp_path, catalogue, "b")
    snapshots.remove(tmp_path, "a")
    assert snapshots.names(tmp_path) == []
    with pytest.raises(UnknownSnapshotError):
        snapshots.remove(tmp_path, "a")
    assert snapshots.create(tmp_path, catalogue).name in snapshots.names(tmp_path)


@pytest.mark.parametrize("file", ["catalogue.sqlite", "snapshot.json"])
@pytest.mark.parametrize("offset", [20, 100, -30, 0.5])
def test_a_damaged_snapshot_is_refused(
    catalogue: SqliteCatalogue, tmp_path: Path, file: str, offset: float
) -> None:
    snapshots.create(tmp_path, catalogue, "a")
    before = content(catalogue)
    catalogue.delete([1])
    path = tmp_path / "snapshots" / "a" / file
    data = bytearray(path.read_bytes())
    data[int(offset * len(data)) if isinstance(offset, float) else offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(SnapshotCorruptError):
        snapshots.restore(tmp_path, catalogue, "a")
    assert content(catalogue) != before
    assert catalogue.count() == 6


def test_a_failed_copy_leaves_nothing(
    catalogue: SqliteCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        path.write_bytes(b"half")
        raise CatalogueError("the disk is full")

    monkeypatch.setattr(catalogue, "backup", full)
    with pytest.raises(CatalogueError, match="full"):
        snapshots.create(tmp_path, catalogue, "a")
    assert list((tmp_path / "snapshots").iterdir()) == []
    np.testing.assert_array_equal(catalogue.ids(), np.arange(1, 8))


def restored(root: Path, catalogue: SqliteCatalogue, name: str) -> object:
    catalogue.delete(catalogue.ids())
    snapshots.restore(root, catalogue, name)
    return content(catalogue)


def test_one_of_many_makers_wins(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    before = content(catalogue)
    for number in range(5):
        name = f"n{number}"
        results: list[object] = []

        def make(name: str = name, results: list[object] = results) -> None:
            try:
                results.append(snapshots.create(tmp_path, catalogue, name))
            except SnapshotExistsError as error:
                results.append(str(error))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (made,) = (result for result in results if not isinstance(result, str))
        refused = [result for result in results if isinstance(result, str)]
        assert len(refused) == 3
        assert made == snapshots.verify(tmp_path, name)
        for text in refused:
            assert f"already a snapshot '{name}', of 7 pictures, made at {made.created}" in text
        assert restored(tmp_path, catalogue, name) == before
    assert len(list((tmp_path / "snapshots").iterdir())) == 5


def test_a_maker_that_takes_long_is_not_disturbed(
    catalogue: SqliteCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup, during, go_on = catalogue.backup, threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        backup(path)
        during.set()
        assert go_on.wait(30)

    monkeypatch.setattr(catalogue, "backup", slow)
    monkeypatch.setattr(snapshots, "_PATIENCE", 0.0)
    maker = threading.Thread(target=snapshots.create, args=(tmp_path, catalogue, "a"))
    maker.start()
    assert during.wait(30)
    with pytest.raises(SnapshotExistsError, match="'a' is just being made"):
        snapshots.create(tmp_path, catalogue, "a")
    assert remove_orphans(tmp_path / "snapshots") == 0
    monkeypatch.setattr(catalogue, "backup", backup)
    assert snapshots.create(tmp_path, catalogue, "a.b").name == "a.b"  # another name is free
    go_on.set()
    maker.join()
    assert snapshots.verify(tmp_path, "a").count == 7


def test_an_existing_folder_is_never_replaced(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    backup = catalogue.backup

    def and_a_folder(path: Path) -> None:
        backup(path)
        (tmp_path / "snapshots" / "a").mkdir()  # empty: a rename would replace it

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "backup", and_a_folder)
        with pytest.raises(SnapshotExistsError, match="'a', which is damaged"):
            snapshots.create(tmp_path, catalogue, "a")
    assert list((tmp_path / "snapshots" / "a").iterdir()) == []


def sweep(root: Path, catalogue: SqliteCatalogue) -> int:
    blobs = FolderBlobs(root / "pictures")
    return blobs.sweep(lambda: catalogue.content_hashes("added") | snapshots.content_hashes(root))


def test_bytes_stay_while_a_snapshot_that_needs_them_is_made(
    catalogue: SqliteCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "PATIENCE", 0.0)
    backup = catalogue.backup

    def deleted_meanwhile(path: Path) -> None:
        backup(path)
        catalogue.delete([7])
        with pytest.raises(BlobsBusyError, match="in use"):
            sweep(tmp_path, catalogue)

    monkeypatch.setattr(catalogue, "backup", deleted_meanwhile)
    snapshots.create(tmp_path, catalogue, "a")
    assert sweep(tmp_path, catalogue) == 0
    snapshots.restore(tmp_path, catalogue, "a")
    assert FolderBlobs(tmp_path / "pictures").get(X) == b"x"
    catalogue.delete([7])
    snapshots.remove(tmp_path, "a")
    assert sweep(tmp_path, catalogue) == 1


def test_a_snapshot_and_its_bytes_stay_while_it_is_restored(
    catalogue: SqliteCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "PATIENCE", 0.0)
    monkeypatch.setattr(snapshots, "_PATIENCE", 0.0)
    before = content(catalogue)
    snapshots.create(tmp_path, catalogue, "a")
    catalogue.delete([1, 7])
    restore = catalogue.restore

    def swept_meanwhile(path: Path) -> tuple[int, int]:
        with pytest.raises(SnapshotBusyError, match="'a' is in use"):
            snapshots.remove(tmp_path, "a")
        with pytest.raises(BlobsBusyError):
            sweep_without_snapshots()
        return restore(path)

    def sweep_without_snapshots() -> int:
        return FolderBlobs(tmp_path / "pictures").sweep(lambda: catalogue.content_hashes("added"))

    monkeypatch.setattr(catalogue, "restore", swept_meanwhile)
    snapshots.restore(tmp_path, catalogue, "a")
    assert content(catalogue) == before
    snapshots.remove(tmp_path, "a")
    assert snapshots.names(tmp_path) == []


def test_missing_bytes_are_refused_unless_allowed(
    catalogue: SqliteCatalogue, tmp_path: Path
) -> None:
    snapshots.create(tmp_path, catalogue, "a")
    FolderBlobs(tmp_path / "pictures").sweep(set)
    for refused in (snapshots.create, snapshots.restore):
        with pytest.raises(SnapshotIncompleteError, match=f"1 added pictures .* missing: {X}"):
            refused(tmp_path, catalogue, "b" if refused is snapshots.create else "a")
    assert snapshots.names(tmp_path) == ["a"]
    assert snapshots.create(tmp_path, catalogue, "b", allow_missing=True).count == 7
    assert snapshots.restore(tmp_path, catalogue, "b", allow_missing=True)[1:] == (0, 0)


def test_a_damaged_record_is_not_copied(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "catalogue.sqlite")) as connection:
        connection.execute("UPDATE images SET label = 'other' WHERE id = 2")
        connection.commit()
    with pytest.raises(CatalogueError, match=r"'a' was not made: .*2"):
        snapshots.create(tmp_path, catalogue, "a")
    assert list((tmp_path / "snapshots").iterdir()) == []


def test_a_snapshot_that_is_deleted_while_others_are_read(
    catalogue: SqliteCatalogue, tmp_path: Path
) -> None:
    snapshots.create(tmp_path, catalogue, "a")
    seen: set[str] = set()
    assert snapshots.content_hashes(tmp_path, seen) == {X}
    assert snapshots.content_hashes(tmp_path, seen) == set()
    snapshots.remove(tmp_path, "a")
    catalogue.delete([7])
    snapshots.create(tmp_path, catalogue, "a")
    catalogue.upsert([Record("key:x", None, "z", {}, X, "added")], XB[6:7], "m")
    snapshots.create(tmp_path, catalogue, "b")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "names", lambda root: ["a", "gone", "b"])
        assert snapshots.content_hashes(tmp_path, seen) == {X}
    assert len(seen) == 3
