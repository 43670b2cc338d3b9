"""Quotas and the least free space: what exceeds them is refused before anything is written."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

from index.contract import CancelledError, JobControl, NoSpaceError, QuotaError
from search_api.jobs.auto_compaction import AutoCompaction
from search_api.service.engine import SearchEngine
from search_api.service.ingest import Upload
from search_api.service.storage import quotas as module
from search_api.service.storage.quotas import Amount, StorageQuotas
from search_api.settings import Quotas
from tests.search_api.conftest import png, rebuild

ONE = len(png((9, 9, 0)))


class Disk(NamedTuple):
    total: int
    used: int
    free: int


def limit(engine: SearchEngine, **quotas: float) -> None:
    """Give the engine other quotas."""
    engine.storage.quotas = Quotas(**quotas)  # type: ignore[arg-type]


def uploads(*shades: int) -> list[Upload]:
    return [Upload(png((9, 9, shade)), f"k{shade}") for shade in shades]


@pytest.fixture
def full(engine: SearchEngine, monkeypatch: pytest.MonkeyPatch) -> SearchEngine:
    """One picture and one in the trash; then the disk is at its least free space."""
    engine.ingest.add(uploads(0, 1))
    engine.ingest.delete(26)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(100_000, 95_001, 4_999))
    return engine


def test_the_number_of_added_pictures(engine: SearchEngine) -> None:
    limit(engine, max_added_pictures=3)
    engine.ingest.add(uploads(0, 1))
    with pytest.raises(
        QuotaError, match="adding 2 pictures exceeds the quota of 3 pictures: 2 are"
    ):
        engine.ingest.add(uploads(2, 3))
    # None of a batch is stored, and nothing of it was written.
    assert engine.catalogue.usage().added_pictures == 2  # type: ignore[union-attr]
    assert len(engine.blobs.names()) == 2
    engine.ingest.add(uploads(2, 1, 0))  # two of them replace
    with pytest.raises(QuotaError):
        engine.ingest.add(uploads(4))
    engine.ingest.delete(25)
    engine.ingest.add(uploads(4))
    with pytest.raises(QuotaError, match="with 1 pictures restored there would be 4 added ones"):
        engine.trash.restore([25])
    assert [t.entry.id for t in engine.trash.all()] == [25]


def test_their_size(engine: SearchEngine) -> None:
    limit(engine, max_added_bytes=3 * ONE)
    engine.ingest.add(uploads(0, 1))
    usage = engine.catalogue.usage()
    assert usage is not None
    assert (usage.added_pictures, usage.added_bytes) == (2, sum(len(u.data) for u in uploads(0, 1)))
    left = 3 * ONE - usage.added_bytes
    with pytest.raises(QuotaError, match=f"{usage.added_bytes} are stored, {left} left"):
        engine.ingest.add(uploads(2, 3))
    big = Upload(png((9, 9, 9), (640, 640)), "k0")
    with pytest.raises(QuotaError, match="max_added_bytes"):
        engine.ingest.add([big], replace=True)  # a replacement that is larger
    engine.ingest.delete(26)
    assert engine.storage.amounts()["trash_bytes"] == Amount(len(uploads(1)[0].data), 0)


def test_concurrent_additions_never_exceed_a_quota(engine: SearchEngine) -> None:
    """Not by the pictures in flight either: the check is in the write's transaction."""
    limit(engine, max_added_pictures=5)
    refused: list[QuotaError] = []
    start = threading.Barrier(12)

    def add(number: int) -> None:
        start.wait()
        try:
            engine.ingest.add(uploads(number))
        except QuotaError as error:
            refused.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.catalogue.usage().added_pictures == 5  # type: ignore[union-attr]
    assert len(refused) == 7
    # What the refused ones had written meanwhile is gone at the next sweep.
    engine.builder.compact(engine.encoder)
    assert len(engine.blobs.names()) == 5


