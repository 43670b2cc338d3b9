"""Backing up the catalogue, and restoring a backup while readers and writers continue."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from index.contract import CatalogueError
from index.files import fsync_file, fsync_folder
from index.local.database import Database
from index.local.schema import DELETION_CRC, EMBEDDING_CRC, FIELDS, FIELDS_CRC, crc
from index.local.sources import stamps
from index.local.staging import next_sequence, update_checksums
from index.local.trash import move_to_trash

# What a restore brings back; sequence numbers are new ones.
_COLUMNS = (
    "id, source, split, label, payload, content_hash, origin, edited, model_digest, embedding"
)
_LONGEST = 2**26
_PIECE = 1000
_FAR = 0.01
_SAME = " AND ".join(
    f"now.{name} IS snap.{name}" for name in _COLUMNS.split(", ") if name not in ("id", "embedding")
)


def backup(database: Database, path: Path) -> None:
    """Write one consistent state to ``path``, durably, without the trash; others may write."""
    with database.read() as connection:
        connection.execute("VACUUM INTO ?", (str(path),))
    _forget_trash(path)
    fsync_file(path)
    fsync_folder(path.parent)


def _forget_trash(path: Path) -> None:
    """Remove the trash from a copy, which would otherwise outlive a purge."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM trash").fetchone()
        if not count:
            return
        connection.create_function("crc", -1, crc, deterministic=True)
        connection.execute("BEGIN")
        connection.execute(
            "UPDATE deletions SET source = '', crc = crc(id, '', sequence, tombstone) "
            "WHERE NOT tombstone AND id IN (SELECT id FROM trash)"
        )
        stamps.forget(connection, _ids(connection, "trash"))
        connection.execute("DELETE FROM trash")
        connection.execute("COMMIT")
        connection.execute("VACUUM")


def _ids(connection: sqlite3.Connection, table: str) -> str:
    """All ids of a table, as a list in JSON."""
    rows = connection.execute(f"SELECT id FROM {table}").fetchall()  # noqa: S608 - a fixed word
    return json.dumps([row[0] for row in rows])


def restore(database: Database, path: Path) -> tuple[int, int]:
    """Replace the images with those of a backup; return how many were changed and deleted.

    What is deleted goes to the trash, whose contents stay, except what the backup brings back.

    Raises CatalogueError if the backup is damaged or belongs to another model than the store.
    """
    with database.write_with(path) as connection:
        _check(connection, path)
        _check_model(connection, path)
        sequence = next_sequence(connection)
        connection.execute(
            "INSERT INTO deletions (id, source, sequence, tombstone) SELECT id, source, ?, "
            "0 FROM images WHERE id NOT IN (SELECT id FROM snap.images)",
            (sequence,),
        )
        gone = connection.execute("SELECT id FROM deletions WHERE sequence = ?", (sequence,))
        move_to_trash(connection, json.dumps([row[0] for row in gone]), sequence)
        connection.execute(
            "DELETE FROM images WHERE id IN (SELECT id FROM deletions WHERE sequence = ?)",
            (sequence,),
        )
        deleted = connection.execute("SELECT changes()").fetchone()[0]
        # Sources are unique and may have moved between ids, so delete before inserting.
        connection.execute(
            "CREATE TEMP TABLE differing AS SELECT snap.id AS id, "  # noqa: S608 - fixed words
            "now.embedding IS NOT snap.embedding OR now.model_digest IS NOT snap.model_digest "
            "AS embedded FROM snap.images AS snap LEFT JOIN images AS now ON now.id = snap.id "
            f"WHERE now.id IS NULL OR now.embedding IS NOT snap.embedding OR NOT ({_SAME})"
        )
        connection.execute(
            "CREATE TEMP TABLE embedded AS SELECT id, embedded_at FROM main.images "
            "WHERE id IN (SELECT id FROM differing WHERE NOT embedded)"
        )
        connection.execute("DELETE FROM main.images WHERE id IN (SELECT id FROM differing)")
        changed = connection.execute(
            f"INSERT INTO main.images ({_COLUMNS}, sequence, embedded_at) SELECT {_COLUMNS}, ?1, "  # noqa: S608 - fixed words
            "coalesce((SELECT embedded_at FROM embedded WHERE embedded.id = snap.images.id), ?1) "
            "FROM snap.images WHERE id IN (SELECT id FROM differing) ORDER BY id",
            (sequence,),
        ).rowcount
        # Restored entries are no longer deleted; tombstones become those of the snapshot.
        for table in ("deletions", "trash"):
            connection.execute(f"DELETE FROM {table} WHERE id IN (SELECT id FROM main.images)")  # noqa: S608 - fixed words
        connection.execute(
            "UPDATE deletions SET tombstone = source IN "
            "(SELECT source FROM snap.deletions WHERE tombstone)"
        )
        connection.execute(
            "DELETE FROM staged WHERE id NOT IN (SELECT id FROM main.images) "
            "OR id IN (SELECT id FROM differing)"
        )
        connection.execute("DROP TABLE differing")
        connection.execute("DROP TABLE embedded")
        connection.execute(f"UPDATE deletions SET crc = {DELETION_CRC}")  # noqa: S608 - fixed words
        # `update_checksums` misses rows that kept embedded_at along with their embedding.
        connection.execute(
            f"UPDATE main.images SET embedding_crc = {EMBEDDING_CRC} WHERE sequence = ?",  # noqa: S608 - fixed words
            (sequence,),
        )
        update_checksums(connection, sequence)
        stamps.restore(connection)
    return int(changed), int(deleted)


