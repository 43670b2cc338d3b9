"""What is indexed: the durable record from which any index can be rebuilt.

One row for each picture, with its embedding and the digest of the model that made it. What a
method has stored when it returns survives a crash of the process and of the machine.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias

import numpy as np

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
from index.records import Entry, Record, entry_from_row, optional_text, row_from_record

__all__ = ["KEEP", "Catalogue", "CatalogueError", "Entry", "Record"]


class Keep(Enum):
    """The type of KEEP."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
"""For `Catalogue.update`: leave this field as it is (None would clear it)."""
_Change: TypeAlias = str | Literal[Keep.KEEP] | None
_FIELDS = "id, source, split, label, payload"
_FORMAT_KEY = "format_version"
_LISTED = "id IN (SELECT value FROM json_each(?))"


class Catalogue:
    """The catalogue in one SQLite file; all methods may be called from several threads.

    Raises CatalogueError, with the path and what to do, when the file is damaged, is another
    kind of database or has a newer format, on opening or in any method.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path)

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

        Raises IndexInputError for a wrong shape or value, for a source given twice, and for a
        dimension that differs from what this model has stored.
        """
        if not isinstance(embeddings, np.ndarray) or embeddings.ndim != 2:
            raise IndexInputError("embeddings is not a matrix; expected float32 (n, d)")
        xb = as_vectors(embeddings, embeddings.shape[1], "embeddings").astype("<f4", copy=False)
        if len(xb) != len(records):
            raise IndexInputError(f"got {len(records)} records for {len(xb)} embeddings")
        check_text(model_digest, "model_digest")
        rows = [row_from_record(record, f"records[{i}]") for i, record in enumerate(records)]
        if len({row[0] for row in rows}) != len(rows):
            raise IndexInputError("a source is given more than once; expected each source once")
        ids: list[int] = []
        with self._database.write() as connection:
            self._check_dimension(connection, model_digest, xb)
            for row, vector in zip(rows, xb, strict=True):
                (stored,) = connection.execute(
                    "INSERT INTO images (source, split, label, payload, model_digest, embedding) "
                    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (source) DO UPDATE SET "
                    "split = excluded.split, label = excluded.label, payload = excluded.payload, "
                    "model_digest = excluded.model_digest, embedding = excluded.embedding "
                    "RETURNING id",
                    (*row, model_digest, vector.tobytes()),
                ).fetchall()
                ids.append(stored[0])
        return ids

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

    def delete(self, ids: IdsLike) -> int:
        """Delete these ids and return how many there were. Unknown ids are ignored."""
        with self._database.write() as connection:
            cursor = connection.execute(f"DELETE FROM images WHERE {_LISTED}", (_listed(ids),))  # noqa: S608 - fixed words
            return cursor.rowcount

    def update(
        self,
        ids: IdsLike,
        *,
        label: _Change = KEEP,
        split: _Change = KEEP,
        payload: Payload | None = None,
        replace_payload: bool = False,
    ) -> int:
        """Change fields of these ids, all or none; return how many entries there were.

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
            for entry in entries:
                values = dict(changes)
                if payload is not None:
                    merged = dict(payload) if replace_payload else {**entry.payload, **payload}
                    values["payload"] = json.dumps(merged, ensure_ascii=False)
                if values:
                    assignments = ", ".join(f"{name} = ?" for name in values)
                    connection.execute(
                        f"UPDATE images SET {assignments} WHERE id = ?",  # noqa: S608 - fixed names
                        (*values.values(), entry.id),
                    )
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
                "SELECT id, embedding FROM images WHERE model_digest = ? ORDER BY id",
                (model_digest,),
            ).fetchall()
        ids = np.array([row[0] for row in rows], np.int64)
        size = len(rows[0][1]) if rows else 0
        wrong = [row[0] for row in rows if len(row[1]) != size or size % 4]
        if wrong:
            raise CatalogueError(
                f"the embedding of id {wrong[0]} is not {size} bytes long like the first one; "
                "index its picture again"
            )
        xb = np.frombuffer(b"".join(row[1] for row in rows), "<f4").astype(np.float32)
        return ids, xb.reshape(len(rows), size // 4)

    def known_sources(self, model_digest: str) -> dict[str, int]:
        """Source to id of everything that this model has embedded."""
        return self._pairs("SELECT source, id FROM images WHERE model_digest = ?", model_digest)

    def all_sources(self) -> dict[str, int]:
        """Source to id of everything."""
        return self._pairs("SELECT source, id FROM images")

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
        """What SQLite's own check of the whole file finds wrong, or None."""
        try:
            with self._database.read() as connection:
                rows = connection.execute("PRAGMA integrity_check").fetchall()
        except CatalogueError as error:
            return str(error)
        found = "; ".join(str(row[0]) for row in rows)
        return None if found == "ok" else found[:500]

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
        if key == _FORMAT_KEY:
            raise IndexInputError(f"key is {key!r}, which the catalogue keeps; use another key")
        check_text(key, "key")
        check_text(value, "value")
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


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
