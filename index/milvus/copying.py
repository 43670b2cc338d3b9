"""From one collection into another, while everybody goes on writing to the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from index.milvus.connection import WINDOW, Connection, Row
from index.milvus.expressions import listed
from index.milvus.generations import Generation
from index.milvus.ledger import Ledger
from index.milvus.paging import VECTORS_AT_ONCE, in_parts, scan
from index.milvus.rows import ALL, STORED, padded

MARGIN = 120 * 1_000_000
"""Microseconds by which a write may be older than it seems: it was numbered before it was sent, by
a machine whose clock may differ."""
DELETED = "deleted"
_STATE = ("id", "sequence", "embedded_at")


def copy_all(
    connection: Connection,
    source: Generation,
    target: Generation,
    progress: Callable[[int], None],
    cancelled: Callable[[], bool],
) -> bool:
    """Copy every row, vectors too; False if it was cancelled."""
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
    """Bring the copy up to date with what was written to the source after ``since``.

    Returns how many rows were copied or deleted. Both have the same model.
    """
    differing = changed_since(connection, source, target, since)
    for part in in_parts(differing, VECTORS_AT_ONCE):
        rows = connection.query(source.name, listed(part), ALL, len(part))
        connection.upsert(target.name, [_row(row) for row in rows])
    return len(differing) + delete_gone(connection, ledger, source, target, since)


def changed_since(
    connection: Connection, source: Generation, target: Generation, since: int
) -> list[int]:
    """Ids of rows written after ``since`` that the target has not, or has otherwise."""
    where = f"sequence >= {since - MARGIN}"
    differing: list[int] = []
    for rows in scan(connection, source.name, _STATE, where):
        theirs = state_of(connection, target, [int(row["id"]) for row in rows])
        differing += [
            int(row["id"])
            for row in rows
            if theirs.get(int(row["id"]), (-1, -1))[0] != int(row["sequence"])
        ]
    return differing


def delete_gone(
    connection: Connection, ledger: Ledger, source: Generation, target: Generation, since: int
) -> int:
    """Delete from the target what was deleted from the source after ``since``."""
    gone = sorted({int(value) for value in ledger.all(DELETED, since - MARGIN)})
    removed = 0
    for part in in_parts(gone, WINDOW):
        again = state_of(connection, source, part)
        there = state_of(connection, target, part)
        doomed = [i for i in part if i in there and i not in again]
        connection.delete(target.name, doomed)
        removed += len(doomed)
    return removed


def state_of(
    connection: Connection, generation: Generation, ids: Sequence[int]
) -> dict[int, tuple[int, int]]:
    """Id to the numbers of the writes that last changed the row, and that embedded it."""
    found: dict[int, tuple[int, int]] = {}
    for part in in_parts(ids, WINDOW):
        for row in connection.query(generation.name, listed(part), _STATE, len(part)):
            found[int(row["id"])] = (int(row["sequence"]), int(row["embedded_at"]))
    return found


def with_vector(row: Row, vector: Any, *, embedded: bool) -> dict[str, Any]:
    """The row with another vector, to be stored."""
    stored = {name: row[name] for name in STORED}
    return {
        **stored,
        "facts": list(row["facts"]),
        "embedded": embedded,
        "vector": padded(np.asarray(vector, np.float32)),
    }


def states(connection: Connection, generation: Generation) -> Iterator[Sequence[Row]]:
    """Ids and the numbers of their writes, all of them, some at a time."""
    return scan(connection, generation.name, (*_STATE, "embedded"))


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return with_vector(row, row["vector"], embedded=bool(row["embedded"]))
