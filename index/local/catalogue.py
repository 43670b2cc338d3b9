"""The catalogue in SQLite: the durable record from which any index can be rebuilt.

One row for each picture, with its embedding and the digest of the model that made it. Whatever a
method has stored when it returns survives a crash of the process and of the machine.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from index.conditions import COLUMNS, Filter
from index.contract import (
    KEEP,
    NO_ID,
    CatalogueError,
    Change,
    Ids,
    IdsLike,
    IndexInputError,
    Members,
    ModelChangedError,
    Quota,
    QuotaError,
    Searchable,
    UnknownIdError,
    Usage,
    Vectors,
)
from index.filters import check_key, check_order
from index.local import backups
from index.local.database import Database, within
from index.local.filter_sql import after_sql, sort_sql, where_sql
from index.local.history import EARLIER, EPOCH, History, Moment, read_history, read_moment
from index.local.schema import (
    DELETION_CRC,
    EMBEDDING_CRC,
    FIELDS,
    FIELDS_CRC,
    META_CHECKSUMS,
    RECOUNT,
    TRASH_CRC,
    crc,
)
from index.local.sources import renaming, stamps
from index.local.staging import (
    SqliteStaging,
    entry_of,
    next_sequence,
    unpack,
    update_checksums,
)
from index.local.trash import PURGED, SqliteTrash, move_to_trash, usage_of
from index.payload import (
    FieldChanges,
    check_number,
    check_sources,
    check_text,
    other_origin,
    storable,
)
from index.ranking.groups import members
from index.records import Entry, Origin, Payload, PayloadBounds, Record, Stamp
from index.scans import UNBOUNDED, FilterScans
from index.sorting import OrderBy, Sorted, SortPosition
from index.vectors import SAME, as_embeddings, as_ids

_ID_IN = "id IN (SELECT value FROM json_each(?))"
_FIELDS = f"{FIELDS}, fields_crc"
_EMBEDDINGS = "SELECT id, embedding, embedding_crc FROM images WHERE model_digest = ? ORDER BY id"
_ADDED = " UNION ".join(
    f"SELECT content_hash FROM {table} WHERE origin = 'added' AND content_hash IS NOT NULL"  # noqa: S608 - fixed words
    for table in ("images", "trash")
)
_PIECE = 10_000
_REMEDY = "restore a snapshot or a backup"
_OWN_KEYS = ("format_version", "sequence", "model", "checksum", "commits", EPOCH, EARLIER, PURGED)


class Changes(NamedTuple):
    """Changes to the embeddings of one model after some write.

    ``ids`` int64 (n,) ascending, with their current embeddings ``xb`` float32 (n, d), where d is 0
    if there are none, and ``deleted`` int64 (m,); all as of ``moment``.
    """

    moment: Moment
    ids: Ids
    xb: Vectors
    deleted: Ids


@dataclass(frozen=True)
class StoredEmbeddings:
    """``count`` embeddings as of ``moment``.

    ``pieces`` gives each once: ids int64 (m,), ascending from piece to piece, and float32 (m, d).
    """

    moment: Moment
    count: int
    pieces: Iterator[tuple[Ids, Vectors]]


class SqliteCatalogue:
    """Implements `index.contract.Catalogue` with one SQLite file; thread-safe.

    Opening it, and any method, raises CatalogueError if the file is damaged, is another kind of
    database or has a newer format; the message names the path and the remedy.
    """

    def __init__(self, path: Path) -> None:
        self.bounds = PayloadBounds()
        self.scans = UNBOUNDED
        self._database = Database(path)
        self.staging = SqliteStaging(self._database)
        self.trash = SqliteTrash(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Later calls raise CatalogueError."""
        self._database.close()

    def upsert(
        self,
        records: Sequence[Record],
        embeddings: Vectors,
        model_digest: str,
        quota: Quota = Quota(),
        *,
        only_new: bool = False,
        expected: Sequence[Entry | None] | None = None,
    ) -> list[int]:
        """See `index.contract.Catalogue.upsert`. All records are stored or none.

        Ids are never reused: a source that was deleted gets a new one.
        """
        xb = as_embeddings(embeddings).astype("<f4", copy=False)
        records = storable(records, len(xb), self.bounds)
        ids: list[int] = []
        with self._database.write() as connection:
            self._check_model(connection, model_digest, xb)
            _check_quota(connection, records, quota)
            connection.executemany(
                "INSERT OR REPLACE INTO sizes VALUES (?, ?)",
                [
                    (r.content_hash, r.size)
                    for r in records
                    if r.content_hash and r.size is not None
                ],
            )
            sequence = next_sequence(connection)
            taken = _taken(connection, records) if only_new else set()
            if expected is not None:
                taken |= _otherwise(connection, records, expected)
            for record, vector in zip(records, xb, strict=True):
                if record.source in taken:
                    ids.append(NO_ID)
                    continue
                stored = connection.execute(
                    "INSERT INTO images (source, split, label, payload, content_hash, origin, "
                    "sequence, embedded_at, model_digest, embedding) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source) DO UPDATE SET "
                    "split = excluded.split, label = excluded.label, payload = excluded.payload, "
                    "content_hash = excluded.content_hash, edited = 0, "
                    "sequence = excluded.sequence, embedded_at = excluded.embedded_at, "
                    "model_digest = excluded.model_digest, embedding = excluded.embedding "
                    "WHERE origin = excluded.origin RETURNING id",
                    (*_row(record), sequence, sequence, model_digest, vector.tobytes()),
                ).fetchall()
                if not stored:
                    raise other_origin(record)
                ids.append(stored[0][0])
            listed = json.dumps(ids)
            connection.execute(f"DELETE FROM staged WHERE {_ID_IN}", (listed,))  # noqa: S608 - fixed words
            # Deletions stay, for readers that follow the changes; only their tombstones go.
            connection.execute(
                "UPDATE deletions SET tombstone = 0, crc = crc(id, source, sequence, 0) "
                "WHERE tombstone AND source IN (SELECT value FROM json_each(?))",
                (json.dumps([record.source for record in records if record.source not in taken]),),
            )
            update_checksums(connection, sequence)
        return ids

    def embed(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None],
        *,
        only_same: bool = False,
    ) -> int:
        xb = as_embeddings(embeddings).astype("<f4", copy=False)
        changed = 0
        with self._database.write() as connection:
            self._check_model(connection, model_digest, xb)
            sequence = next_sequence(connection)
            for id_, vector, content in zip(as_ids(ids).tolist(), xb, content_hashes, strict=True):
                changed += connection.execute(
                    "UPDATE images SET embedding = ?, model_digest = ?, content_hash = ?, "
                    "sequence = ?, embedded_at = ? WHERE id = ? AND (content_hash IS ? OR NOT ?)",
                    (
                        vector.tobytes(),
                        model_digest,
                        content,
                        sequence,
                        sequence,
                        id_,
                        content,
                        only_same,
                    ),
                ).rowcount
            # What another model has staged for the old picture is obsolete.
            connection.execute(
                f"DELETE FROM staged WHERE {_ID_IN} "  # noqa: S608 - fixed words
                "AND id IN (SELECT id FROM images WHERE sequence = ?)",
                (_listed(ids), sequence),
            )
            update_checksums(connection, sequence)
        return changed

    def _check_model(self, connection: sqlite3.Connection, model_digest: str, xb: Vectors) -> None:
        check_text(model_digest, "model_digest")
        row = connection.execute("SELECT value FROM meta WHERE key = 'model'").fetchone()
        if row is None:
            connection.execute("INSERT INTO meta VALUES ('model', ?)", (model_digest,))
        elif row[0] != model_digest:
            raise ModelChangedError(
                f"the catalogue holds embeddings of the model {row[0]}, these are of "
                f"{model_digest}; embed with the model in use, or switch the store to that model"
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

    def delete(self, ids: IdsLike, *, tombstone: bool = False) -> int:
        return len(self._delete(_ID_IN, [_listed(ids)], tombstone))

    def delete_where(self, where: Filter) -> list[int]:
        condition, params = where_sql(where)
        with self.scans.one():
            return self._delete(condition, params, True, self.scans)

    def _delete(
        self,
        condition: str,
        params: Sequence[str],
        tombstone: bool,
        scans: FilterScans = UNBOUNDED,
    ) -> list[int]:
        with self._database.write() as connection:
            with within(connection, scans):
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
                f"SELECT id, source, ?, ? AND origin = 'corpus' FROM images WHERE {_ID_IN}",
                (sequence, tombstone, listed),
            )
            connection.execute(
                f"UPDATE deletions SET crc = {DELETION_CRC} WHERE sequence = ?",  # noqa: S608 - fixed words
                (sequence,),
            )
            if tombstone:
                move_to_trash(connection, listed, sequence)
            else:
                stamps.forget(connection, listed)
            for table in ("staged", "images"):
                connection.execute(f"DELETE FROM {table} WHERE {_ID_IN}", (listed,))  # noqa: S608 - fixed words
        return ids

    def update(
        self,
        ids: IdsLike,
        *,
        label: Change = KEEP,
        split: Change = KEEP,
        payload: Payload | None = None,
        payloads: Mapping[int, Payload] | None = None,
        replace_payload: bool = False,
        by_hand: bool = False,
        expected: Sequence[Entry] | None = None,
    ) -> int:
        changes = FieldChanges(
            label, split, payload, replace_payload, by_hand, self.bounds, payloads
        )
        with self._database.write() as connection:
            if expected is None:
                found = _entries(connection, ids)
            else:
                now = _stored(connection, ids)
                found = [entry for entry in expected if now.get(entry.id) == entry]
            if not found:
                return 0
            sequence = next_sequence(connection)
            for entry in found:
                values = changes.of(entry)
                if values:
                    values = {**values, "sequence": sequence}
                    if "payload" in values:
                        values["payload"] = json.dumps(values["payload"], ensure_ascii=False)
                    assignments = ", ".join(f"{name} = ?" for name in values)
                    connection.execute(
                        f"UPDATE images SET {assignments} WHERE id = ?",  # noqa: S608 - fixed names
                        (*values.values(), entry.id),
                    )
            update_checksums(connection, sequence)
        return len(found)

    def rename(self, sources: Mapping[int, str]) -> list[int]:
        check_sources(list(sources.values()))
        with self._database.write() as connection:
            return renaming.rename(connection, sources)

    def stamps(self) -> dict[int, Stamp]:
        with self._database.read() as connection:
            return stamps.read(connection)

    def set_stamps(
        self,
        found: Mapping[int, Stamp],
        content_hashes: Mapping[int, str | None] | None = None,
    ) -> None:
        with self._database.write() as connection:
            stamps.write(connection, found, content_hashes)

    def backup(self, path: Path) -> None:
        """Write one consistent state to ``path``, which must not exist yet, durably."""
        backups.backup(self._database, path)

    def restore(self, path: Path) -> tuple[int, int]:
        """Replace the images with those of a backup, in one transaction.

        Returns how many were stored or changed, and how many deleted. Sequence numbers keep
        ascending and ids are still never reused, so readers of `changes` see an ordinary change.
        """
        return backups.restore(self._database, path)

    def set_meta(self, key: str, value: str) -> None:
        if key in _OWN_KEYS:
            raise IndexInputError(f"key is {key!r}, which is reserved; use another key")
        check_text(key, "key")
        check_text(value, "value")
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def tombstones(self) -> set[str]:
        with self._database.read() as connection:
            rows = connection.execute("SELECT source FROM deletions WHERE tombstone").fetchall()
        return {row[0] for row in rows}

    def forget_tombstones(self) -> None:
        with self._database.write() as connection:
            connection.execute(
                "UPDATE deletions SET tombstone = 0, crc = crc(id, source, sequence, 0) "
                "WHERE tombstone"
            )

    def get(self, ids: IdsLike) -> list[Entry]:
        with self._database.read() as connection:
            return _entries(connection, ids)

    def find(self, ids: IdsLike) -> list[Entry]:
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {_FIELDS} FROM images WHERE {_ID_IN} ORDER BY id",  # noqa: S608 - fixed words
                (_listed(ids),),
            ).fetchall()
        return [entry_of(row) for row in rows]

    def of_sources(self, sources: Sequence[str]) -> dict[str, Entry]:
        with self._database.read() as connection:
            return _of_sources(connection, sources)

    def page(self, after_id: int, limit: int, where: Filter | None = None) -> list[Entry]:
        if limit < 1:
            raise IndexInputError(f"limit is {limit}; expected 1 or more")
        check_number(after_id, "after_id")
        check_number(limit, "limit")
        condition, params = where_sql(where)
        with self._reading(where) as connection:
            rows = connection.execute(
                f"SELECT {_FIELDS} FROM images WHERE id > ? AND {condition} ORDER BY id LIMIT ?",  # noqa: S608 - values are bound
                (after_id, *params, limit),
            ).fetchall()
        return [entry_of(row) for row in rows]

    def sorted_page(
        self,
        order: OrderBy,
        limit: int,
        where: Filter | None = None,
        after: SortPosition | None = None,
    ) -> list[Sorted]:
        check_order(order, limit)
        value, params = sort_sql(order)
        condition, more = where_sql(where)
        following, position = after_sql(order, after)
        direction = "DESC" if order.descending else "ASC"
        with self.scans.one(), self._database.read_one_state() as connection:
            with within(connection, self.scans):
                rows = connection.execute(
                    # LIMIT makes SQLite evaluate the value once for each row.
                    f"SELECT id, value FROM (SELECT id, {value} AS value FROM images "  # noqa: S608 - values are bound
                    f"WHERE {condition} LIMIT -1) WHERE {following} "
                    f"ORDER BY value IS NULL, value {direction}, id LIMIT ?",
                    (*params, *more, *position, limit),
                ).fetchall()
            entries = _entries(connection, [row[0] for row in rows])
        values = [v != b"\0" if isinstance(v, bytes) else v for _, v in rows]
        return [Sorted(SortPosition(v, e.id), e) for v, e in zip(values, entries, strict=True)]

    def _reading(self, where: Filter | None) -> AbstractContextManager[sqlite3.Connection]:
        """A connection for reading what matches; only a filter can take long."""
        if where is None:
            return self._database.read()
        return self._database.read_by_filter(self.scans)

    def count(self, where: Filter | None = None) -> int:
        condition, params = where_sql(where)
        with self._reading(where) as connection:
            (number,) = connection.execute(
                f"SELECT count(*) FROM images WHERE {condition}",  # noqa: S608 - values are bound
                params,
            ).fetchone()
        return int(number)

    def ids(self, where: Filter | None = None) -> Ids:
        condition, params = where_sql(where)
        with self._reading(where) as connection:
            rows = connection.execute(
                # Sorted below, because ORDER BY makes SQLite read the whole table, not an index.
                f"SELECT id FROM images WHERE {condition}",  # noqa: S608 - values are bound
                params,
            ).fetchall()
        return np.sort(np.fromiter((row[0] for row in rows), np.int64, len(rows)))

    def matching(self, where: Filter) -> Ids:
        return self.ids(where)

    def members(self, key: str, where: Filter | None = None) -> Members:
        check_key(key, "group_by")
        column = key if key in COLUMNS else "payload"
        condition, params = where_sql(where)
        with self._database.read_by_filter(self.scans) as connection:
            rows = connection.execute(
                f"SELECT id, {column} FROM images WHERE {condition}",  # noqa: S608 - one of the columns, and values are bound
                params,
            ).fetchall()
        if column == "payload":
            return members({row[0]: {"payload": json.loads(row[1])} for row in rows}, key)
        return members({row[0]: {key: row[1]} for row in rows}, key)

    def embeddings(self, model_digest: str) -> tuple[Ids, Vectors]:
        with self._database.read() as connection:
            rows = connection.execute(_EMBEDDINGS, (model_digest,)).fetchall()
        return unpack(rows, model_digest)

    @contextmanager
    def reading_embeddings(
        self, model_digest: str, rows: int = _PIECE
    ) -> Iterator["StoredEmbeddings"]:
        """All embeddings of this model in one consistent state, read ``rows`` at a time.

        Writers are not blocked. Reading raises CatalogueError if an embedding is damaged.
        """
        with self._database.read_one_state() as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM images WHERE model_digest = ?", (model_digest,)
            ).fetchone()
            cursor = connection.execute(_EMBEDDINGS, (model_digest,))
            pieces = (
                unpack(some, model_digest) for some in iter(lambda: cursor.fetchmany(rows), [])
            )
            yield StoredEmbeddings(read_moment(connection), count, pieces)

    def unchanged(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None],
    ) -> NDArray[np.bool_]:
        """See `index.contract.Catalogue.unchanged`; a damaged embedding counts as changed."""
        wanted = as_ids(ids).tolist()
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT id, content_hash, embedding, embedding_crc FROM images WHERE {_ID_IN} "  # noqa: S608 - fixed words
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

    def check_quota(self, records: Sequence[Record], quota: Quota) -> None:
        with self._database.read() as connection:
            _check_quota(connection, records, quota)

    def usage(self) -> Usage:
        with self._database.read() as connection:
            return usage_of(connection)

    def measure(self, size_of: Callable[[str], int | None]) -> int:
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT content_hash FROM ({_ADDED}) EXCEPT SELECT content_hash FROM sizes"  # noqa: S608 - fixed words
            ).fetchall()
        sizes = [(name, size) for (name,) in rows if (size := size_of(name)) is not None]
        with self._database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO sizes VALUES (?, ?)", sizes)
            connection.execute(f"DELETE FROM sizes WHERE content_hash NOT IN ({_ADDED})")  # noqa: S608 - fixed words
            connection.execute(RECOUNT)
        return len(sizes)

    def sequence(self) -> int:
        """The number of the last write by any process; takes some microseconds."""
        return self.moment().sequence

    def moment(self) -> Moment:
        """The present state, after the last write by any process; takes some microseconds."""
        with self._database.read() as connection:
            return read_moment(connection)

    def history(self) -> History:
        """What the catalogue has been through until now."""
        with self._database.read_one_state() as connection:
            return read_history(connection)

    @property
    def read_only(self) -> bool:
        """Whether it may only be read."""
        return self._database.read_only

    def check_writable(self) -> None:
        """Raise ReadOnlyError if it may only be read."""
        self._database.check_writable()

    def note_future(self, found: Iterable[tuple[str, Moment]]) -> None:
        """Begin a new epoch if one of these is ahead: the catalogue was put back, then.

        Each is a place, for the log, and what is there. It must have been read before this call.
        """
        for place, moment in () if self.read_only else found:
            if self.history().ahead(moment):
                self._database.begin_epoch(f"{place} has its write {moment.sequence:,} already")

    def touched(self, after: Moment, most: int) -> tuple[Moment, list[int] | None]:
        """The present state, and the ids stored, changed or deleted since ``after``.

        None instead of the ids if there are more than ``most``, or if ``after`` is not in the
        catalogue's history.
        """
        with self._database.read_one_state() as connection:
            history = read_history(connection)
            if not history.holds(after):
                return history.now, None
            rows = connection.execute(
                "SELECT id FROM images WHERE sequence > ?1 "
                "UNION ALL SELECT id FROM deletions WHERE sequence > ?1 LIMIT ?2",
                (after.sequence, most + 1),
            ).fetchall()
        return history.now, None if len(rows) > most else [row[0] for row in rows]

    def changes(self, after: Moment, model_digest: str) -> Changes:
        """The changes to this model's embeddings since ``after``.

        Raises CatalogueError if the catalogue was never in that state.
        """
        with self._database.read_one_state() as connection:
            history = read_history(connection)
            if not history.holds(after):
                raise CatalogueError(
                    f"the catalogue went back from write {after.sequence} to "
                    f"{history.now.sequence}, or is another one; if it was restored from a backup, "
                    "restart this process"
                )
            rows = connection.execute(
                "SELECT id, embedding, embedding_crc FROM images WHERE embedded_at > ? "
                "AND model_digest = ? ORDER BY id",
                (after.sequence, model_digest),
            ).fetchall()
            gone = connection.execute(
                f"SELECT id, crc, {DELETION_CRC} FROM deletions WHERE sequence > ? ORDER BY id",  # noqa: S608 - fixed words
                (after.sequence,),
            ).fetchall()
        for id_, expected, found in gone:
            if found != expected:
                raise CatalogueError(f"the record of deleting id {id_} is damaged; {_REMEDY}")
        deleted = np.array([row[0] for row in gone], np.int64)
        return Changes(history.now, *unpack(rows, model_digest), deleted)

    def agrees(self, index: Searchable, sequence: int, model_digest: str) -> bool:
        """Whether ``index`` holds this model's embeddings as of the write ``sequence``.

        What has been embedded or deleted since is left out. Reads all embeddings.
        """
        expected = 0
        with self._database.read_one_state() as connection:
            cursor = connection.execute(
                "SELECT id, embedding, embedding_crc FROM images WHERE model_digest = ? "
                "AND embedded_at <= ? ORDER BY id",
                (model_digest, sequence),
            )
            for rows in iter(lambda: cursor.fetchmany(_PIECE), []):
                ids, xb = unpack(rows, model_digest)
                if xb.shape[1] != index.dimension or not index.has(ids).all():
                    return False
                if not np.array_equal(index.vectors(ids), xb):
                    return False
                expected += len(ids)
            since = connection.execute(
                "SELECT id FROM images WHERE embedded_at > ?1 "
                "UNION SELECT id FROM deletions WHERE sequence > ?1",
                (sequence,),
            ).fetchall()
        changed = np.array([row[0] for row in since], np.int64)
        return expected + int(index.has(changed).sum()) == index.count()

    def model(self) -> str | None:
        return self.get_meta("model")

    def known_sources(self, model_digest: str) -> dict[str, int]:
        return self._pairs("SELECT source, id FROM images WHERE model_digest = ?", model_digest)

    def all_sources(self, origin: Origin | None = None) -> dict[str, int]:
        if origin is None:
            return self._pairs("SELECT source, id FROM images")
        return self._pairs("SELECT source, id FROM images WHERE origin = ?", origin)

    def content_hashes(self, origin: Origin) -> set[str]:
        # One statement, so that a picture on its way to the trash or back is in one of the two.
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT content_hash FROM images WHERE origin = ?1 AND content_hash IS NOT NULL "
                "UNION SELECT content_hash FROM trash WHERE origin = ?1 "
                "AND content_hash IS NOT NULL",
                (origin,),
            ).fetchall()
        return {row[0] for row in rows}

    def model_digests(self) -> dict[str, int]:
        return self._pairs("SELECT model_digest, count(*) FROM images GROUP BY 1 ORDER BY 1")

    def label_counts(self) -> dict[str, int]:
        return self._pairs(
            "SELECT label, count(*) FROM images WHERE label IS NOT NULL GROUP BY 1 ORDER BY 1"
        )

    def split_counts(self) -> dict[str, int]:
        return self._pairs(
            "SELECT split, count(*) FROM images WHERE split IS NOT NULL GROUP BY 1 ORDER BY 1"
        )

    def check(self) -> str | None:
        try:
            with self._database.read_one_state() as connection:
                return check_state(connection)
        except CatalogueError as error:
            return str(error)

    def _pairs(self, statement: str, *params: str) -> dict[str, int]:
        with self._database.read() as connection:
            return dict(connection.execute(statement, params).fetchall())

    def get_meta(self, key: str) -> str | None:
        with self._database.read() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])


