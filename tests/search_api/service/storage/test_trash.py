"""How long deleted pictures can come back, and when their bytes go."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from index.blobs import holding
from index.local.store import LocalStore
from search_api.service.engine import SearchEngine
from search_api.service.ingest import Upload
from search_api.service.storage import trash as module
from search_api.service.storage.quotas import StorageQuotas
from search_api.service.storage.trash import TrashService, remove_snapshot
from search_api.settings import Quotas
from tests.search_api.conftest import png

DAY = 86_400


@pytest.fixture
def added(engine: SearchEngine) -> list[int]:
    """Ids 25 to 28, added and deleted, one after the other."""
    uploads = [Upload(png((9, 9, shade)), f"k{shade}") for shade in range(4)]
    ids = [id_ for id_ in engine.ingest.add(uploads) if isinstance(id_, int)]
    for id_ in ids:
        engine.ingest.delete(id_)
    assert ids == [25, 26, 27, 28]
    return ids


def trash_of(engine: SearchEngine, quotas: Quotas) -> TrashService:
    return TrashService(engine.store, StorageQuotas(engine.store, engine.var, quotas))


def held(engine: SearchEngine) -> list[int]:
    return [one.entry.id for one in engine.trash.all()]


def test_the_trash_expires_with_its_files(
    engine: SearchEngine, added: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.trash.expire() == 0
    assert (held(engine), len(engine.blobs.names())) == (added, 4)
    now = engine.trash.all()[0].deleted
    assert engine.trash.expiry(now) == now + 30 * DAY
    monkeypatch.setattr(module.time, "time", lambda: now + 30 * DAY + 1.0)
    assert engine.trash.expire() == 4
    assert (held(engine), engine.blobs.names()) == ([], [])


def test_the_oldest_go_first_beyond_the_quota(engine: SearchEngine, added: list[int]) -> None:
    trash = trash_of(engine, Quotas(max_trash_pictures=3))
    trash.settle()
    assert held(engine) == [26, 27, 28]
    assert len(engine.blobs.names()) == 3


def test_without_days_a_delete_is_final_at_once(engine: SearchEngine, added: list[int]) -> None:
    trash = trash_of(engine, Quotas(trash_days=0))
    assert trash.expiry(1.0) is None
    trash.settle()
    assert (held(engine), engine.blobs.names()) == ([], [])


def test_a_purge_says_what_snapshots_keep(engine: SearchEngine) -> None:
    one, two = engine.ingest.add([Upload(png((9, 9, 9)), "one"), Upload(png((8, 8, 8)), "two")])
    engine.store.snapshots.create("monday")
    (three,) = engine.ingest.add([Upload(png((7, 7, 7)), "three")])
    for id_ in (one, two, three):
        assert isinstance(id_, int)
        engine.ingest.delete(id_)
    report = engine.trash.purge(None)
    assert (report.purged, report.files, report.kept_by) == (3, 1, {"monday": 2})
    assert len(engine.blobs.names()) == 2
    # Once the snapshot is deleted, its files follow without a compaction.
    remove_snapshot(engine.store, "monday")
    engine.trash.expire()
    assert engine.blobs.names() == []


def test_bytes_that_another_entry_needs_stay(engine: SearchEngine) -> None:
    one, two = engine.ingest.add([Upload(png((9, 9, 9)), "one"), Upload(png((9, 9, 9)), "two")])
    assert isinstance(one, int)
    engine.ingest.delete(one)
    report = engine.trash.purge([one, 99])
    assert (report.purged, report.files, report.kept_by) == (1, 0, {})
    assert engine.catalogue.get([two])[0].content_hash == engine.blobs.names()[0]  # type: ignore[list-item]


def test_an_interrupted_purge_is_completed(
    engine: SearchEngine, added: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    assert isinstance(engine.store, LocalStore)
    with monkeypatch.context() as patch:
        patch.setattr(module, "sweep", killed)
        with pytest.raises(KeyboardInterrupt):
            engine.trash.purge(added[:2])
    assert (held(engine), len(engine.blobs.names())) == ([27, 28], 4)
    engine.trash.expire()
    assert len(engine.blobs.names()) == 2


def test_a_corpus_picture_is_purged_without_touching_its_file(
    engine: SearchEngine, folder: Path
) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    engine.ingest.delete(1)
    assert engine.trash.purge([1]).purged == 1
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before
    assert len(engine.catalogue.tombstones()) == 1


def test_no_index_on_disk_holds_what_was_purged(engine: SearchEngine) -> None:
    """Not even the generations that are kept to fall back on, once the next one is built."""
    (vector,) = engine.served.current().index.vectors([1])
    where = engine.var / "generations"

    def holding() -> list[str]:
        files = sorted(where.glob("*/*"))
        return [file.parent.name for file in files if vector.tobytes() in file.read_bytes()]

    engine.builder.compact(engine.encoder)
    engine.ingest.delete(1)
    assert not engine.store.holds_purged()  # it can still be restored
    engine.builder.compact(engine.encoder)
    assert holding() == ["000001", "000002"]
    assert engine.trash.purge([1]).indexed
    engine.builder.compact(engine.encoder)
    assert holding() == []
    assert sorted(path.name for path in where.glob("0*")) == ["000003", "000004"]
    assert not engine.store.holds_purged()


def test_a_purge_that_a_reader_hinders_is_completed(engine: SearchEngine, added: list[int]) -> None:
    log = engine.var / "catalogue.sqlite-wal"
    with closing(sqlite3.connect(engine.var / "catalogue.sqlite", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM images").fetchone()
        report = engine.trash.purge(added)
        assert (report.purged, report.files, report.pending) == (4, 4, True)
        assert b"key:k3" in log.read_bytes()
    engine.trash.expire()
    assert b"key:k3" not in log.read_bytes() + (engine.var / "catalogue.sqlite").read_bytes()
    assert not engine.trash.purge([]).pending


def test_bytes_in_use_go_later(
    engine: SearchEngine, added: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "PATIENCE", 0.05)
    with engine.blobs.holding():  # as a snapshot in the making does
        report = engine.trash.purge(added)
    assert (report.purged, report.files, report.pending) == (4, 0, True)
    assert len(engine.blobs.names()) == 4
    engine.trash.expire()
    assert engine.blobs.names() == []
