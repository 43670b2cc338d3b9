"""Reading many rows: Milvus returns at most 16,384 at a time, in no particular order.

So rows are read by ranges of an integer column. Its values are hashes below ID_LIMIT, spread
evenly; a range that turns out too full is split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from index.milvus.connection import WINDOW, Connection, Row
from index.milvus.expressions import both
from index.milvus.rows import ID_LIMIT

T = TypeVar("T")
VECTORS_AT_ONCE = 2_048
"""Maximum number of rows to read with their vectors, within Milvus's largest message."""

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
    """The matching rows with ``column`` above ``after``, ascending, in parts of at most ``size``.

    Each part is current when it is read. ``size`` is at most WINDOW.
    """
    fields = [*dict.fromkeys((*fields, column))]
    width = ID_LIMIT - after
    while after < ID_LIMIT:
        end = min(after + width, ID_LIMIT)
        here = both(f"{column} > {after} and {column} <= {end}", where)
        rows = connection.query(name, here, fields, size)
        if len(rows) < size:
            if rows:
                yield sorted(rows, key=lambda row: int(row[column]))
            after = end
            faster = 2 if len(rows) > size // _GROWTH else _GROWTH
            width = min(width * faster, ID_LIMIT - after)
        elif width == 1:
            raise RuntimeError(f"{len(rows)} rows of {name} have the same {column}, {end}")
        else:
            width = max(width // _GROWTH, 1)


def in_parts(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """The items in parts of at most ``size``."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