def check_tables(connection: sqlite3.Connection, path: Path, schema: str = "main") -> None:
    """Raise CatalogueError unless a backup, which may come from elsewhere, has plain tables only.

    A view, a virtual table or a generated column in place of stored values would be computed
    whenever they are read. Triggers are not run by reading.
    """
    rows = connection.execute(
        f"SELECT type, name, coalesce(sql, '') FROM {schema}.sqlite_master"  # noqa: S608 - a fixed word
    ).fetchall()
    for kind, name, sql in rows:
        virtual = "VIRTUAL" in str(sql).upper().split("(")[0]
        if kind == "view" or virtual:
            what = "virtual table" if virtual else kind
            raise CatalogueError(
                f"{path}: has the {what} {str(name)[:100]!r}; expected plain tables; use another "
                "copy"
            )
        hidden = connection.execute(
            f"SELECT count(*) FROM {schema}.pragma_table_xinfo(?) WHERE hidden <> 0",  # noqa: S608 - a fixed word
            (name,),
        ).fetchone()[0]
        if kind == "table" and hidden:
            raise CatalogueError(f"{path}: has computed columns in {name!r}; use another copy")


def _check_values(connection: sqlite3.Connection, path: Path) -> None:
    """Raise CatalogueError for values that a catalogue never stores, whatever their checksums."""
    wrong = connection.execute(
        "SELECT coalesce(id, -1) FROM snap.images WHERE typeof(id) <> 'integer' OR id < 0 "
        "OR typeof(source) <> 'text' OR typeof(payload) <> 'text' OR typeof(embedding) <> 'blob' "
        "OR typeof(model_digest) <> 'text' OR edited NOT IN (0, 1) "
        "OR origin NOT IN ('corpus', 'added') "
        "OR typeof(label) NOT IN ('text', 'null') OR typeof(split) NOT IN ('text', 'null') "
        "OR typeof(content_hash) NOT IN ('text', 'null') OR NOT json_valid(payload) "
        "OR json_type(payload) <> 'object' LIMIT 1"
    ).fetchone()
    if wrong is not None:
        raise CatalogueError(
            f"{path}: the record of id {wrong[0]} has values that no catalogue stores; use another "
            "copy"
        )
    lengths = dict(
        connection.execute(
            "SELECT model_digest, length(embedding) FROM main.images GROUP BY model_digest"
        ).fetchall()
    )
    cursor = connection.execute("SELECT id, model_digest, embedding FROM snap.images")
    for rows in iter(lambda: cursor.fetchmany(_PIECE), []):
        for id_, model, data in rows:
            xb = np.frombuffer(data, "<f4") if len(data) % 4 == 0 else np.empty(0, np.float32)
            usual = lengths.setdefault(model, len(data))
            if len(data) != usual or not abs(float(xb @ xb) - 1) < _FAR:
                raise CatalogueError(
                    f"{path}: the embedding of id {id_} has {len(data)} bytes; expected {usual}, a "
                    "vector of length 1; use another copy"
                )


def _check(connection: sqlite3.Connection, path: Path) -> None:
    check_tables(connection, path, "snap")
    _check_columns(connection, path)
    longest = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    try:
        _check_values(connection, path)
        _check_records(connection, path)
    finally:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, longest)


def _check_columns(connection: sqlite3.Connection, path: Path) -> None:
    columns = {row[1] for row in connection.execute("PRAGMA snap.table_info(images)")}
    wanted = {*FIELDS.split(", "), "embedding", "fields_crc", "embedding_crc"}
    if not wanted <= columns:
        raise CatalogueError(f"{path}: lacks the columns {sorted(wanted - columns)}")


def _check_records(connection: sqlite3.Connection, path: Path) -> None:
    damaged = connection.execute(
        f"SELECT id FROM snap.images WHERE fields_crc <> {FIELDS_CRC} "  # noqa: S608 - fixed words
        f"OR embedding_crc <> {EMBEDDING_CRC} LIMIT 1"
    ).fetchone()
    if damaged is not None:
        raise CatalogueError(f"{path}: the record of id {damaged[0]} is damaged; use another copy")


def _check_model(connection: sqlite3.Connection, path: Path) -> None:
    """Inside the transaction, because the store may have just switched to another model."""
    ours, theirs = (
        connection.execute(f"SELECT value FROM {name}.meta WHERE key = 'model'").fetchone()  # noqa: S608 - fixed words
        for name in ("main", "snap")
    )
    if ours != theirs:
        models = [None if row is None else row[0] for row in (theirs, ours)]
        raise CatalogueError(
            f"{path}: was made with the model {models[0]}, but the store now has {models[1]}; "
            "nothing was changed"
        )
