"""Commits that were acknowledged and are gone are noticed."""

import shutil
import threading
from pathlib import Path

import pytest

from index.acknowledged import Acknowledged, AcknowledgedError
from index.catalogue import Catalogue, CatalogueError, Record
from tests.index.vectors import random_vectors

XB = random_vectors(5, 8, seed=0)


def test_the_highest_number_stays(tmp_path: Path) -> None:
    noted = Acknowledged(tmp_path / "n")
    assert noted.read() == 0
    noted.note(7)
    noted.note(3)
    assert noted.read() == 7
    assert Acknowledged(tmp_path / "n").read() == 7
    assert (tmp_path / "n").stat().st_size == 12
    noted.forget()
    noted.forget()
    assert noted.read() == 0


def test_many_writers_at_once(tmp_path: Path) -> None:
    noted = [Acknowledged(tmp_path / "n") for _ in range(4)]
    threads = [
        threading.Thread(target=lambda n=n, one=one: [one.note(i) for i in range(n, 400, 4)])
        for n, one in enumerate(noted)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert noted[0].read() == 399


@pytest.mark.parametrize("content", [b"", b"\0" * 12, b"x" * 11, b"x" * 13])
def test_a_damaged_file(content: bytes, tmp_path: Path) -> None:
    noted = Acknowledged(tmp_path / "n")
    (tmp_path / "n").write_bytes(content)
    if content == b"\0" * 12:
        # CRC-32 of zeros is not zero.
        assert noted.path.read_bytes() == content
    with pytest.raises(AcknowledgedError, match="is damaged"):
        noted.read()
    noted.note(5)
    assert noted.read() == 5


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    Acknowledged(tmp_path / "missing" / "n").note(5)
    assert Acknowledged(tmp_path / "missing" / "n").read() == 0


def test_each_commit_is_counted_whatever_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with Catalogue(path) as catalogue:
        noted = Acknowledged(tmp_path / "catalogue.sqlite-acknowledged")
        assert noted.read() == 1  # the tables
        catalogue.upsert([Record("a"), Record("b")], XB[:2], "m")
        catalogue.set_meta("corpus", "c")
        catalogue.staging.add([1], XB[:1], "next")
        assert noted.read() == 4
        with pytest.raises(ZeroDivisionError), catalogue._database.write():
            _ = 1 / 0
        assert noted.read() == 4
        catalogue.backup(tmp_path / "copy")
        catalogue.delete([1])
        catalogue.restore(tmp_path / "copy")
        assert noted.read() == 6
        assert catalogue.check() is None


def killed(tmp_path: Path) -> Path:
    """A copy of a store in use, whose last writes are in the log only."""
    with Catalogue(tmp_path / "alive" / "catalogue.sqlite") as catalogue:
        for i in range(5):
            catalogue.upsert([Record(str(i))], XB[i : i + 1], "m")
        shutil.copytree(tmp_path / "alive", tmp_path / "dead")
    (tmp_path / "dead" / "catalogue.sqlite-shm").unlink()
    return tmp_path / "dead" / "catalogue.sqlite"


def test_a_damaged_log_is_refused_and_a_whole_one_is_not(tmp_path: Path) -> None:
    path = killed(tmp_path)
    log = path.with_name("catalogue.sqlite-wal")
    whole = log.read_bytes()
    log.write_bytes(whole[:-100])
    with pytest.raises(CatalogueError, match="ends with commit 5, and 6 were made") as error:
        Catalogue(path)
    assert "catalogue.sqlite-wal" in str(error.value)
    # What is left serves once somebody has said so.
    path.with_name("catalogue.sqlite-acknowledged").unlink()
    with Catalogue(path) as catalogue:
        assert catalogue.count() == 4
        catalogue.upsert([Record("new")], XB[:1], "m")
    Catalogue(path).close()


def test_a_whole_log_is_taken(tmp_path: Path) -> None:
    with Catalogue(killed(tmp_path)) as catalogue:
        assert catalogue.count() == 5


def test_a_log_that_is_gone_with_everything_in_it(tmp_path: Path) -> None:
    path = killed(tmp_path)
    path.with_name("catalogue.sqlite-wal").unlink()
    with pytest.raises(CatalogueError, match="ends with commit 0, and 6 were made"):
        Catalogue(path)
    path.with_name("catalogue.sqlite-acknowledged").write_bytes(b"x")
    with pytest.raises(CatalogueError, match="nobody can tell"):
        Catalogue(path)


def test_a_catalogue_that_was_taken_away_begins_anew(tmp_path: Path) -> None:
    path = killed(tmp_path)
    for name in ("catalogue.sqlite", "catalogue.sqlite-wal"):
        path.with_name(name).unlink()
    for _ in range(2):
        with Catalogue(path) as catalogue:
            assert catalogue.count() == 0


def test_a_catalogue_from_before_there_was_a_count(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with Catalogue(path) as catalogue:
        catalogue.upsert([Record("a")], XB[:1], "m")
        with catalogue._database.write() as connection:
            connection.execute("DELETE FROM meta WHERE key = 'commits'")
        path.with_name("catalogue.sqlite-acknowledged").unlink()
    for count in (2, 3):
        with Catalogue(path) as catalogue:
            catalogue.upsert([Record(str(count))], XB[:1], "m")
            assert catalogue.count() == count
            assert catalogue.check() is None
