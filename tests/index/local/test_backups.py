"""Snapshots that come from elsewhere: whole by their checksums, and made to do harm."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.contract import CatalogueError, SnapshotCorruptError
from index.files import sha256_of
from index.local import snapshots
from index.local.catalogue import SqliteCatalogue
from index.local.manifest import with_checksum
from index.local.schema import EMBEDDING_CRC, FIELDS_CRC, crc
from index.records import Record
from tests.index.vectors import random_vectors

XB = random_vectors(6, 8, seed=0)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[SqliteCatalogue]:
    with SqliteCatalogue(tmp_path / "catalogue.sqlite") as opened:
        opened.upsert([Record(f"{i}", "train", "ab"[i % 2], {"n": i}) for i in range(6)], XB, "m")
        snapshots.create(tmp_path, opened, "a")
        opened.delete([1])
        yield opened


def described(root: Path, **changes: Any) -> None:
    """Change the description of the snapshot, with checksums that match."""
    path = root / "snapshots/a/snapshot.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    content["files"] = {"catalogue.sqlite": sha256_of(path.with_name("catalogue.sqlite"))}
    path.write_text(with_checksum({**content, **changes}))


def refused(root: Path, catalogue: SqliteCatalogue, words: str) -> None:
    before = catalogue.get(catalogue.ids())
    with pytest.raises((CatalogueError, SnapshotCorruptError), match=words):
        snapshots.restore(root, catalogue, "a")
    assert catalogue.get(catalogue.ids()) == before
    assert catalogue.check() is None


@pytest.mark.parametrize(
    "files",
    [
        {"../../../secret": "0"},
        {"/etc/passwd": "0"},
        {"catalogue.sqlite": "0", "other": "0"},
        {},
        ["catalogue.sqlite"],
        {"catalogue.sqlite": 5},
    ],
)
def test_no_name_leads_out_of_the_folder(
    catalogue: SqliteCatalogue, tmp_path: Path, files: Any
) -> None:
    described(tmp_path, files=files)
    refused(tmp_path, catalogue, "expected the file catalogue.sqlite alone")


def test_descriptions_have_types_and_an_end(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    for changes in ({"count": "7"}, {"sequence": -1}, {"size": True}, {"corpus": ["x"]}):
        described(tmp_path, **changes)
        refused(tmp_path, catalogue, "unexpected values")
    path = tmp_path / "snapshots/a/snapshot.json"
    for text in ("[" * 100_000, " " * 2**21 + "{}"):
        path.write_text(text)
        refused(tmp_path, catalogue, "cannot be read")


@pytest.mark.parametrize("file", ["catalogue.sqlite", "snapshot.json"])
def test_links_and_pipes_are_not_read(
    catalogue: SqliteCatalogue, tmp_path: Path, file: str
) -> None:
    path = tmp_path / "snapshots/a" / file
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    refused(tmp_path, catalogue, "cannot be read")
    path.unlink()
    os.mkfifo(path)
    refused(tmp_path, catalogue, "cannot be read")


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT * FROM n"
HOSTILE = {
    "a view that never ends": (
        "ALTER TABLE images RENAME TO real; CREATE VIEW images AS " + ENDLESS,
        "has the view 'images'; expected plain tables",
    ),
    "a virtual table": (
        "CREATE VIRTUAL TABLE more USING fts5(text)",
        "has the virtual table 'more'",
    ),
    "a computed column": (
        "ALTER TABLE images ADD COLUMN more AS (upper(source))",
        "has computed columns in 'images'",
    ),
    "no embeddings": ("ALTER TABLE images DROP COLUMN embedding", "lacks the columns"),
    "a list as payload": ("UPDATE images SET payload = '[]'", "values that no catalogue stores"),
    "a damaged payload": ("UPDATE images SET payload = '{'", "values that no catalogue stores"),
    "bytes as source": (
        "UPDATE images SET source = x'00' WHERE id = 2",
        "record of id 2 has values",
    ),
    "another origin": ("UPDATE images SET origin = 'file'", "values that no catalogue stores"),
    "another dimension": (
        "UPDATE images SET embedding = zeroblob(16) WHERE id = 3",
        "embedding of id 3 has 16 bytes; expected 32, a vector of length 1",
    ),
    "no number": (
        f"UPDATE images SET embedding = x'{np.full(8, np.nan, '<f4').tobytes().hex()}'",
        "expected 32, a vector of length 1",
    ),
    "a huge text": (
        f"UPDATE images SET label = CAST(zeroblob({2**26 + 1}) AS TEXT) WHERE id = 3",
        "too big",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_catalogue_stores_is_refused(
    catalogue: SqliteCatalogue, tmp_path: Path, name: str
) -> None:
    script, words = HOSTILE[name]
    path = tmp_path / "snapshots/a/catalogue.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.create_function("crc", -1, crc, deterministic=True)
        connection.executescript(script)
        if script.startswith("UPDATE"):
            connection.execute(
                f"UPDATE images SET fields_crc = {FIELDS_CRC}, embedding_crc = {EMBEDDING_CRC}"
            )
        connection.commit()
    described(tmp_path)
    refused(tmp_path, catalogue, words)


def test_triggers_of_a_snapshot_do_nothing(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    path = tmp_path / "snapshots/a/catalogue.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TRIGGER harm AFTER INSERT ON images BEGIN DELETE FROM images; END"
        )
    described(tmp_path)
    _, changed, _ = snapshots.restore(tmp_path, catalogue, "a")
    assert (changed, catalogue.count(), catalogue.check()) == (1, 6, None)
