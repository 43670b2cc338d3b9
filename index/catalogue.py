"""What is indexed: the durable record from which any index can be rebuilt.

One row for each picture, with its embedding and the digest of the model that made it. What a
method has stored when it returns survives a crash of the process and of the machine.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self, TypeAlias

import numpy as np

from index import backups
from index.database import CatalogueError, Database
from index.filters import Filter
from index.neighbours import (
    Ids,
    IdsLike,
    IndexInputError,
    UnknownIdError,
    Vectors,
    as_ids,
    as_vectors,
)
from index.payload import Payload, check_number, check_payload, check_text
from index.records import Entry, Origin, Record, entry_from_row, optional_text, row_from_record
from index.schema import DELETION_CRC, EMBEDDING_CRC, FIELDS, FIELDS_CRC
from index.staging import Staging, next_sequence, seal, unpack

__all__ = ["KEEP", "Catalogue", "CatalogueError", "Changes", "Entry", "ModelChangedError", "Record"]


class ModelChangedError(Exception):
    """The catalogue has gone over to another model than the caller embedded with."""


class Changes(NamedTuple):
    """What happened to the embeddings of one model after some sequence number.

    ``ids`` int64 (n,) ascending with their present embeddings ``xb`` float32 (n, d), d 0 without
    any, and ``deleted`` int64 (m,); all of it as of ``sequence``.
    """

    sequence: int
    ids: Ids
    xb: Vectors
    deleted: Ids


class Keep(Enum):
    """The type of KEEP."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
"""For `Catalogue.update`: leave this field as it is (None would clear it)."""
_Change: TypeAlias = str | Literal[Keep.KEEP] | None
_FIELDS = f"{FIELDS}, fields_crc"
_KEPT_KEYS = ("format_version", "sequence", "model")
_LISTED = "id IN (SELECT value FROM json_each(?))"