def _check_quota(connection: sqlite3.Connection, records: Sequence[Record], quota: Quota) -> None:
    if not (quota.pictures or quota.size):
        return
    used = usage_of(connection)
    sources = json.dumps([record.source for record in records])
    (known, replaced) = connection.execute(
        "SELECT count(*), coalesce(sum(bytes), 0) FROM images LEFT JOIN sizes USING (content_hash) "
        "WHERE source IN (SELECT value FROM json_each(?))",
        (sources,),
    ).fetchone()
    size = sum(record.size or 0 for record in records)
    for more, now, most, unit in (
        (len(records) - known, used.added_pictures, quota.pictures, "pictures"),
        (size - replaced, used.added_bytes, quota.size, "bytes"),
    ):
        if most and more > 0 and now + more > most:
            raise QuotaError(
                f"adding {more:,} {unit} exceeds the quota of {most:,} {unit}: {now:,} are stored, "
                f"{max(most - now, 0):,} left; delete pictures, or raise max_added_{unit}"
            )


def check_state(connection: sqlite3.Connection) -> str | None:
    """What is damaged in a catalogue's file; see `index.contract.Catalogue.check`."""
    rows = connection.execute("PRAGMA integrity_check").fetchall()
    found = "; ".join(str(row[0]) for row in rows)
    if found != "ok":
        return found[:500]
    for table, condition in (
        ("images", f"fields_crc <> {FIELDS_CRC} OR embedding_crc <> {EMBEDDING_CRC}"),
        ("staged", f"embedding_crc <> {EMBEDDING_CRC}"),
        ("deletions", f"crc <> {DELETION_CRC}"),
        (
            "trash",
            f"crc <> {TRASH_CRC} OR fields_crc <> {FIELDS_CRC} OR embedding_crc <> {EMBEDDING_CRC}",
        ),
    ):
        damaged = connection.execute(
            f"SELECT id FROM {table} WHERE {condition} LIMIT 10"  # noqa: S608 - fixed words
        ).fetchall()
        if damaged:
            ids = ", ".join(str(row[0]) for row in damaged)
            return f"the checksums of {table} {ids} do not match; {_REMEDY}"
    (expected, meta) = connection.execute(META_CHECKSUMS).fetchone()
    if meta != expected:
        return f"the checksum of the catalogue's own settings does not match; {_REMEDY}"
    (used, given) = connection.execute(
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'images'), 0), "
        "max(coalesce((SELECT max(id) FROM images), 0), "
        "coalesce((SELECT max(id) FROM deletions), 0))"
    ).fetchone()
    if given > used:
        return f"the last id is recorded as {used}, but {given} is in use; {_REMEDY}"
    (last,) = connection.execute(
        "SELECT max(coalesce((SELECT max(sequence) FROM images), 0), "
        "coalesce((SELECT max(sequence) FROM deletions), 0))"
    ).fetchone()
    if last > read_moment(connection).sequence:
        return f"the sequence number is below that of a record, {last}; {_REMEDY}"
    return None


