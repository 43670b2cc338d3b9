"""Lost acknowledged commits are detected."""

import os
import shutil
import struct
import threading
import zlib
from pathlib import Path

import pytest

from index.contract import CatalogueError
from index.local.catalogue import SqliteCatalogue
from index.local.commit_watermark import Acknowledged, CommitWatermark, WatermarkError
from index.records import Record
from tests.index.vectors import random_vectors

XB = random_vectors(5, 8, seed=0)
SEVEN = Acknowledged(7, "0f" * 16, 1 << 40)


def number(watermark: CommitWatermark) -> int:
    found = watermark.read()
    assert found is not None
    return found.number


def test_the_highest_number_is_kept(tmp_path: Path) -> None:
    watermark = CommitWatermark(tmp_path / "n")
    assert watermark.read() is None
    watermark.advance(SEVEN)
    watermark.advance(Acknowledged(3))
    assert watermark.read() == SEVEN
    assert CommitWatermark(tmp_path / "n").read() == SEVEN
    assert (tmp_path / "n").stat().st_size == 36
    assert [path.name for path in tmp_path.iterdir()] == ["n"]
    watermark.reset()
    watermark.reset()
    assert watermark.read() is None


def test_a_file_of_an_earlier_version(tmp_path: Path) -> None:
    watermark = CommitWatermark(tmp_path / "n")
    (tmp_path / "n").write_bytes(struct.pack("<qI", 9, zlib.crc32((9).to_bytes(8, "little"))))
    assert watermark.read() == Acknowledged(9)
    watermark.advance(SEVEN)
    assert watermark.read() == Acknowledged(9)
    watermark.advance(SEVEN._replace(number=10))
    assert watermark.read() == SEVEN._replace(number=10)


def test_it_is_created_whole_and_durably(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "n", []
    sync = os.fsync

    def record(handle: int) -> None:
        target = Path(f"/proc/self/fd/{handle}").readlink()
        synced.append((target.is_dir(), path.exists() and path.stat().st_size))
        sync(handle)

    monkeypatch.setattr(os, "fsync", record)
    CommitWatermark(path).advance(SEVEN)
    # The content before it has its name, then the name.
    assert synced == [(False, False), (True, 36)]


def test_many_writers_at_once(tmp_path: Path) -> None:
    watermark = [CommitWatermark(tmp_path / "n") for _ in range(4)]
    threads = [
        threading.Thread(
            target=lambda n=n, one=one: [one.advance(Acknowledged(i)) for i in range(n, 400, 4)]
        )
        for n, one in enumerate(watermark)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watermark[0].read() == Acknowledged(399)


@pytest.mark.parametrize("content", [b"x" * 11, b"x" * 13, b"x" * 36, b"\0" * 35 + b"x"])
def test_a_damaged_file(content: bytes, tmp_path: Path) -> None:
    watermark = CommitWatermark(tmp_path / "n")
    (tmp_path / "n").write_bytes(content)
    with pytest.raises(WatermarkError, match="is damaged"):
        watermark.read()
    watermark.advance(SEVEN)
    assert watermark.read() == SEVEN


@pytest.mark.parametrize("content", [b"", b"\0" * 12, b"\0" * 36])
def test_a_file_that_a_power_cut_left_empty(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with SqliteCatalogue(path) as catalogue:
        catalogue.upsert([Record("a")], XB[:1], "m")
    watermark = CommitWatermark(tmp_path / "catalogue.sqlite-acknowledged")
    before = watermark.read()
    watermark.path.write_bytes(content)
    assert watermark.read() is None
    with SqliteCatalogue(path) as catalogue:
        assert catalogue.count() == 1
    after = watermark.read()
    assert before is not None and after is not None
    assert after.number > before.number


def test_a_folder_that_cannot_be_written_raises_no_error(tmp_path: Path) -> None:
    CommitWatermark(tmp_path / "missing" / "n").advance(SEVEN)
    assert CommitWatermark(tmp_path / "missing" / "n").read() is None


def test_each_commit_is_counted_whatever_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with SqliteCatalogue(path) as catalogue:
        watermark = CommitWatermark(tmp_path / "catalogue.sqlite-acknowledged")
        assert number(watermark) == 1  # the tables
        catalogue.upsert([Record("a"), Record("b")], XB[:2], "m")
        catalogue.set_meta("corpus", "c")
        catalogue.staging.add([1], XB[:1], "next")
        assert number(watermark) == 4
        with pytest.raises(ZeroDivisionError), catalogue._database.write():
            _ = 1 / 0
        assert number(watermark) == 4
        catalogue.backup(tmp_path / "copy")
        catalogue.delete([1])
        catalogue.restore(tmp_path / "copy")
        assert number(watermark) == 6
        assert catalogue.check() is None


def killed(tmp_path: Path) -> Path:
    """A copy of a store in use, whose last writes are only in the log."""
    with SqliteCatalogue(tmp_path / "alive" / "catalogue.sqlite") as catalogue:
        for i in range(5):
            catalogue.upsert([Record(str(i))], XB[i : i + 1], "m")
        shutil.copytree(tmp_path / "alive", tmp_path / "dead")
    (tmp_path / "dead" / "catalogue.sqlite-shm").unlink()
    return tmp_path / "dead" / "catalogue.sqlite"


def test_a_damaged_log_is_refused(tmp_path: Path) -> None:
    path = killed(tmp_path)
    log = path.with_name("catalogue.sqlite-wal")
    whole = log.read_bytes()
    log.write_bytes(whole[:-100])
    with pytest.raises(CatalogueError, match="ends with commit 5, and 6 were made") as error:
        SqliteCatalogue(path)
    assert "catalogue.sqlite-wal" in str(error.value)
    # What is left can be used once the watermark is removed.
    path.with_name("catalogue.sqlite-acknowledged").unlink()
    with SqliteCatalogue(path) as catalogue:
        assert catalogue.count() == 4
        catalogue.upsert([Record("new")], XB[:1], "m")
    SqliteCatalogue(path).close()


def test_an_intact_log_is_read(tmp_path: Path) -> None:
    with SqliteCatalogue(killed(tmp_path)) as catalogue:
        assert catalogue.count() == 5


def test_a_missing_log_is_detected(tmp_path: Path) -> None:
    path = killed(tmp_path)
    path.with_name("catalogue.sqlite-wal").unlink()
    with pytest.raises(CatalogueError, match="ends with commit 0, and 6 were made"):
        SqliteCatalogue(path)
    path.with_name("catalogue.sqlite-acknowledged").write_bytes(b"x")
    with pytest.raises(CatalogueError, match="lost writes cannot be detected"):
        SqliteCatalogue(path)


def test_a_catalogue_that_was_removed_starts_empty(tmp_path: Path) -> None:
    path = killed(tmp_path)
    for name in ("catalogue.sqlite", "catalogue.sqlite-wal"):
        path.with_name(name).unlink()
    for _ in range(2):
        with SqliteCatalogue(path) as catalogue:
            assert catalogue.count() == 0


def test_a_catalogue_from_before_there_was_a_count(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with SqliteCatalogue(path) as catalogue:
        catalogue.upsert([Record("a")], XB[:1], "m")
        with catalogue._database.write() as connection:
            connection.execute("DELETE FROM meta WHERE key = 'commits'")
        path.with_name("catalogue.sqlite-acknowledged").unlink()
    for count in (2, 3):
        with SqliteCatalogue(path) as catalogue:
            catalogue.upsert([Record(str(count))], XB[:1], "m")
            assert catalogue.count() == count
            assert catalogue.check() is None
