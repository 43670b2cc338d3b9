"""What is indexed: the durable record from which any index can be rebuilt.

One row for each picture, with its embedding and the digest of the model that made it. What a
method has stored when it returns survives a crash of the process and of the machine.
"""

import json
import sqlite3
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias

import numpy as np

from index import backups
from index.database import CatalogueError, Database
from index.filters import Filter
from index.neighbours import (
    IdsLike,
    IndexInputError,
    Vectors,
    as_ids,
    as_vectors,
)
from index.payload import Payload, check_payload, check_text
from index.reading import LISTED, CatalogueReader, Changes, entries, listed
from index.records import Entry, Record, optional_text, row_from_record
from index.schema import DELETION_CRC
from index.staging import Staging, next_sequence, seal

__all__ = ["KEEP", "Catalogue", "CatalogueError", "Changes", "Entry", "ModelChangedError", "Record"]


class ModelChangedError(Exception):
    """The catalogue has gone over to another model than the caller embedded with."""


class Keep(Enum):
    """The type of KEEP."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
"""For `Catalogue.update`: leave this field as it is (None would clear it)."""
_Change: TypeAlias = str | Literal[Keep.KEEP] | None
_KEPT_KEYS = ("format_version", "sequence", "model", "checksum", "commits")


class Catalogue(CatalogueReader):
    """The catalogue in one SQLite file; all methods may be called from several threads.

    Raises CatalogueError, with the path and what to do, when the file is damaged, is another
    kind of database or has a newer format, on opening or in any method.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(Database(path))
        self.staging = Staging(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Later calls raise CatalogueError."""
        self._database.close()

    def upsert(
        self, records: Sequence[Record], embeddings: Vectors, model_digest: str
    ) -> list[int]:
        """Store the records with ``embeddings`` float32 (n, d); return their ids in order.

        A source that is stored already keeps its id and gets the new fields. Ids are never used
        again: a source that was deleted gets a new one. All records are stored or none.

        Raises IndexInputError for a wrong shape or value, for a source given twice, for a source
        that is stored with another origin, and for a dimension that differs from what this model
        has stored; ModelChangedError if the catalogue holds embeddings of another model.
        """
        xb = _matrix(embeddings)
        if len(xb) != len(records):
            raise IndexInputError(f"got {len(records)} records for {len(xb)} embeddings")
        rows = [row_from_record(record, f"records[{i}]") for i, record in enumerate(records)]
        if len({row[0] for row in rows}) != len(rows):
            raise IndexInputError("a source is given more than once; expected each source once")
        ids: list[int] = []
        with self._database.write() as connection:
            self._check_model(connection, model_digest, xb)
            sequence = next_sequence(connection)
            for row, vector in zip(rows, xb, strict=True):
                stored = connection.execute(
                    "INSERT INTO images (source, split, label, payload, content_hash, origin, "
                    "sequence, embedded_at, model_digest, embedding) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source) DO UPDATE SET "
                    "split = excluded.split, label = excluded.label, payload = excluded.payload, "
                    "content_hash = excluded.content_hash, edited = 0, "
                    "sequence = excluded.sequence, embedded_at = excluded.embedded_at, "
                    "model_digest = excluded.model_digest, embedding = excluded.embedding "
                    "WHERE origin = excluded.origin RETURNING id",
                    (*row, sequence, sequence, model_digest, vector.tobytes()),
                ).fetchall()
                if not stored:
                    raise IndexInputError(
                        f"the source {row[0]!r} is stored with another origin than {row[5]!r}; "
                        "use another name"
                    )
                ids.append(stored[0][0])
            listed = json.dumps(ids)
            connection.execute(f"DELETE FROM staged WHERE {LISTED}", (listed,))  # noqa: S608 - fixed words
            # The deletions stay, for whoever follows the changes; only the tombstones go.
            connection.execute(
                "UPDATE deletions SET tombstone = 0, crc = crc(id, source, sequence, 0) "
                "WHERE tombstone AND source IN (SELECT value FROM json_each(?))",
                (json.dumps([row[0] for row in rows]),),
            )
            seal(connection, sequence)
        return ids

    def embed(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None],
    ) -> int:
        """Give stored ids new embeddings float32 (n, d) of the same model; their fields stay.

        Ids that were deleted meanwhile are left out. Returns how many there were. Raises as
        `upsert` does.
        """
        xb = _matrix(embeddings)
        changed = 0
        with self._database.write() as connection:
            self._check_model(connection, model_digest, xb)
            sequence = next_sequence(connection)
            for id_, vector, content in zip(as_ids(ids).tolist(), xb, content_hashes, strict=True):
                changed += connection.execute(
                    "UPDATE images SET embedding = ?, model_digest = ?, content_hash = ?, "
                    "sequence = ?, embedded_at = ? WHERE id = ?",
                    (vector.tobytes(), model_digest, content, sequence, sequence, id_),
                ).rowcount
            # What another model has made of the picture before is of no use.
            connection.execute(f"DELETE FROM staged WHERE {LISTED}", (listed(ids),))  # noqa: S608 - fixed words
            seal(connection, sequence)
        return changed

    def _check_model(self, connection: sqlite3.Connection, model_digest: str, xb: Vectors) -> None:
        check_text(model_digest, "model_digest")
        row = connection.execute("SELECT value FROM meta WHERE key = 'model'").fetchone()
        if row is None:
            connection.execute("INSERT INTO meta VALUES ('model', ?)", (model_digest,))
        elif row[0] != model_digest:
            raise ModelChangedError(
                f"the catalogue holds embeddings of the model {row[0]}, these are of "
                f"{model_digest}; embed with the model in use, or change the model as a whole"
            )
        self._check_dimension(connection, model_digest, xb)

    def _check_dimension(
        self, connection: sqlite3.Connection, model_digest: str, xb: Vectors
    ) -> None:
        row = connection.execute(
            "SELECT length(embedding) FROM images WHERE model_digest = ? LIMIT 1", (model_digest,)
        ).fetchone()
        if row is not None and len(xb) and row[0] != 4 * xb.shape[1]:
            raise IndexInputError(
                f"embeddings has {xb.shape[1]} dimensions; model {model_digest} has stored "
                f"{row[0] // 4}"
            )

    def delete(self, ids: IdsLike, *, remember: bool = False) -> int:
        """Delete these ids and return how many there were. Unknown ids are ignored.

        With ``remember`` a picture of the corpus stays deleted: `forgotten_sources` names it.
        """
        return len(self._delete(LISTED, [listed(ids)], remember))

    def delete_where(self, where: Filter) -> list[int]:
        """Delete what matches, remembering it as `delete` does; return the ids, ascending."""
        condition, params = where.to_sql()
        return self._delete(condition, params, True)

    def _delete(self, condition: str, params: Sequence[str], remember: bool) -> list[int]:
        with self._database.write() as connection:
            rows = connection.execute(
                f"SELECT id FROM images WHERE {condition} ORDER BY id",  # noqa: S608 - values are bound
                params,
            ).fetchall()
            ids = [row[0] for row in rows]
            if not ids:
                return []
            sequence = next_sequence(connection)
            listed = json.dumps(ids)
            connection.execute(
                "INSERT INTO deletions (id, source, sequence, tombstone) "  # noqa: S608 - fixed words
                f"SELECT id, source, ?, ? AND origin = 'corpus' FROM images WHERE {LISTED}",
                (sequence, remember, listed),
            )
            connection.execute(
                f"UPDATE deletions SET crc = {DELETION_CRC} WHERE sequence = ?",  # noqa: S608 - fixed words
                (sequence,),
            )
            for table in ("staged", "images"):
                connection.execute(f"DELETE FROM {table} WHERE {LISTED}", (listed,))  # noqa: S608 - fixed words
        return ids

    def update(
        self,
        ids: IdsLike,
        *,
        label: _Change = KEEP,
        split: _Change = KEEP,
        payload: Payload | None = None,
        replace_payload: bool = False,
        by_hand: bool = False,
    ) -> int:
        """Change fields of these ids, all or none; return how many entries there were.

        ``by_hand`` marks entries whose label or split changes as edited.

        ``payload`` is merged into the stored one by its top-level keys, or takes its place with
        ``replace_payload``. Raises UnknownIdError that names the ids which are not stored.
        """
        changes = {
            name: optional_text(value, name)
            for name, value in (("label", label), ("split", split))
            if value is not KEEP
        }
        if payload is not None:
            check_payload(payload)
        with self._database.write() as connection:
            found = entries(connection, ids)
            sequence = next_sequence(connection)
            for entry in found:
                values: dict[str, str | int | None] = dict(changes)
                if values and by_hand:
                    values["edited"] = 1
                if payload is not None:
                    merged = dict(payload) if replace_payload else {**entry.payload, **payload}
                    values["payload"] = json.dumps(merged, ensure_ascii=False)
                if values:
                    values["sequence"] = sequence
                    assignments = ", ".join(f"{name} = ?" for name in values)
                    connection.execute(
                        f"UPDATE images SET {assignments} WHERE id = ?",  # noqa: S608 - fixed names
                        (*values.values(), entry.id),
                    )
            seal(connection, sequence)
        return len(found)

    def backup(self, path: Path) -> None:
        """Write a copy of one state to ``path``, which must not exist yet; durable."""
        backups.backup(self._database, path)

    def restore(self, path: Path) -> tuple[int, int]:
        """Put the images of a backup in the place of the present ones, in one transaction.

        Returns how many were stored or changed and how many deleted. Sequence numbers go on
        ascending and ids are still never used again, so that whoever follows `changes` sees an
        ordinary change.
        """
        return backups.restore(self._database, path)

    def set_meta(self, key: str, value: str) -> None:
        """Store a value, for example the corpus name, in the place of an earlier one."""
        if key in _KEPT_KEYS:
            raise IndexInputError(f"key is {key!r}, which the catalogue keeps; use another key")
        check_text(key, "key")
        check_text(value, "value")
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _matrix(embeddings: Vectors) -> Vectors:
    if not isinstance(embeddings, np.ndarray) or embeddings.ndim != 2:
        raise IndexInputError("embeddings is not a matrix; expected float32 (n, d)")
    xb: Vectors = as_vectors(embeddings, embeddings.shape[1], "embeddings")
    return xb.astype("<f4", copy=False)
