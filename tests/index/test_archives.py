from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index import archives
from index.archives import SnapshotExistsError, SnapshotModelError, UnknownSnapshotError
from index.catalogue import Catalogue, CatalogueError, Record
from index.manifest import SnapshotCorruptError
from index.neighbours import IndexInputError
from tests.index.vectors import random_vectors

XB = random_vectors(20, 8, seed=0)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with Catalogue(tmp_path / "catalogue.sqlite") as opened:
        records = [Record(f"{i}", "train", "ab"[i % 2], {"n": i}) for i in range(6)]
        opened.upsert(records, XB[:6], "m")
        opened.upsert([Record("key:x", None, "z", {}, "sha256:00", "added")], XB[6:7], "m")
        yield opened


def content(catalogue: Catalogue) -> tuple[object, ...]:
    ids, xb = catalogue.embeddings("m")
    return catalogue.get(ids), xb.tobytes(), catalogue.forgotten_sources()


def test_restoring_brings_back_exactly_what_was(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.delete([6], remember=True)
    before = content(catalogue)
    made = archives.create(tmp_path, catalogue, "monday")
    assert (made.count, made.model_digest, made.sequence) == (6, "m", catalogue.sequence())
    assert archives.names(tmp_path) == ["monday"]
    assert archives.content_hashes(tmp_path) == {"sha256:00"}

    seen = catalogue.sequence()
    catalogue.delete([1, 7], remember=True)
    catalogue.update([2], label="new", payload={"more": 1}, by_hand=True)
    catalogue.embed([3], XB[10:11], "m", ["pixels:1"])
    new = catalogue.upsert([Record("new"), Record("5")], XB[11:13], "m")
    later = catalogue.sequence()
    snapshot, changed, deleted = archives.restore(tmp_path, catalogue, "monday")
    assert snapshot == made
    assert (changed, deleted) == (4, 2)
    assert content(catalogue) == before
    assert catalogue.check() is None

    # Whoever follows the changes arrives at the same.
    for since in (seen, later):
        changes = catalogue.changes(since, "m")
        assert {1, 3, 7} <= set(changes.ids.tolist())
        assert set(new) & set(changes.deleted.tolist())
    assert catalogue.changes(later, "m").ids.tolist() == [1, 3, 7]
    assert catalogue.upsert([Record("never used again")], XB[:1], "m")[0] > max(new)


def test_restoring_twice_changes_nothing(catalogue: Catalogue, tmp_path: Path) -> None:
    archives.create(tmp_path, catalogue, "a")
    before = content(catalogue)
    assert archives.restore(tmp_path, catalogue, "a")[1:] == (0, 0)
    assert content(catalogue) == before
    assert len(catalogue.changes(0, "m").ids) == 7


def test_sources_that_changed_hands(catalogue: Catalogue, tmp_path: Path) -> None:
    archives.create(tmp_path, catalogue, "a")
    before = content(catalogue)
    catalogue.delete([1, 2])
    assert catalogue.upsert([Record("1"), Record("0")], XB[:2], "m") == [8, 9]
    archives.restore(tmp_path, catalogue, "a")
    assert content(catalogue) == before


def test_another_models_snapshot_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    archives.create(tmp_path, catalogue, "old")
    catalogue.staging.add(catalogue.ids(), XB[:7], "other")
    catalogue.staging.promote("other")
    with pytest.raises(SnapshotModelError, match="with the model m, the store has other"):
        archives.restore(tmp_path, catalogue, "old")
    assert catalogue.model_digests() == {"other": 7}
    # Also where the store goes over to the other one after the snapshot was looked at.
    before = content(catalogue)
    with pytest.raises(CatalogueError, match="with the model m, and the store has other now"):
        catalogue.restore(tmp_path / "snapshots" / "old" / "catalogue.sqlite")
    assert content(catalogue) == before
    assert catalogue.model_digests() == {"other": 7}


def test_another_corpus_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    archives.create(tmp_path, catalogue, "old")
    catalogue.set_meta("corpus", "elsewhere")
    with pytest.raises(SnapshotModelError, match="the store has 'elsewhere'"):
        archives.restore(tmp_path, catalogue, "old")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", ".hidden", "x" * 101, "ü", "a\n"])
def test_names_are_checked(catalogue: Catalogue, tmp_path: Path, name: str) -> None:
    for call in (
        lambda: archives.create(tmp_path, catalogue, name),
        lambda: archives.read(tmp_path, name),
        lambda: archives.remove(tmp_path, name),
    ):
        with pytest.raises(IndexInputError, match="the snapshot's name is"):
            call()


def test_taken_unknown_and_removed(catalogue: Catalogue, tmp_path: Path) -> None:
    archives.create(tmp_path, catalogue, "a")
    with pytest.raises(SnapshotExistsError, match="'a' already"):
        archives.create(tmp_path, catalogue, "a")
    with pytest.raises(UnknownSnapshotError, match="no snapshot 'b'; there are: a"):
        archives.restore(tmp_path, catalogue, "b")
    archives.remove(tmp_path, "a")
    assert archives.names(tmp_path) == []
    with pytest.raises(UnknownSnapshotError):
        archives.remove(tmp_path, "a")
    assert archives.create(tmp_path, catalogue).name in archives.names(tmp_path)


@pytest.mark.parametrize("file", ["catalogue.sqlite", "snapshot.json"])
@pytest.mark.parametrize("offset", [20, 100, -30, 0.5])
def test_a_damaged_snapshot_is_refused(
    catalogue: Catalogue, tmp_path: Path, file: str, offset: float
) -> None:
    archives.create(tmp_path, catalogue, "a")
    before = content(catalogue)
    catalogue.delete([1])
    path = tmp_path / "snapshots" / "a" / file
    data = bytearray(path.read_bytes())
    data[int(offset * len(data)) if isinstance(offset, float) else offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(SnapshotCorruptError):
        archives.restore(tmp_path, catalogue, "a")
    assert content(catalogue) != before
    assert catalogue.count() == 6


def test_a_failed_copy_leaves_nothing(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        path.write_bytes(b"half")
        raise CatalogueError("the disk is full")

    monkeypatch.setattr(catalogue, "backup", full)
    with pytest.raises(CatalogueError, match="full"):
        archives.create(tmp_path, catalogue, "a")
    assert list((tmp_path / "snapshots").iterdir()) == []
    np.testing.assert_array_equal(catalogue.ids(), np.arange(1, 8))
