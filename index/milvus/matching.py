"""The ids that match a filter: an expression, and a list only if needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from index.conditions import Filter
from index.contract import Ids
from index.milvus.connection import WINDOW, Connection, Row
from index.milvus.expressions import EVERYTHING, Expression, expression
from index.milvus.paging import scan
from index.milvus.rows import as_mapping, entry_of
from index.records import Entry
from index.scans import UNBOUNDED, FilterScans, Scan


class Matching(Sequence[int]):
    """The ids, ascending, that match ``where`` in one collection; all of them without a filter."""

    def __init__(
        self,
        connection: Connection,
        name: str,
        where: Filter | None,
        scans: FilterScans = UNBOUNDED,
    ) -> None:
        self._scans = UNBOUNDED if where is None else scans
        self._connection = connection
        self._name = name
        self._where = where
        self.expression = Expression(EVERYTHING, EVERYTHING) if where is None else expression(where)
        self._ids: Ids | None = None
        self._bound: Scan | None = None

    @property
    def unfiltered(self) -> bool:
        """Whether every id matches."""
        return self._where is None

    def keeps(self, entry: Entry) -> bool:
        """Whether the entry matches the filter itself, within the time from the first one on."""
        if self._where is None:
            return True
        if self._bound is None:
            self._bound = self._scans.begin()
        else:
            self._bound.check()
        return self._where.matches(as_mapping(entry))

    def total(self) -> int:
        """How many match now."""
        if self.expression.exact:
            with self._scans.one():
                return self._connection.count(self._name, self.expression.wide)
        return len(self.ids())

    def ids(self) -> Ids:
        """The ids int64 (n,), as of the first call."""
        if self._ids is None:
            fields = ["id"] if self.expression.exact else ["id", "fields"]
            found = [
                int(row["id"])
                for rows in self._rows(fields)
                for row in rows
                if self.expression.exact or self.keeps(entry_of(row))
            ]
            self._ids = np.array(found, np.int64)
        return self._ids

    def entries(self, after: int = -1, size: int = WINDOW) -> Iterator[list[Entry]]:
        """The entries with an id above ``after``, ascending, in parts of at most ``size``."""
        fields = ["id", "fields"]
        for rows in self._rows(fields, after, size):
            entries = [entry_of(row) for row in rows]
            kept = [e for e in entries if self.expression.exact or self.keeps(e)]
            if kept:
                yield kept

    def _rows(
        self, fields: Sequence[str], after: int = -1, size: int = WINDOW
    ) -> Iterator[list[Row]]:
        """What the expression selects, within the bounds on reading by a filter."""
        name, where = self._name, self.expression.wide
        with self._scans.one():
            bound = self._scans.begin()
            for rows in scan(self._connection, name, fields, where, after, "id", size):
                if bound is not None:
                    bound.check()
                yield rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Ids:
        """Convert to a NumPy array."""
        return self.ids().astype(dtype or np.int64)

    def __len__(self) -> int:
        return len(self.ids())

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...

    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        found = self.ids()[index]
        return found.tolist() if isinstance(index, slice) else int(found)
