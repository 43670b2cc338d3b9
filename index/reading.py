"""What the catalogue can be asked; `index.catalogue` changes it."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.checksums import crc
from index.conditions import COLUMNS
from index.database import CatalogueError, Database
from index.filters import Filter, check_key
from index.grouping import Members, members
from index.neighbours import Ids, IdsLike, IndexInputError, UnknownIdError, Vectors, as_ids
from index.payload import check_number
from index.records import Entry, Origin, entry_from_row
from index.schema import DELETION_CRC, EMBEDDING_CRC, FIELDS, FIELDS_CRC, META_CRC
from index.staging import unpack

SAME = 0.9999
LISTED = "id IN (SELECT value FROM json_each(?))"
_FIELDS = f"{FIELDS}, fields_crc"
_PIECE = 10_000
_REMEDY = "restore a snapshot or a backup"


class Changes(NamedTuple):
    """What happened to the embeddings of one model after some sequence number.

    ``ids`` int64 (n,) ascending with their present embeddings ``xb`` float32 (n, d), d 0 without
    any, and ``deleted`` int64 (m,); all of it as of ``sequence``.
    """

    sequence: int
    ids: Ids
    xb: Vectors
    deleted: Ids


@dataclass(frozen=True)
class StoredEmbeddings:
    """``count`` embeddings as of the write ``sequence``.

    ``pieces`` gives each once: ids int64 (m,), ascending from piece to piece, and float32 (m, d).
    """

    sequence: int
    count: int
    pieces: Iterator[tuple[Ids, Vectors]]


class CatalogueReader:
    """Reads one catalogue; see `index.catalogue.Catalogue`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def forgotten_sources(self) -> set[str]:
        """Sources of the corpus that were deleted by hand and shall stay so."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT source FROM deletions WHERE tombstone").fetchall()
        return {row[0] for row in rows}

    def get(self, ids: IdsLike) -> list[Entry]:
        """The entries in the order given. Raises UnknownIdError that names the missing ids."""
        with self._database.read() as connection:
            return entries(connection, ids)

    def find(self, ids: IdsLike) -> list[Entry]:
        """Those of these ids that are stored, by ascending id."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {_FIELDS} FROM images WHERE {LISTED} ORDER BY id",  # noqa: S608 - fixed words
                (listed(ids),),
            ).fetchall()
        return [entry_from_row(row) for row in rows]

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
                # Sorted below: ORDER BY would have SQLite read the whole table and not an index.
                f"SELECT id FROM images WHERE {condition}",  # noqa: S608 - values are bound
                params,
            ).fetchall()
        return np.sort(np.fromiter((row[0] for row in rows), np.int64, len(rows)))

    def matching(self, where: Filter) -> Ids:
        """As `ids`: for `Searchable.search`."""
        return self.ids(where)

    def members(self, key: str, where: Filter | None = None) -> Members:
        """What matches, grouped by the field ``key`` as in filters; see `index.grouping`.

        Raises FilterError if ``key`` cannot name a field.
        """
        check_key(key, "group_by")
        column = key if key in COLUMNS else "payload"
        condition, params = _where(where)
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT id, {column} FROM images WHERE {condition}",  # noqa: S608 - one of the columns, and values are bound
                params,
            ).fetchall()
        if column == "payload":
            return members({row[0]: {"payload": json.loads(row[1])} for row in rows}, key)
        return members({row[0]: {key: row[1]} for row in rows}, key)

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

    @contextmanager
    def reading_embeddings(
        self, model_digest: str, rows: int = _PIECE
    ) -> Iterator["StoredEmbeddings"]:
        """All that this model made, of one state, to be read at most ``rows`` at a time.

        Writers go on meanwhile. Reading raises CatalogueError if an embedding is damaged.
        """
        with self._database.read_one_state() as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM images WHERE model_digest = ?", (model_digest,)
            ).fetchone()
            cursor = connection.execute(
                "SELECT id, embedding, embedding_crc FROM images WHERE model_digest = ? "
                "ORDER BY id",
                (model_digest,),
            )
            pieces = (
                unpack(some, model_digest) for some in iter(lambda: cursor.fetchmany(rows), [])
            )
            yield StoredEmbeddings(_sequence(connection), count, pieces)

    def unchanged(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None],
    ) -> NDArray[np.bool_]:
        """Of which of these ids just that is stored, bool (n,); damaged is changed.

        Embeddings float32 (n, d) of one picture differ in their last bits by the batch that it was
        in; they count as the same from a cosine of ``SAME`` on.
        """
        wanted = as_ids(ids).tolist()
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT id, content_hash, embedding, embedding_crc FROM images WHERE {LISTED} "  # noqa: S608 - fixed words
                "AND model_digest = ?",
                (json.dumps(wanted), model_digest),
            ).fetchall()
        stored = {
            id_: (content, np.frombuffer(data, "<f4"))
            for id_, content, data, expected in rows
            if crc(id_, model_digest, data) == expected
        }
        same = np.zeros(len(wanted), bool)
        for row, id_ in enumerate(wanted):
            content, vector = stored.get(id_, (None, np.empty(0, np.float32)))
            if content is not None and content == content_hashes[row]:
                fits = len(vector) == embeddings.shape[1]
                same[row] = fits and float(vector @ embeddings[row]) >= SAME
        return same

    def sequence(self) -> int:
        """The number of the last write, whichever process made it; some microseconds."""
        with self._database.read() as connection:
            return _sequence(connection)

    def touched(self, after: int, most: int) -> tuple[int, list[int] | None]:
        """The sequence number, and the ids stored, changed or deleted after the write ``after``.

        None in their place where there are more than ``most``.
        """
        with self._database.read_one_state() as connection:
            sequence = _sequence(connection)
            rows = connection.execute(
                "SELECT id FROM images WHERE sequence > ?1 "
                "UNION ALL SELECT id FROM deletions WHERE sequence > ?1 LIMIT ?2",
                (after, most + 1),
            ).fetchall()
        return sequence, None if len(rows) > most else [row[0] for row in rows]

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

    def _pairs(self, statement: str, *params: str) -> dict[str, int]:
        with self._database.read() as connection:
            return dict(connection.execute(statement, params).fetchall())

    def get_meta(self, key: str) -> str | None:
        """The value under ``key``, or None."""
        with self._database.read() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])


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
    (expected, meta) = connection.execute(
        f"SELECT (SELECT value FROM meta WHERE key = 'checksum'), CAST({META_CRC} AS TEXT)"  # noqa: S608 - fixed words
    ).fetchone()
    if meta != expected:
        return f"the checksum of the catalogue's own settings does not fit; {_REMEDY}"
    (used, given) = connection.execute(
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'images'), 0), "
        "max(coalesce((SELECT max(id) FROM images), 0), "
        "coalesce((SELECT max(id) FROM deletions), 0))"
    ).fetchone()
    if given > used:
        return f"the last id is said to be {used}, and {given} was given; {_REMEDY}"
    (last,) = connection.execute(
        "SELECT max(coalesce((SELECT max(sequence) FROM images), 0), "
        "coalesce((SELECT max(sequence) FROM deletions), 0))"
    ).fetchone()
    if last > _sequence(connection):
        return f"the sequence number is below {last}, that of a record; {_REMEDY}"
    return None


def _where(where: Filter | None) -> tuple[str, list[str]]:
    return ("1", []) if where is None else where.to_sql()


def listed(ids: IdsLike) -> str:
    """Ids as the parameter of LISTED."""
    return json.dumps(as_ids(ids).tolist())


def entries(connection: sqlite3.Connection, ids: IdsLike) -> list[Entry]:
    """The entries in the order given; raises UnknownIdError."""
    wanted = as_ids(ids).tolist()
    rows = connection.execute(
        f"SELECT {_FIELDS} FROM images WHERE {LISTED}",  # noqa: S608 - fixed words
        (json.dumps(wanted),),
    ).fetchall()
    found: Mapping[int, Entry] = {row[0]: entry_from_row(row) for row in rows}
    missing = [wanted_id for wanted_id in dict.fromkeys(wanted) if wanted_id not in found]
    if missing:
        raise UnknownIdError(missing, "the catalogue")
    return [found[wanted_id] for wanted_id in wanted]
