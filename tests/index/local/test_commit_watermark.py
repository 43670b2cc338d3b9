"""Lost acknowledged commits are detected."""

import shutil
import threading
from pathlib import Path

import pytest

from index.contract import CatalogueError
from index.local.catalogue import SqliteCatalogue
from index.local.commit_watermark import CommitWatermark, WatermarkError
from index.records import Record
from tests.index.vectors import random_vectors

XB = random_vectors(5, 8, seed=0)


def test_the_highest_number_is_kept(tmp_path: Path) -> None:
    watermark = CommitWatermark(tmp_path / "n")
    assert watermark.read() == 0
    watermark.advance(7)
    watermark.advance(3)
    assert watermark.read() == 7
    assert CommitWatermark(tmp_path / "n").read() == 7
    assert (tmp_path / "n").stat().st_size == 12
    watermark.reset()
    watermark.reset()
    assert watermark.read() == 0


def test_many_writers_at_once(tmp_path: Path) -> None:
    watermark = [CommitWatermark(tmp_path / "n") for _ in range(4)]
    threads = [
        threading.Thread(target=lambda n=n, one=one: [one.advance(i) for i in range(n, 400, 4)])
        for n, one in enumerate(watermark)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watermark[0].read() == 399


@pytest.mark.parametrize("content", [b"", b"\0" * 12, b"x" * 11, b"x" * 13])
def test_a_damaged_file(content: bytes, tmp_path: Path) -> None:
    watermark = CommitWatermark(tmp_path / "n")
    (tmp_path / "n").write_bytes(content)
    if content == b"\0" * 12:
        # CRC-32 of zeros is not zero.
        assert watermark.path.read_bytes() == content
    with pytest.raises(WatermarkError, match="is damaged"):
        watermark.read()
    watermark.advance(5)
    assert watermark.read() == 5


def test_a_folder_that_cannot_be_written_raises_no_error(tmp_path: Path) -> None:
    CommitWatermark(tmp_path / "missing" / "n").advance(5)
    assert CommitWatermark(tmp_path / "missing" / "n").read() == 0


def test_each_commit_is_counted_whatever_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with SqliteCatalogue(path) as catalogue:
        watermark = CommitWatermark(tmp_path / "catalogue.sqlite-acknowledged")
        assert watermark.read() == 1  # the tables
        catalogue.upsert([Record("a"), Record("b")], XB[:2], "m")
        catalogue.set_meta("corpus", "c")
        catalogue.staging.add([1], XB[:1], "next")
        assert watermark.read() == 4
        with pytest.raises(ZeroDivisionError), catalogue._database.write():
            _ = 1 / 0
        assert watermark.read() == 4
        catalogue.backup(tmp_path / "copy")
        catalogue.delete([1])
        catalogue.restore(tmp_path / "copy")
        assert watermark.read() == 6
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
