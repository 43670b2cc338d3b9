"""Reading many rows: Milvus gives 16,384 at a time, and promises no order.

So rows are read by ranges of a whole-number field. Ids and places are hashes, spread evenly, and
where they are not, a range that is too full is halved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from index.milvus.connection import WINDOW, Connection, Row
from index.milvus.expressions import both
from index.milvus.rows import ID_LIMIT

VECTORS_AT_ONCE = 2_048
"""Rows with their vectors in one answer, which stays within Milvus's largest message."""

_TOP = (1 << 63) - 1
_GROWTH = 4


def scan(
    connection: Connection,
    name: str,
    fields: Sequence[str],
    where: str = "",
    after: int = -1,
    column: str = "id",
    size: int = WINDOW,
) -> Iterator[list[Row]]:
    """The matching rows with ``column`` above ``after``, ascending, some at a time.

    Each part is as of the time when it is read. ``size``, at most WINDOW: most rows at a time.
    """
    fields = [*dict.fromkeys((*fields, column))]
    width = _TOP - after
    while after < _TOP:
        end = min(after + width, _TOP)
        here = both(f"{column} > {after} and {column} <= {end}", where)
        rows = connection.query(name, here, fields, size)
        if len(rows) < size:
            if rows:
                yield sorted(rows, key=lambda row: int(row[column]))
            after = end
            width = min(width * (2 if len(rows) > size // _GROWTH else _GROWTH), _TOP - after)
        elif width > ID_LIMIT:
            # What can be asked for by hashes; beyond lie only ids that somebody chose.
            width = ID_LIMIT
        elif width == 1:
            raise RuntimeError(f"{len(rows)} rows of {name} have the same {column}, {end}")
        else:
            width = max(width // _GROWTH, 1)


def in_parts(ids: Sequence[int], size: int) -> Iterator[list[int]]:
    """The ids, some at a time."""
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])
