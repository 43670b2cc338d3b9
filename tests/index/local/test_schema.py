"""A catalogue of format 1 is upgraded in place when it is opened."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from index.local.catalogue import SqliteCatalogue
from index.records import Entry, Record
from tests.index.vectors import random_vectors

XB = random_vectors(5, 8, seed=0)
# As created by Lookalike 0.1.0.
FORMAT_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL UNIQUE,
    split TEXT,
    label TEXT,
    payload TEXT NOT NULL,
    model_digest TEXT NOT NULL,
    embedding BLOB NOT NULL
);
CREATE INDEX images_label ON images (label);
CREATE INDEX images_split ON images (split);
CREATE INDEX images_model_digest ON images (model_digest);
INSERT INTO meta VALUES ('format_version', '1'), ('corpus', 'CIFAR-10');
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "catalogue.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(FORMAT_1)
        for i, vector in enumerate(XB):
            connection.execute(
                "INSERT INTO images (source, split, label, payload, model_digest, embedding) "
                "VALUES (?, 'train', ?, ?, 'm', ?)",
                (f"s/{i}", "ab"[i % 2], '{"ü": [1, null]}', vector.tobytes()),
            )
        connection.execute("DELETE FROM images WHERE id = 5")
        connection.commit()
    return path


def test_nothing_is_lost(old: Path) -> None:
    for _ in range(2):
        with SqliteCatalogue(old) as catalogue:
            assert catalogue.check() is None
            assert catalogue.get_meta("format_version") == "3"
            assert catalogue.get_meta("corpus") == "CIFAR-10"
            assert (catalogue.model(), catalogue.sequence()) == ("m", 0)
            assert catalogue.get([2]) == [
                Entry("s/1", "train", "b", {"ü": [1, None]}, None, "corpus", id=2)
            ]
            ids, xb = catalogue.embeddings("m")
            assert ids.tolist() == [1, 2, 3, 4]
            np.testing.assert_array_equal(xb, XB[:4])
            assert len(catalogue.changes(catalogue.moment()._replace(sequence=0), "m").ids) == 0
    with SqliteCatalogue(old) as catalogue:
        # Id 5 was used once, so it is not reused.
        assert catalogue.upsert([Record("new")], XB[:1], "m") == [6]
        assert catalogue.changes(catalogue.moment()._replace(sequence=0), "m").ids.tolist() == [6]


def test_killed_during_the_upgrade_the_old_one_is_intact(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE images_2 (x)")
        connection.execute("DELETE FROM images")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("index.local.database.upgrade", killed)
        with pytest.raises(KeyboardInterrupt):
            SqliteCatalogue(old)
    with SqliteCatalogue(old) as catalogue:
        assert catalogue.count() == 4


def test_an_embedding_made_by_two_models(old: Path) -> None:
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("UPDATE images SET model_digest = 'n' WHERE id > 2")
        connection.commit()
    with SqliteCatalogue(old) as catalogue:
        assert catalogue.model() is None
        assert catalogue.model_digests() == {"m": 2, "n": 2}
        assert catalogue.staging.missing("n").tolist() == [1, 2]
