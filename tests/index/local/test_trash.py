"""The trash of the catalogue in SQLite."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index.conditions import Filter
from index.contract import RestoreConflictError, UnknownIdError
from index.filters import parse_filter
from index.local import snapshots
from index.local.catalogue import SqliteCatalogue
from index.records import Record
from tests.index.vectors import random_vectors

XB = random_vectors(20, 8, seed=0)
B = parse_filter({"must": [{"key": "label", "match": {"value": "b"}}]})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalogue.sqlite"


@pytest.fixture
def catalogue(path: Path) -> Iterator[SqliteCatalogue]:
    """Ids 1 to 6 of the corpus, 7 and 8 added."""
    with SqliteCatalogue(path) as opened:
        opened.upsert(
            [Record(str(i), "train", "ab"[i % 2], {"n": i}) for i in range(6)], XB[:6], "m"
        )
        added = [Record(f"key:{i}", None, "z", {"n": i}, f"sha256:{i}", "added") for i in (6, 7)]
        opened.upsert(added, XB[6:8], "m")
        opened.update([2], label="edited", by_hand=True)
        yield opened


def everything(catalogue: SqliteCatalogue) -> tuple[object, ...]:
    ids, xb = catalogue.embeddings("m")
    return catalogue.get(ids), xb.tobytes(), catalogue.tombstones()


def trashed(catalogue: SqliteCatalogue) -> list[int]:
    return [one.entry.id for one in catalogue.trash.page(-1, 100)]


def test_what_is_deleted_is_found_nowhere_and_comes_back_as_it_was(
    catalogue: SqliteCatalogue, path: Path
) -> None:
    before = everything(catalogue)
    start = catalogue.moment()
    assert catalogue.delete([2, 7], tombstone=True) == 2
    assert catalogue.delete_where(B) == [4, 6]
    assert trashed(catalogue) == [2, 4, 6, 7]
    assert [t.entry for t in catalogue.trash.page(-1, 100)] == [
        entry
        for entry in before[0]
        if entry.id in (2, 4, 6, 7)  # type: ignore[attr-defined]
    ]
    assert catalogue.count() == 4
    assert catalogue.count(B) == 0
    assert [e.id for e in catalogue.page(-1, 100)] == [1, 3, 5, 8]
    assert catalogue.find([2, 4, 6, 7]) == []
    assert catalogue.content_hashes("added") == {"sha256:6", "sha256:7"}  # it is not swept
    assert catalogue.check() is None

    with SqliteCatalogue(path) as other:
        assert other.trash.last() == [4, 6]
        assert other.trash.restore([4, 6]).ids == [4, 6]
        assert other.trash.last() == [2, 7]
        done = other.trash.restore(other.trash.last())
    assert (done.ids, done.conflicts, done.unembedded) == ([2, 7], {}, 0)
    assert everything(catalogue) == before
    assert (trashed(catalogue), catalogue.trash.last()) == ([], [])
    assert catalogue.check() is None
    # Readers that follow the changes see additions, whether they have seen the deletion or not.
    changes = catalogue.changes(start, "m")
    assert (changes.ids.tolist(), changes.deleted.tolist()) == ([2, 4, 6, 7], [])
    np.testing.assert_array_equal(changes.xb, XB[[1, 3, 5, 6]])
    assert catalogue.upsert([Record("new")], XB[9:10], "m") == [9]


def test_what_was_added_again_meanwhile_stays(catalogue: SqliteCatalogue) -> None:
    catalogue.delete([7, 8], tombstone=True)
    new = Record("key:6", None, "new", {}, "sha256:9", "added")
    assert catalogue.upsert([new], XB[9:10], "m") == [9]
    with pytest.raises(RestoreConflictError, match=r"same key or source meanwhile: 7 \(now 9\)"):
        catalogue.trash.restore([7])
    with pytest.raises(UnknownIdError, match="the trash has no such id: 1, 99"):
        catalogue.trash.restore([8, 99, 1])
    assert trashed(catalogue) == [7, 8]
    done = catalogue.trash.restore([7, 8])
    assert (done.ids, done.conflicts) == ([8], {7: 9})
    assert [e.label for e in catalogue.get([8, 9])] == ["z", "new"]
    assert trashed(catalogue) == [7]
    # Deleted twice under one key: the newest comes back.
    catalogue.delete([9], tombstone=True)
    done = catalogue.trash.restore([7, 9])
    assert (done.ids, done.conflicts) == ([9], {7: 9})


def test_a_corpus_picture_has_no_tombstone_once_it_is_restored(catalogue: SqliteCatalogue) -> None:
    catalogue.delete([1], tombstone=True)
    assert catalogue.tombstones() == {"0"}
    catalogue.trash.restore([1])
    assert catalogue.tombstones() == set()
    catalogue.delete([1], tombstone=True)
    assert catalogue.trash.purge([1]).ids == [1]
    assert catalogue.tombstones() == {"0"}  # a rebuild does not add it again
    catalogue.forget_tombstones()
    assert catalogue.tombstones() == set()
    assert catalogue.check() is None


def test_what_the_corpus_no_longer_has_is_not_kept(catalogue: SqliteCatalogue) -> None:
    assert catalogue.delete([1, 2]) == 2
    assert trashed(catalogue) == []


def test_a_purge_leaves_no_trace_in_any_file(tmp_path: Path) -> None:
    """Nor in free pages or the log, however the rows are spread over the pages."""
    path = tmp_path / "catalogue.sqlite"
    chooser = random.Random(0)
    words = ["".join(chooser.choices(string.ascii_letters, k=24)) for _ in range(400)]
    xb = random_vectors(400, 96, seed=1)
    with SqliteCatalogue(path) as catalogue:
        payloads = [{"owner": word * (i % 40 + 1)} for i, word in enumerate(words)]
        records = [
            Record(f"key:{word}", None, f"label-{word}", payload, f"sha256:{i}", "added")
            for i, (word, payload) in enumerate(zip(words, payloads, strict=True))
        ]
        order = chooser.sample(range(400), 400)
        for start in range(0, 400, 50):
            some = order[start : start + 50]
            catalogue.upsert([records[i] for i in some], xb[some], "m")
        gone = chooser.sample(range(400), 133)
        sources = catalogue.all_sources()
        ids = [sources[records[i].source] for i in gone]
        for start in range(0, 133, 20):
            catalogue.delete(ids[start : start + 20], tombstone=True)
        files = [path, path.with_name("catalogue.sqlite-wal")]
        there = b"".join(file.read_bytes() for file in files)
        assert all(words[i].encode() in there for i in gone)
        assert catalogue.trash.purge(None).content_hashes == {f"sha256:{i}" for i in gone}
        there = b"".join(file.read_bytes() for file in files)
        assert not [i for i in gone if words[i].encode() in there]
        assert not [i for i in gone if xb[i].tobytes() in there or xb[i, :16].tobytes() in there]
        kept = set(range(400)) - set(gone)
        assert all(words[i].encode() in there for i in kept)
        assert catalogue.count() == 267
        assert catalogue.check() is None


def test_surplus(catalogue: SqliteCatalogue) -> None:
    for id_ in (3, 1, 2):
        catalogue.delete([id_], tombstone=True)
    trash = catalogue.trash
    (deleted,) = {t.deleted for t in trash.page(-1, 9)} or {0}
    assert trash.surplus(deleted - 1, 0, 0) == []
    assert trash.surplus(deleted, 0, 0) == [1, 2, 3]
    assert trash.surplus(0, 2, 0) == [3]  # the oldest delete
    assert trash.surplus(0, 3, 0) == []


def test_a_damaged_record_can_be_deleted_and_is_not_kept(catalogue: SqliteCatalogue) -> None:
    with catalogue._database.write() as connection:
        connection.execute("UPDATE images SET label = 'flipped' WHERE id = 1")
    assert "images 1 do not match" in str(catalogue.check())
    assert catalogue.delete([1, 3], tombstone=True) == 2
    assert trashed(catalogue) == [3]
    assert catalogue.check() is None
    with catalogue._database.write() as connection:
        connection.execute("UPDATE trash SET deleted_at = 1 WHERE id = 3")
    assert "checksums of trash 3 do not match" in str(catalogue.check())


def test_snapshots_hold_no_trash_and_leave_it(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    catalogue.delete([7], tombstone=True)
    snapshots.create(tmp_path, catalogue, "s", allow_missing=True)
    copy = tmp_path / "snapshots" / "s" / "catalogue.sqlite"
    assert b"key:6" not in copy.read_bytes()
    assert b"key:7" in copy.read_bytes()
    catalogue.delete([8], tombstone=True)
    (new,) = catalogue.upsert([Record("new", None, "x")], XB[9:10], "m")
    assert snapshots.restore(tmp_path, catalogue, "s", allow_missing=True)[1:] == (1, 1)
    # 7 is still there, 8 is back in the index, and what the restore deleted can be undone.
    assert trashed(catalogue) == [7, new]
    assert catalogue.check() is None
    assert catalogue.trash.restore([7, new]).ids == [7, new]
    assert catalogue.check() is None

    assert snapshots.holding(tmp_path, catalogue.trash.purge(None)) == {}
    catalogue.delete([1, 7, 8], tombstone=True)
    assert snapshots.holding(tmp_path, catalogue.trash.purge(None)) == {"s": 2}
    copy.write_bytes(b"damaged")
    catalogue.delete([3], tombstone=True)
    assert snapshots.holding(tmp_path, catalogue.trash.purge(None)) == {"s": 1}


def test_a_restore_after_a_switch_of_models_waits_for_its_embedding(
    catalogue: SqliteCatalogue,
) -> None:
    catalogue.delete([7, 8], tombstone=True)
    ids = catalogue.staging.missing("n")
    catalogue.staging.add(ids, random_vectors(len(ids), 4, seed=3), "n")
    catalogue.staging.promote("n")
    assert catalogue.trash.restore([7]).unembedded == 1
    assert catalogue.embeddings("n")[0].tolist() == [1, 2, 3, 4, 5, 6]
    assert [e.id for e in catalogue.find([7])] == [7]
    assert catalogue.staging.missing("n").tolist() == [7]  # a compaction embeds it
    assert catalogue.check() is None


def test_an_older_catalogue_gets_a_trash(catalogue: SqliteCatalogue, path: Path) -> None:
    with catalogue._database.write() as connection:
        connection.execute("DROP TABLE trash")
        connection.execute("DROP TABLE sizes")
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'format_version'")
    before = everything(catalogue)
    with SqliteCatalogue(path) as again:
        assert again.get_meta("format_version") == "3"
        assert everything(again) == before
        again.delete([7], tombstone=True)
        assert trashed(again) == [7]
        assert again.check() is None


def test_an_empty_filter_of_the_trash_is_harmless(catalogue: SqliteCatalogue) -> None:
    assert catalogue.delete_where(Filter()) == list(range(1, 9))
    assert catalogue.trash.count() == 8
    assert catalogue.trash.purge([99]).ids == []
    assert catalogue.trash.purge(None).ids == list(range(1, 9))
