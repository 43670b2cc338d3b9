"""Staged embeddings of a model not yet in use, and reading rows and their checksums.

They are staged in durable batches, so that an interrupted change of model resumes where it stopped.
Promoting them takes one transaction.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np

from index.contract import CatalogueError, Ids, IdsLike, IndexInputError, Vectors
from index.local.database import Database
from index.local.schema import EMBEDDING_CRC, FIELDS_CRC, crc
from index.records import Entry
from index.vectors import as_embeddings, as_ids


class SqliteStaging:
    """Implements `index.contract.Staging` in the catalogue's file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None] | None = None,
    ) -> int:
        xb = as_embeddings(embeddings).astype("<f4", copy=False)
        wanted = as_ids(ids).tolist()
        hashes = [None] * len(wanted) if content_hashes is None else content_hashes
        stored = 0
        with self._database.write() as connection:
            for id_, vector, content in zip(wanted, xb, hashes, strict=True):
                data = vector.tobytes()
                stored += connection.execute(
                    "INSERT OR REPLACE INTO staged (id, model_digest, embedding, embedding_crc) "
                    "SELECT id, ?, ?, ? FROM images WHERE id = ? AND (content_hash IS ? OR ?)",
                    (
                        model_digest,
                        data,
                        crc(id_, model_digest, data),
                        id_,
                        content,
                        content_hashes is None,
                    ),
                ).rowcount
        return stored

    def missing(self, model_digest: str) -> Ids:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id FROM images WHERE model_digest <> ?1 AND id NOT IN "
                "(SELECT id FROM staged WHERE model_digest = ?1) ORDER BY id",
                (model_digest,),
            ).fetchall()
        return np.array([row[0] for row in rows], np.int64)

    def counts(self) -> dict[str, int]:
        with self._database.read() as connection:
            return dict(
                connection.execute(
                    "SELECT model_digest, count(*) FROM staged GROUP BY 1 ORDER BY 1"
                ).fetchall()
            )

    def embeddings(self, model_digest: str) -> tuple[Ids, Vectors]:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id, embedding, embedding_crc FROM staged WHERE model_digest = ? "
                "ORDER BY id",
                (model_digest,),
            ).fetchall()
        return unpack(rows, model_digest)

    def promote(self, model_digest: str) -> int:
        """See `index.contract.Staging.promote`.

        From then on, the catalogue accepts embeddings of this model only. Entries that the model
        could not embed keep their old embedding, and no index of the new model holds them.
        """
        with self._database.write() as connection:
            (total,) = connection.execute("SELECT count(*) FROM images").fetchone()
            (staged,) = connection.execute(
                "SELECT count(*) FROM staged WHERE model_digest = ?", (model_digest,)
            ).fetchone()
            (done,) = connection.execute(
                "SELECT count(*) FROM images WHERE model_digest = ?", (model_digest,)
            ).fetchone()
            if total and not staged and not done:
                raise IndexInputError(
                    f"nothing is staged for the model {model_digest}; embed with it first"
                )
            sequence = next_sequence(connection)
            connection.execute(
                "UPDATE images SET embedding = staged.embedding, model_digest = ?1, sequence = ?2,"
                " embedded_at = ?2 FROM staged WHERE staged.id = images.id "
                "AND staged.model_digest = ?1",
                (model_digest, sequence),
            )
            update_checksums(connection, sequence)
            connection.execute("DELETE FROM staged")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('model', ?)", (model_digest,))
        return int(staged)


def next_sequence(connection: sqlite3.Connection) -> int:
    """Assign the next sequence number to the current transaction."""
    row = connection.execute(
        "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'sequence' RETURNING value"
    ).fetchall()
    if not row:
        raise CatalogueError("the catalogue has lost its sequence number; restore it from a backup")
    return int(row[0][0])


def update_checksums(connection: sqlite3.Connection, sequence: int) -> None:
    """Update the checksums of all rows that the write ``sequence`` has changed."""
    connection.execute(
        f"UPDATE images SET embedding_crc = {EMBEDDING_CRC} WHERE embedded_at = ?",  # noqa: S608 - fixed words
        (sequence,),
    )
    connection.execute(
        f"UPDATE images SET fields_crc = {FIELDS_CRC} WHERE sequence = ?",  # noqa: S608 - fixed words
        (sequence,),
    )


def unpack(rows: list[tuple[int, bytes, int]], model_digest: str) -> tuple[Ids, Vectors]:
    """Rows of id, embedding and checksum as ids int64 (n,) and float32 (n, d); d is 0 without any.

    Raises CatalogueError if an embedding is damaged or has another length.
    """
    ids = np.array([row[0] for row in rows], np.int64)
    size = len(rows[0][1]) if rows else 0
    for id_, data, expected in rows:
        if len(data) != size or size % 4:
            raise CatalogueError(
                f"the embedding of id {id_} is not {size} bytes long like the others; "
                "index its picture again"
            )
        if crc(id_, model_digest, data) != expected:
            raise CatalogueError(
                f"the embedding of id {id_} is damaged: its checksum does not match; run "
                "`lookalike index build --reembed`, or restore a snapshot"
            )
    xb = np.frombuffer(b"".join(row[1] for row in rows), "<f4").astype(np.float32)
    return ids, xb.reshape(len(rows), size // 4)


def entry_of(row: tuple[Any, ...]) -> Entry:
    """The entry of a row: the columns of `index.local.schema.FIELDS`, then their checksum.

    Raises CatalogueError if the checksum does not match.
    """
    *values, expected = row
    if crc(*values) != expected:
        raise CatalogueError(
            f"the record of id {values[0]} is damaged: its checksum is {crc(*values)}, expected "
            f"{expected}; restore a snapshot or a backup, or delete this id and add its picture "
            "again"
        )
    entry_id, source, split, label, payload, content_hash, origin, edited, *_ = values
    return Entry(
        source, split, label, json.loads(payload), content_hash, origin, bool(edited), id=entry_id
    )
