from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index.contract import (
    CatalogueError,
    IndexInputError,
    SnapshotCorruptError,
    SnapshotExistsError,
    SnapshotModelError,
    UnknownSnapshotError,
)
from index.local import snapshots
from index.local.catalogue import SqliteCatalogue
from index.records import Record
from tests.index.vectors import random_vectors

XB = random_vectors(20, 8, seed=0)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[SqliteCatalogue]:
    with SqliteCatalogue(tmp_path / "catalogue.sqlite") as opened:
        records = [Record(f"{i}", "train", "ab"[i % 2], {"n": i}) for i in range(6)]
        opened.upsert(records, XB[:6], "m")
        opened.upsert([Record("key:x", None, "z", {}, "sha256:00", "added")], XB[6:7], "m")
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
    assert snapshots.content_hashes(tmp_path) == {"sha256:00"}

    seen = catalogue.sequence()
    catalogue.delete([1, 7], tombstone=True)
    catalogue.update([2], label="new", payload={"more": 1}, by_hand=True)
    catalogue.embed([3], XB[10:11], "m", ["pixels:1"])
    new = catalogue.upsert([Record("new"), Record("5")], XB[11:13], "m")
    later = catalogue.sequence()
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
    assert len(catalogue.changes(0, "m").ids) == 7


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
