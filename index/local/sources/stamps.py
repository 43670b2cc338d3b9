"""The stamps of the corpus's files, in a table of their own.

Pictures do not change with them, so they have neither checksums nor sequence numbers: one that was
lost or damaged has its file looked at again.
"""

import sqlite3
from collections.abc import Mapping

from index.local.schema import STAMPS
from index.records import NO_STAMP, Stamp


def exist(connection: sqlite3.Connection, schema: str = "main") -> bool:
    """Whether there is the table: earlier versions had none."""
    found = connection.execute(
        f"SELECT 1 FROM {schema}.sqlite_master WHERE type = 'table' AND name = 'stamps'"  # noqa: S608 - a fixed word
    ).fetchone()
    return found is not None


def read(connection: sqlite3.Connection) -> dict[int, Stamp]:
    """See `index.contract.Catalogue.stamps`."""
    if not exist(connection):
        return {}
    rows = connection.execute(
        "SELECT id, size, modified_ns, stamps.content_hash IS images.content_hash "
        "FROM stamps JOIN images USING (id)"
    )
    return {id_: Stamp(size, modified) if same else NO_STAMP for id_, size, modified, same in rows}


def write(
    connection: sqlite3.Connection,
    stamps: Mapping[int, Stamp],
    content_hashes: Mapping[int, str | None] | None,
) -> None:
    """See `index.contract.Catalogue.set_stamps`."""
    connection.execute(STAMPS)
    connection.executemany(
        "INSERT OR REPLACE INTO stamps SELECT id, ?, ?, content_hash FROM images "
        "WHERE id = ? AND (content_hash IS ? OR ?)",
        [
            (*stamp, id_, (content_hashes or {}).get(id_), content_hashes is None)
            for id_, stamp in stamps.items()
        ],
    )


def restore(connection: sqlite3.Connection) -> None:
    """Take back the stamps of a snapshot, attached as ``snap``, whose images were restored.

    Each holds only for the content that it was recorded with; those that cannot be right are left.
    """
    if not exist(connection, "snap"):
        return
    connection.execute(STAMPS)
    connection.execute(
        "INSERT OR IGNORE INTO main.stamps SELECT id, size, modified_ns, content_hash "
        "FROM snap.stamps WHERE typeof(id) = 'integer' AND typeof(size) = 'integer' "
        "AND typeof(modified_ns) = 'integer' AND typeof(content_hash) IN ('text', 'null') "
        "AND id IN (SELECT id FROM main.images)"
    )


def forget(connection: sqlite3.Connection, listed: str) -> None:
    """Forget those of the ids in the JSON list ``listed``."""
    if exist(connection):
        connection.execute(
            "DELETE FROM stamps WHERE id IN (SELECT value FROM json_each(?))", (listed,)
        )