class Catalogue:
    """The catalogue in one SQLite file; all methods may be called from several threads.

    Raises CatalogueError, with the path and what to do, when the file is damaged, is another
    kind of database or has a newer format, on opening or in any method.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path)
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
            connection.execute(f"DELETE FROM staged WHERE {_LISTED}", (listed,))  # noqa: S608 - fixed words
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
            seal(connection, sequence)
        return changed

    def _check_model(
        self, connection: sqlite3.Connection, model_digest: str, xb: Vectors
    ) -> None:
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
        return len(self._delete(_LISTED, [_listed(ids)], remember))

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
                f"SELECT id, source, ?, ? AND origin = 'corpus' FROM images WHERE {_LISTED}",
                (sequence, remember, listed),
            )
            connection.execute(
                f"UPDATE deletions SET crc = {DELETION_CRC} WHERE sequence = ?",  # noqa: S608 - fixed words
                (sequence,),
            )
            for table in ("staged", "images"):
                connection.execute(f"DELETE FROM {table} WHERE {_LISTED}", (listed,))  # noqa: S608 - fixed words
        return ids

    def forgotten_sources(self) -> set[str]:
        """Sources of the corpus that were deleted by hand and shall stay so."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT source FROM deletions WHERE tombstone").fetchall()
        return {row[0] for row in rows}

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
            entries = _entries(connection, ids)
            sequence = next_sequence(connection)
            for entry in entries:
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
        return len(entries)

    def get(self, ids: IdsLike) -> list[Entry]:
        """The entries in the order given. Raises UnknownIdError that names the missing ids."""
        with self._database.read() as connection:
            return _entries(connection, ids)

    def page(self, after_id: int, limit: int, where: Filter | None = None) -> list[Entry]:
        """At most ``limit`` entries with an id above ``after_id``, by ascending id."""
        if limit < 1:
            raise IndexInputError(f"limit is {limit}; expected 1 or more")
        check_number(after_id, "after_id")
        check_number(limit, "limit")
        condition, params = _where(where)
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {_FIELDS} FROM images WHERE id > ? AND {condition} ORDER BY id LIMIT ?",  # noqa: S608 - values are bound
                (after_id, *params, limit),
            ).fetchall()
        return [entry_from_row(row) for row in rows]

    def count(self, where: Filter | None = None) -> int:
        """The number of entries that match."""
        condition, params = _where(where)
        with self._database.read() as connection:
            (number,) = connection.execute(
                f"SELECT count(*) FROM images WHERE {condition}",  # noqa: S608 - values are bound
                params,
            ).fetchone()
        return int(number)

    def ids(self, where: Filter | None = None) -> Ids:
        """The ids that match, int64 (n,), ascending."""
        condition, params = _where(where)
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT id FROM images WHERE {condition} ORDER BY id",  # noqa: S608 - values are bound
                params,
            ).fetchall()
        return np.array([row[0] for row in rows], np.int64)

    def embeddings(self, model_digest: str) -> tuple[Ids, Vectors]:
        """All that this model made: ids int64 (n,) ascending, and float32 (n, d).

        Without any, d is 0. Raises CatalogueError if a stored embedding has another length.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id, embedding, embedding_crc FROM images WHERE model_digest = ? "
                "ORDER BY id",
                (model_digest,),
            ).fetchall()
        return unpack(rows, model_digest)

    def snapshot_embeddings(self, model_digest: str) -> tuple[int, Ids, Vectors]:
        """The sequence number and, as of it, what `embeddings` gives."""
        with self._database.read_one_state() as connection:
            sequence = _sequence(connection)
            rows = connection.execute(
                "SELECT id, embedding, embedding_crc FROM images WHERE model_digest = ? "
                "ORDER BY id",
                (model_digest,),
            ).fetchall()
        return sequence, *unpack(rows, model_digest)

    def sequence(self) -> int:
        """The number of the last write, whichever process made it; some microseconds."""
        with self._database.read() as connection:
            return _sequence(connection)

    def changes(self, after: int, model_digest: str) -> Changes:
        """What happened to this model's embeddings after the write ``after``."""
        with self._database.read_one_state() as connection:
            sequence = _sequence(connection)
            rows = connection.execute(
                "SELECT id, embedding, embedding_crc FROM images WHERE embedded_at > ? "
                "AND model_digest = ? ORDER BY id",
                (after, model_digest),
            ).fetchall()
            gone = connection.execute(
                f"SELECT id, crc, {DELETION_CRC} FROM deletions WHERE sequence > ? ORDER BY id",  # noqa: S608 - fixed words
                (after,),
            ).fetchall()
        for id_, expected, found in gone:
            if found != expected:
                raise CatalogueError(f"the record that id {id_} was deleted is damaged; {_REMEDY}")
        deleted = np.array([row[0] for row in gone], np.int64)
        return Changes(sequence, *unpack(rows, model_digest), deleted)

    def model(self) -> str | None:
        """The digest of the model whose embeddings are in use; None before the first."""
        return self.get_meta("model")

    def known_sources(self, model_digest: str) -> dict[str, int]:
        """Source to id of everything that this model has embedded."""
        return self._pairs("SELECT source, id FROM images WHERE model_digest = ?", model_digest)

    def all_sources(self, origin: Origin | None = None) -> dict[str, int]:
        """Source to id of everything, or of everything with this origin."""
        if origin is None:
            return self._pairs("SELECT source, id FROM images")
        return self._pairs("SELECT source, id FROM images WHERE origin = ?", origin)

    def content_hashes(self, origin: Origin) -> set[str]:
        """The content hashes of everything with this origin."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT DISTINCT content_hash FROM images "
                "WHERE origin = ? AND content_hash IS NOT NULL",
                (origin,),
            ).fetchall()
        return {row[0] for row in rows}

    def model_digests(self) -> dict[str, int]:
        """Model digest to the number of embeddings it made."""
        return self._pairs("SELECT model_digest, count(*) FROM images GROUP BY 1 ORDER BY 1")

    def label_counts(self) -> dict[str, int]:
        """Label to the number of entries that have it; entries without one are left out."""
        return self._pairs(
            "SELECT label, count(*) FROM images WHERE label IS NOT NULL GROUP BY 1 ORDER BY 1"
        )

    def split_counts(self) -> dict[str, int]:
        """Split to the number of entries in it; entries without one are left out."""
        return self._pairs(
            "SELECT split, count(*) FROM images WHERE split IS NOT NULL GROUP BY 1 ORDER BY 1"
        )

    def check(self) -> str | None:
        """What is wrong with the file or with any record in it, or None; reads all of it."""
        try:
            with self._database.read_one_state() as connection:
                return _check(connection)
        except CatalogueError as error:
            return str(error)

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

    def _pairs(self, statement: str, *params: str) -> dict[str, int]:
        with self._database.read() as connection:
            return dict(connection.execute(statement, params).fetchall())

    def get_meta(self, key: str) -> str | None:
        """The value under ``key``, or None."""
        with self._database.read() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Store a value, for example the corpus name, in the place of an earlier one."""
        if key in _KEPT_KEYS:
            raise IndexInputError(f"key is {key!r}, which the catalogue keeps; use another key")
        check_text(key, "key")
        check_text(value, "value")
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