def _taken(connection: sqlite3.Connection, records: Sequence[Record]) -> set[str]:
    """The sources of records that are stored already or have a tombstone."""
    rows = connection.execute(
        "SELECT value FROM json_each(?) WHERE value IN (SELECT source FROM images) "
        "OR value IN (SELECT source FROM deletions WHERE tombstone)",
        (json.dumps([record.source for record in records]),),
    ).fetchall()
    return {row[0] for row in rows}


def _otherwise(
    connection: sqlite3.Connection, records: Sequence[Record], expected: Sequence[Entry | None]
) -> set[str]:
    """The sources of records under which something other than expected is stored."""
    sources = [record.source for record in records]
    now = _of_sources(connection, sources)
    return {s for s, entry in zip(sources, expected, strict=True) if now.get(s) != entry}


def _of_sources(connection: sqlite3.Connection, sources: Sequence[str]) -> dict[str, Entry]:
    rows = connection.execute(
        f"SELECT {_FIELDS} FROM images WHERE source IN (SELECT value FROM json_each(?))",  # noqa: S608 - fixed words
        (json.dumps(list(sources)),),
    ).fetchall()
    return {entry.source: entry for entry in map(entry_of, rows)}


def _stored(connection: sqlite3.Connection, ids: IdsLike) -> dict[int, Entry]:
    """Those of these ids that are stored."""
    rows = connection.execute(
        f"SELECT {_FIELDS} FROM images WHERE {_ID_IN}",  # noqa: S608 - fixed words
        (_listed(ids),),
    ).fetchall()
    return {row[0]: entry_of(row) for row in rows}


def _listed(ids: IdsLike) -> str:
    """Ids as the parameter of ``_ID_IN``."""
    return json.dumps(as_ids(ids).tolist())


def _entries(connection: sqlite3.Connection, ids: IdsLike) -> list[Entry]:
    """The entries in the order given; raises UnknownIdError."""
    wanted = as_ids(ids).tolist()
    found = _stored(connection, ids)
    missing = [wanted_id for wanted_id in dict.fromkeys(wanted) if wanted_id not in found]
    if missing:
        raise UnknownIdError(missing, "the catalogue")
    return [found[wanted_id] for wanted_id in wanted]


def _row(record: Record) -> tuple[str, str | None, str | None, str, str | None, str]:
    """Source, split, label, payload in JSON, content hash and origin."""
    return (
        record.source,
        record.split,
        record.label,
        json.dumps(record.payload, ensure_ascii=False),
        record.content_hash,
        record.origin,
    )
