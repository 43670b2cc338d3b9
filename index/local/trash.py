"""The trash: deleted rows with all their fields, embeddings and ids, until they are purged."""

import json
import sqlite3
import time
from dataclasses import replace

from index.contract import (
    IdsLike,
    IndexInputError,
    Purged,
    Quota,
    QuotaError,
    RestoreConflictError,
    Trashed,
    Undeleted,
    UnknownIdError,
    Usage,
)
from index.local.database import Database
from index.local.schema import DELETION_CRC, EMBEDDING_CRC, FIELDS, FIELDS_CRC, TRASH_CRC
from index.local.sources import stamps
from index.local.staging import entry_of, next_sequence, update_checksums
from index.payload import check_number
from index.vectors import as_ids

PURGED = "purged"
_PIECE = 1000
_ID_IN = "id IN (SELECT value FROM json_each(?))"
# Everything that `images` holds of a picture, checksums included.
_ROW = f"{FIELDS}, fields_crc, embedding_crc, embedding"
_KEPT = "id, source, split, label, payload, content_hash, origin, edited, model_digest, embedding"


class SqliteTrash:
    """Implements `index.contract.Trash` in the catalogue's file."""

    available = True

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, after_id: int, limit: int) -> list[Trashed]:
        if limit < 1:
            raise IndexInputError(f"limit is {limit}; expected 1 or more")
        check_number(after_id, "after_id")
        check_number(limit, "limit")
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {FIELDS}, fields_crc, deleted_at FROM trash WHERE id > ? "  # noqa: S608 - fixed words
                "ORDER BY id LIMIT ?",
                (after_id, limit),
            ).fetchall()
        return [Trashed(entry_of(row[:-1]), row[-1]) for row in rows]

    def count(self) -> int:
        with self._database.read() as connection:
            (number,) = connection.execute("SELECT count(*) FROM trash").fetchone()
        return int(number)

    def last(self) -> list[int]:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id FROM trash WHERE deletion = (SELECT max(deletion) FROM trash) "
                "ORDER BY id"
            ).fetchall()
        return [row[0] for row in rows]

    def restore(self, ids: IdsLike, quota: Quota = Quota()) -> Undeleted:
        """See `index.contract.Trash.restore`. Readers of the changes see additions."""
        wanted = list(dict.fromkeys(as_ids(ids).tolist()))
        with self._database.write() as connection:
            found = connection.execute(
                f"SELECT {FIELDS}, fields_crc FROM trash WHERE {_ID_IN} ORDER BY id",  # noqa: S608 - fixed words
                (json.dumps(wanted),),
            ).fetchall()
            entries = [entry_of(row) for row in found]  # raises if one is damaged
            missing = set(wanted) - {entry.id for entry in entries}
            if missing:
                raise UnknownIdError(sorted(missing), "the trash")
            sources = json.dumps([entry.source for entry in entries])
            stored = dict(
                connection.execute(
                    "SELECT source, id FROM images "
                    "WHERE source IN (SELECT value FROM json_each(?))",
                    (sources,),
                ).fetchall()
            )
            conflicts: dict[int, int] = {}
            back: dict[str, int] = {}
            # The newest of several that had one source comes back.
            for entry in reversed(entries):
                if entry.source in stored or entry.source in back:
                    conflicts[entry.id] = stored.get(entry.source, back.get(entry.source, -1))
                else:
                    back[entry.source] = entry.id
            if conflicts and not back:
                raise RestoreConflictError(conflicts)
            unembedded = self._store(connection, back)
            used = usage_of(connection)
            if 0 < quota.pictures < used.added_pictures or 0 < quota.size < used.added_bytes:
                raise QuotaError(
                    f"with {len(back):,} pictures restored there would be "
                    f"{used.added_pictures:,} added ones of {used.added_bytes:,} bytes, more than "
                    "max_added_pictures or max_added_bytes; delete others, or raise the quota"
                )
        return Undeleted(sorted(back.values()), conflicts, unembedded)

    def _store(self, connection: sqlite3.Connection, back: dict[str, int]) -> int:
        """Move rows back; return how many have an embedding of another model than the store's."""
        if not back:
            return 0
        listed = json.dumps(list(back.values()))
        sequence = next_sequence(connection)
        connection.execute(
            f"INSERT INTO images ({_KEPT}, sequence, embedded_at) "  # noqa: S608 - fixed words
            f"SELECT {_KEPT}, ?2, ?2 FROM trash WHERE id IN (SELECT value FROM json_each(?1))",
            (listed, sequence),
        )
        update_checksums(connection, sequence)
        for table in ("trash", "deletions"):
            connection.execute(f"DELETE FROM {table} WHERE {_ID_IN}", (listed,))  # noqa: S608 - fixed words
        connection.execute(
            "UPDATE deletions SET tombstone = 0, crc = crc(id, source, sequence, 0) "
            "WHERE tombstone AND source IN (SELECT value FROM json_each(?))",
            (json.dumps(list(back)),),
        )
        (others,) = connection.execute(
            "SELECT count(*) FROM images WHERE sequence = ? "
            "AND model_digest <> (SELECT value FROM meta WHERE key = 'model')",
            (sequence,),
        ).fetchone()
        return int(others)

    def surplus(self, before: float, pictures: int, size: int) -> list[int]:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id FROM (SELECT id, deleted_at, row_number() OVER newest AS number, "
                "sum(coalesce(bytes, 0)) OVER newest AS total FROM trash "
                "LEFT JOIN sizes USING (content_hash) "
                "WINDOW newest AS (ORDER BY deletion DESC, id DESC)) "
                "WHERE deleted_at <= ?1 OR (?2 > 0 AND number > ?2) OR (?3 > 0 AND total > ?3) "
                "ORDER BY id",
                (before, pictures, size),
            ).fetchall()
        return [row[0] for row in rows]

    def purge(self, ids: IdsLike | None) -> Purged:
        """See `index.contract.Trash.purge`.

        Done in pieces, between which the log is emptied: a disk that is nearly full has room for
        one. If it is interrupted, the rest is still in the trash, and so is what is deleted
        meanwhile.
        """
        wanted = None if ids is None else as_ids(ids).tolist()
        with self._database.read() as connection:
            (last,) = connection.execute("SELECT coalesce(max(deletion), 0) FROM trash").fetchone()
        found = Purged([], set())
        emptied = self._database.truncate_log()
        while piece := self._next(wanted, found.ids[-1] if found.ids else -1, last):
            rows = self._purge(piece)
            found.ids.extend(row[0] for row in rows)
            found.content_hashes.update(row[1] for row in rows if row[2] == "added" and row[1])
            emptied = self._database.truncate_log()
            if not rows:
                break  # another process was first
        return replace(found, complete=emptied)

    def _next(self, wanted: list[int] | None, after: int, last: int) -> list[int]:
        """The next ids to purge, ascending, above ``after``, deleted by the write ``last``."""
        condition = "true" if wanted is None else "id IN (SELECT value FROM json_each(?3))"
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT id FROM trash WHERE id > ?1 AND deletion <= ?2 AND {condition} "  # noqa: S608 - fixed words
                f"ORDER BY id LIMIT {_PIECE}",
                (after, last) if wanted is None else (after, last, json.dumps(wanted)),
            ).fetchall()
        return [row[0] for row in rows]

    def _purge(self, ids: list[int]) -> list[tuple[int, str | None, str, int]]:
        """Remove these in one write; return id, content hash, origin and deletion of each."""
        listed = json.dumps(ids)
        with self._database.write() as connection:
            rows = connection.execute(
                f"SELECT id, content_hash, origin, deletion FROM trash WHERE {_ID_IN} ORDER BY id",  # noqa: S608 - fixed words
                (listed,),
            ).fetchall()
            if rows:
                last = max(_purged(connection), *(row[3] for row in rows))
                connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (PURGED, str(last)))
            listed = json.dumps([row[0] for row in rows])
            connection.execute(f"DELETE FROM trash WHERE {_ID_IN}", (listed,))  # noqa: S608 - fixed words
            stamps.forget(connection, listed)
            # Readers that follow the changes need the id alone; a key may be somebody's name.
            connection.execute(
                f"UPDATE deletions SET source = '' WHERE NOT tombstone AND {_ID_IN}",  # noqa: S608 - fixed words
                (listed,),
            )
            connection.execute(
                f"UPDATE deletions SET crc = {DELETION_CRC} WHERE {_ID_IN}",  # noqa: S608 - fixed words
                (listed,),
            )
        return rows

    def purged(self) -> int:
        """The number of the last write that deleted something which has been purged since."""
        with self._database.read() as connection:
            return _purged(connection)


def _purged(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (PURGED,)).fetchone()
    return 0 if row is None else int(row[0])


def usage_of(connection: sqlite3.Connection) -> Usage:
    """What the triggers have counted; see `index.contract.Usage`."""
    rows = connection.execute("SELECT pictures, bytes FROM usage ORDER BY name").fetchall()
    (added, trash) = rows if len(rows) == 2 else ((0, 0), (0, 0))
    return Usage(*added, *trash)


def move_to_trash(connection: sqlite3.Connection, listed: str, sequence: int) -> None:
    """Copy the rows with these ids, in JSON, to the trash, inside the transaction ``sequence``.

    Damaged rows are left out, as nobody could restore them.
    """
    connection.execute(
        f"INSERT INTO trash ({_ROW}, deleted_at, deletion) "  # noqa: S608 - fixed words
        f"SELECT {_ROW}, ?, ? FROM main.images WHERE {_ID_IN} "
        f"AND fields_crc = {FIELDS_CRC} AND embedding_crc = {EMBEDDING_CRC}",
        (int(time.time()), sequence, listed),
    )
    connection.execute(
        f"UPDATE trash SET crc = {TRASH_CRC} WHERE deletion = ?",  # noqa: S608 - fixed words
        (sequence,),
    )
