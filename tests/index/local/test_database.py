import sqlite3
from pathlib import Path

import pytest

from index.contract import CatalogueError
from index.local.database import Database


def test_a_failed_write_stores_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "catalogue.db")
    with pytest.raises(KeyError), database.write() as connection:
        connection.execute("INSERT INTO meta VALUES ('half', '1')")
        raise KeyError("half")
    with database.write() as connection:
        connection.execute("INSERT INTO meta VALUES ('whole', '1')")
    with database.read() as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM meta ORDER BY key")]
    assert keys == ["checksum", "commits", "epoch", "format_version", "sequence", "whole"]
    database.close()


def test_every_connection_is_durable(tmp_path: Path) -> None:
    database = Database(tmp_path / "catalogue.db")
    with database.read() as first, database.write() as second:
        for connection in (first, second):
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            # 2 is FULL.
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert first is not second
    database.close()


def test_connections_are_reused(tmp_path: Path) -> None:
    database = Database(tmp_path / "catalogue.db")
    with database.read() as first:
        pass
    with database.read() as second:
        assert second is first
    database.close()


def test_a_connection_in_use_is_closed_when_it_is_released(tmp_path: Path) -> None:
    database = Database(tmp_path / "catalogue.db")
    with database.read() as connection:
        database.close()
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_errors_of_sqlite_name_the_file(tmp_path: Path) -> None:
    database = Database(tmp_path / "catalogue.db")
    with (
        pytest.raises(CatalogueError, match=r"catalogue\.db: SQLite says no such table: ghosts"),
        database.read() as connection,
    ):
        connection.execute("SELECT * FROM ghosts")
    database.close()
    folder = tmp_path / "folder.db"
    folder.mkdir()
    with pytest.raises(CatalogueError, match=r"folder\.db: SQLite says unable to open"):
        Database(folder)
