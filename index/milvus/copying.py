"""Copying one collection into another while other processes keep writing to the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from index.contract import Ids, Vectors
from index.milvus.connection import WINDOW, Connection, Row
from index.milvus.expressions import listed
from index.milvus.generations import Generation
from index.milvus.ledger import Ledger
from index.milvus.paging import VECTORS_AT_ONCE, in_parts, scan
from index.milvus.rows import ALL, EMBEDDED, STORED, entry_of, facts_of, padded, vectors_of

MARGIN = 120 * 1_000_000
"""Microseconds by which a write may arrive later than its sequence number says: it is numbered
before it is sent, by a machine whose clock may differ."""
DELETED = "deleted"
_STATE = ("id", "sequence", "embedded_at")


def copy_all(
    connection: Connection,
    source: Generation,
    target: Generation,
    progress: Callable[[int], None],
    cancelled: Callable[[], bool],
) -> bool:
    """Copy every row, including vectors; False if cancelled."""
    done = 0
    for rows in scan(connection, source.name, ALL, size=VECTORS_AT_ONCE):
        if cancelled():
            return False
        connection.upsert(target.name, [_row(row) for row in rows])
        done += len(rows)
        progress(done)
    return True


def catch_up(
    connection: Connection, ledger: Ledger, source: Generation, target: Generation, since: int
) -> int:
    """Update the copy with what was written to the source after ``since``.

    Returns how many rows were copied or deleted. Both have the same model.
    """
    differing = changed_since(connection, source, target, since)
    for part in in_parts(differing, VECTORS_AT_ONCE):
        rows = connection.query(source.name, listed(part), ALL, len(part))
        connection.upsert(target.name, [_row(row) for row in rows])
    return len(differing) + delete_removed(connection, ledger, source, target, since)


def changed_since(
    connection: Connection, source: Generation, target: Generation, since: int
) -> list[int]:
    """Ids of rows written after ``since`` that are missing or different in the target."""
    where = f"sequence >= {since - MARGIN}"
    differing: list[int] = []
    for rows in scan(connection, source.name, _STATE, where):
        copied = state_of(connection, target, [int(row["id"]) for row in rows])
        differing += [
            int(row["id"])
            for row in rows
            if copied.get(int(row["id"]), (-1, -1))[0] != int(row["sequence"])
        ]
    return differing


def delete_removed(
    connection: Connection, ledger: Ledger, source: Generation, target: Generation, since: int
) -> int:
    """Delete from the target what was deleted from the source after ``since``."""
    deleted = sorted({int(id_) for id_, _ in ledger.all(DELETED, since - MARGIN)})
    removed = 0
    for part in in_parts(deleted, WINDOW):
        stored = state_of(connection, source, part)
        present = state_of(connection, target, part)
        doomed = [i for i in part if i in present and i not in stored]
        connection.delete(target.name, doomed)
        removed += len(doomed)
    return removed


def state_of(
    connection: Connection, generation: Generation, ids: Sequence[int]
) -> dict[int, tuple[int, int]]:
    """Id to the sequence numbers of the writes that last changed and embedded the row."""
    found: dict[int, tuple[int, int]] = {}
    for part in in_parts(ids, WINDOW):
        for row in connection.query(generation.name, listed(part), _STATE, len(part)):
            found[int(row["id"])] = (int(row["sequence"]), int(row["embedded_at"]))
    return found


def with_vector(row: Row, vector: Any, *, embedded: bool) -> dict[str, Any]:
    """The row to store, with another vector, and the facts of this version."""
    stored = {name: row[name] for name in STORED}
    return {
        **stored,
        **facts_of(entry_of(row)),
        "embedded": embedded,
        "vector": padded(np.asarray(vector, np.float32)),
    }


def states(connection: Connection, generation: Generation) -> Iterator[Sequence[Row]]:
    """All ids with the sequence numbers of their writes, in parts."""
    return scan(connection, generation.name, (*_STATE, "embedded"))


def vectors_in(connection: Connection, generation: Generation) -> tuple[Ids, Vectors]:
    """All that the generation's model has embedded: ascending ids int64 (n,), float32 (n, d)."""
    ids: list[int] = []
    parts = [np.empty((0, generation.dimension), np.float32)]
    fields = ["id", "vector"]
    for rows in scan(connection, generation.name, fields, EMBEDDED, size=VECTORS_AT_ONCE):
        ids += [int(row["id"]) for row in rows]
        parts.append(vectors_of(rows, generation.dimension))
    return np.array(ids, np.int64), np.concatenate(parts)


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return with_vector(row, row["vector"], embedded=bool(row["embedded"]))