def test_snapshots(engine: SearchEngine) -> None:
    limit(engine, max_snapshots=2)
    storage = engine.storage
    storage.create_snapshot("a")
    with (
        storage.snapshot(),
        pytest.raises(QuotaError, match="there are 2 snapshots, the quota is 2"),
    ):
        storage.create_snapshot("b")  # counts what is in the making
    storage.create_snapshot("b")
    size = storage.amounts()["snapshot_bytes"].used
    assert size == sum(engine.store.snapshots.read(name).size for name in "ab")
    limit(engine, max_snapshot_bytes=size)
    with pytest.raises(QuotaError, match=f"the snapshots have {size:,} bytes"):
        storage.create_snapshot("c")
    assert engine.store.snapshots.names() == ["a", "b"]


def test_below_the_least_free_space_nothing_is_written(full: SearchEngine) -> None:
    before = sorted(path for path in full.var.rglob("*") if path.is_file())
    for write in (
        lambda: full.ingest.add(uploads(5)),
        lambda: full.ingest.update(1, payload={"a": 1}),
        lambda: full.storage.create_snapshot("s"),
        lambda: full.trash.restore(None),
        lambda: rebuild(full),
        lambda: full.builder.compact(full.encoder),
        lambda: full.builder.embed(full.encoder),
        lambda: full.builder.switch(full.encoder),
    ):
        with pytest.raises(NoSpaceError, match=r"4,999 bytes are free .* 5,000 must stay free"):
            write()
    assert sorted(path for path in full.var.rglob("*") if path.is_file()) == before
    # Reading, deleting and purging go on.
    assert full.search(png((9, 9, 0))).points[0].entry.id == 25
    full.ingest.delete(25)
    assert full.trash.purge(None).purged == 2
    assert full.blobs.names() == []


def test_what_an_upload_needs_counts(engine: SearchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(2**40, 0, 2**30 + 100))
    engine.storage.check_room(100)
    with pytest.raises(NoSpaceError, match="101 more are needed"):
        engine.storage.check_room(101)
    # The share counts where it is less, and neither counts with 0.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(1_000, 0, 50))
    engine.storage.check_room()
    limit(engine, min_free_share=0.06)
    with pytest.raises(NoSpaceError):
        engine.storage.check_room()
    limit(engine, min_free_bytes=0)
    engine.storage.check_room()


def test_the_disk_of_the_pictures_counts_too(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(folder: Path) -> Disk:
        return Disk(1_000, 0, 10 if folder.name == "pictures" else 900)

    engine.ingest.add(uploads(0))
    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(NoSpaceError, match="the disk of 'pictures'"):
        engine.storage.check_room()
    assert engine.storage.amounts()["free_bytes"] == Amount(10, 50)


def test_an_upload_needs_room_in_the_spool(
    engine: SearchEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(spool))
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: Disk(1_000, 0, 10 if folder == spool else 900_000)
    )
    engine.storage.check_room()
    with pytest.raises(NoSpaceError, match="the disk of 'spool'"):
        engine.ingest.add(uploads(0))


def test_a_damaged_index_is_rebuilt_at_the_start_even_then(
    full: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (full.var / "generations").rglob("index.faiss"):
        file.write_bytes(b"damaged")
    full.load()
    assert "Rebuilt from the catalogue" in full.load_report


def test_no_compaction_starts_by_itself_without_room(full: SearchEngine) -> None:
    from search_api.api.app import create_app

    context = create_app(full).state.context
    compaction = AutoCompaction(context.tasks, context.limits, threading.Event())
    assert compaction.check(unembedded=True) is None
    compaction.expire()
    with pytest.raises(CancelledError):  # it is the room that is missing, and not something else
        full.builder.compact(full.encoder, JobControl(cancelled=lambda: True), needs_room=False)


def test_what_an_earlier_version_added_is_measured(engine: SearchEngine) -> None:
    engine.ingest.add(uploads(0, 1))
    engine.ingest.delete(26)
    with engine.catalogue._database.write() as connection:  # type: ignore[attr-defined]
        connection.execute("DELETE FROM sizes")
        connection.execute("UPDATE usage SET pictures = 7, bytes = 8")
    first, second = (len(upload.data) for upload in uploads(0, 1))
    assert engine.catalogue.measure(engine.blobs.size) == 2
    amounts = engine.storage.amounts()
    assert (amounts["added_pictures"].used, amounts["added_bytes"].used) == (1, first)
    assert (amounts["trash_pictures"].used, amounts["trash_bytes"].used) == (1, second)
    assert StorageQuotas(engine.store, engine.var).amounts() == amounts