_REMEDY = "restore a snapshot or a backup"


def _matrix(embeddings: Vectors) -> Vectors:
    if not isinstance(embeddings, np.ndarray) or embeddings.ndim != 2:
        raise IndexInputError("embeddings is not a matrix; expected float32 (n, d)")
    xb: Vectors = as_vectors(embeddings, embeddings.shape[1], "embeddings")
    return xb.astype("<f4", copy=False)


def _sequence(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM meta WHERE key = 'sequence'").fetchone()
    if row is None or not row[0].isdecimal():
        raise CatalogueError(f"the catalogue has lost its sequence number; {_REMEDY}")
    return int(row[0])


def _check(connection: sqlite3.Connection) -> str | None:
    rows = connection.execute("PRAGMA integrity_check").fetchall()
    found = "; ".join(str(row[0]) for row in rows)
    if found != "ok":
        return found[:500]
    for table, condition in (
        ("images", f"fields_crc <> {FIELDS_CRC} OR embedding_crc <> {EMBEDDING_CRC}"),
        ("staged", f"embedding_crc <> {EMBEDDING_CRC}"),
        ("deletions", f"crc <> {DELETION_CRC}"),
    ):
        damaged = connection.execute(
            f"SELECT id FROM {table} WHERE {condition} LIMIT 10"  # noqa: S608 - fixed words
        ).fetchall()
        if damaged:
            ids = ", ".join(str(row[0]) for row in damaged)
            return f"the checksums of {table} {ids} do not fit; {_REMEDY}"
    (last,) = connection.execute(
        "SELECT max(coalesce((SELECT max(sequence) FROM images), 0), "
        "coalesce((SELECT max(sequence) FROM deletions), 0))"
    ).fetchone()
    if last > _sequence(connection):
        return f"the sequence number is below {last}, that of a record; {_REMEDY}"
    return None


def _listed(ids: IdsLike) -> str:
    return json.dumps(as_ids(ids).tolist())


def _where(where: Filter | None) -> tuple[str, list[str]]:
    return ("1", []) if where is None else where.to_sql()


def _entries(connection: sqlite3.Connection, ids: IdsLike) -> list[Entry]:
    wanted = as_ids(ids).tolist()
    rows = connection.execute(
        f"SELECT {_FIELDS} FROM images WHERE {_LISTED}",  # noqa: S608 - fixed words
        (json.dumps(wanted),),
    ).fetchall()
    found: Mapping[int, Entry] = {row[0]: entry_from_row(row) for row in rows}
    missing = [wanted_id for wanted_id in dict.fromkeys(wanted) if wanted_id not in found]
    if missing:
        raise UnknownIdError(missing, "the catalogue")
    return [found[wanted_id] for wanted_id in wanted]
