"""A store's records other than its pictures: settings, generations, deletions.

One small collection of named JSON texts. Its vectors are meaningless: Milvus requires some.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from index.contract import StateGoneError
from index.milvus.connection import Connection
from index.milvus.paging import in_parts, scan
from index.milvus.rows import ID_LIMIT

_FIELDS: tuple[Mapping[str, Any], ...] = (
    {"field_name": "key", "datatype": "VARCHAR", "is_primary": True, "max_length": 200},
    {"field_name": "kind", "datatype": "VARCHAR", "max_length": 32},
    {"field_name": "place", "datatype": "INT64"},
    {"field_name": "sequence", "datatype": "INT64"},
    {"field_name": "value", "datatype": "VARCHAR", "max_length": 65_535},
    {"field_name": "vector", "datatype": "FLOAT_VECTOR", "dim": 2},
)
_VECTOR = np.array([1, 0], np.float32)
_AT_ONCE = 1_000


class Ledger:
    """Values by kind and name; a read sees all earlier writes of any process."""

    def __init__(self, connection: Connection) -> None:
        """Create the collection if it does not exist."""
        self._connection = connection
        self._name = f"{connection.settings.prefix}_ledger"
        if self._name not in connection.collections():
            try:
                connection.create(self._name, _FIELDS)
            except Exception:
                if self._name not in connection.collections():  # else another process was first
                    raise
            connection.index(self._name, "FLAT", {})
        connection.load(self._name)

    def get(self, kind: str, name: str) -> Any | None:
        """The value, or None."""
        where = f'key == "{_key(kind, name)}"'
        rows = self._connection.query(self._name, where, ["value"], 1)
        return json.loads(rows[0]["value"]) if rows else None

    def some(self, kind: str, names: Sequence[str]) -> dict[str, Any]:
        """The values of those of these names that have one."""
        keys = {_key(kind, name): name for name in names}
        found: dict[str, Any] = {}
        for part in in_parts(list(keys), _AT_ONCE):
            rows = self._connection.query(
                self._name, f"key in {json.dumps(part)}", ["key", "value"], len(part)
            )
            found |= {keys[row["key"]]: json.loads(row["value"]) for row in rows}
        return found

    def put(self, kind: str, values: Mapping[str, Any], sequence: int = 0) -> None:
        """Store values by name."""
        rows = [
            {
                "key": _key(kind, name),
                "kind": kind,
                "place": int(hashlib.sha256(name.encode()).hexdigest()[:13], 16) % ID_LIMIT,
                "sequence": sequence,
                "value": json.dumps(value, ensure_ascii=False),
                "vector": _VECTOR,
            }
            for name, value in values.items()
        ]
        for start in range(0, len(rows), _AT_ONCE):
            self._connection.upsert(self._name, rows[start : start + _AT_ONCE])

    def remove(self, kind: str, names: Sequence[str]) -> None:
        """Remove values, if they exist."""
        keys = [_key(kind, name) for name in names]
        for start in range(0, len(keys), _AT_ONCE):
            self._connection.delete(self._name, keys[start : start + _AT_ONCE])

    def all(self, kind: str, since: int = 0, before: int | None = None) -> list[Any]:
        """All values of a kind written at or after ``since``, and before ``before`` if given."""
        where = f'kind == "{kind}" and sequence >= {since}'
        if before is not None:
            where += f" and sequence < {before}"
        # `place` is a hash of the name, so that `scan` can page by it.
        parts = scan(self._connection, self._name, ["value"], where, column="place")
        return [json.loads(row["value"]) for rows in parts for row in rows]

    def flush(self) -> None:
        """Persist everything to Milvus's storage."""
        self._connection.flush(self._name)

    def usable(self) -> bool:
        """Whether it can be read now."""
        return self._connection.usable(self._name)

    def exists(self) -> bool:
        """Whether the collection still exists."""
        try:
            self._connection.count(self._name)
        except StateGoneError:
            return False
        return True


def _key(kind: str, name: str) -> str:
    """The primary key for a name of any length and characters."""
    return f"{kind}:{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}"
