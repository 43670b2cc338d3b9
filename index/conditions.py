"""The conditions of a filter: what each means, in Python and in SQL.

`index.filters` describes the language and builds these from a request.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from index.payload import Scalar

COLUMNS = ("label", "split", "source")
_BOUNDS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

Sql: TypeAlias = tuple[str, list[str]]


@dataclass(frozen=True)
class Match:
    """The field equals one of ``values``."""

    key: str
    values: tuple[Scalar, ...]

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry's field, or one element of it, equals one of the values."""
        return any(_same(found, v) for found in scalars_of(entry, self.key) for v in self.values)

    def to_sql(self) -> Sql:
        """The condition in SQL; see `Filter.to_sql`."""
        if self.key not in COLUMNS:
            return _payload_sql(self.key, self._test)
        texts = [v for v in self.values if isinstance(v, str)]
        if not texts:
            return "0", []
        # A NULL column must give false and not NULL, or must_not would drop the row.
        where = f"({self.key} IS NOT NULL AND {self.key} IN (SELECT value FROM json_each(?)))"  # noqa: S608 - the key is one of COLUMNS
        return where, [json.dumps(texts)]

    def _test(self, alias: str) -> Sql:
        tests: list[str] = []
        params: list[str] = []
        for literal, value in (("true", True), ("false", False)):
            if any(v is value for v in self.values):
                tests.append(f"{alias}.type = '{literal}'")
        texts = [v for v in self.values if isinstance(v, str)]
        numbers = [v for v in self.values if not isinstance(v, str | bool)]
        for types, values in (("'text'", texts), ("'integer', 'real'", numbers)):
            if values:
                one_of = f"{alias}.value IN (SELECT value FROM json_each(?))"  # noqa: S608 - a fixed alias
                tests.append(f"{alias}.type IN ({types}) AND {one_of}")
                # As JSON: one parameter for any number of values, and SQLite reads a decimal
                # number here exactly as it reads the payload's.
                params.append(json.dumps(values))
        return "(" + " OR ".join(tests) + ")", params


@dataclass(frozen=True)
class Range:
    """The field is a number within the bounds that are given."""

    key: str
    gt: int | float | None = None
    gte: int | float | None = None
    lt: int | float | None = None
    lte: int | float | None = None

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry's field, or one element of it, is a number within the bounds."""
        return any(self._within(found) for found in scalars_of(entry, self.key))

    def _within(self, value: Scalar) -> bool:
        if isinstance(value, bool | str):
            return False
        return (
            (self.gt is None or value > self.gt)
            and (self.gte is None or value >= self.gte)
            and (self.lt is None or value < self.lt)
            and (self.lte is None or value <= self.lte)
        )

    def to_sql(self) -> Sql:
        """The condition in SQL; see `Filter.to_sql`."""
        return ("0", []) if self.key in COLUMNS else _payload_sql(self.key, self._test)

    def _test(self, alias: str) -> Sql:
        tests = [f"{alias}.type IN ('integer', 'real')"]
        params: list[str] = []
        for name, operator in _BOUNDS.items():
            bound = getattr(self, name)
            if bound is not None:
                tests.append(f"{alias}.value {operator} json_extract(?, '$')")
                params.append(json.dumps(bound))
        return "(" + " AND ".join(tests) + ")", params


@dataclass(frozen=True)
class HasId:
    """The entry's id is one of ``ids``."""

    ids: tuple[int, ...]

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry's id is one of these."""
        return entry["id"] in self.ids

    def to_sql(self) -> Sql:
        """The condition in SQL; see `Filter.to_sql`."""
        return "id IN (SELECT value FROM json_each(?))", [json.dumps(self.ids)]


@dataclass(frozen=True)
class Filter:
    """All of ``must``, one of ``should`` if there is any, none of ``must_not``."""

    must: tuple["Condition", ...] = ()
    should: tuple["Condition", ...] = ()
    must_not: tuple["Condition", ...] = ()

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry matches: a mapping with id, label, split, source and payload."""
        return (
            all(condition.matches(entry) for condition in self.must)
            and (not self.should or any(condition.matches(entry) for condition in self.should))
            and not any(condition.matches(entry) for condition in self.must_not)
        )

    def to_sql(self) -> Sql:
        """A WHERE expression over the catalogue's ``images`` table, and its parameters.

        Every value and every key is a bound parameter; the expression is never NULL.
        """
        parts: list[str] = []
        params: list[str] = []
        for conditions, joint, before in (
            (self.must, " AND ", ""),
            (self.should, " OR ", ""),
            (self.must_not, " OR ", "NOT "),
        ):
            if conditions:
                pieces = [condition.to_sql() for condition in conditions]
                parts.append(f"{before}({joint.join(where for where, _ in pieces)})")
                params += [param for _, values in pieces for param in values]
        return (" AND ".join(parts) if parts else "1"), params


Condition: TypeAlias = Match | Range | HasId | Filter


def _same(a: Scalar, b: Scalar) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return a == b


def scalars_of(entry: Mapping[str, Any], key: str) -> Sequence[Scalar]:
    """The scalars that a condition on ``key`` is tried on: the value, or the elements of a list."""
    value: Any = entry[key] if key in COLUMNS else entry["payload"]
    if key not in COLUMNS:
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return ()
            value = value[part]
    elements = value if isinstance(value, list) else [value]
    return [element for element in elements if isinstance(element, bool | int | float | str)]


def _payload_sql(key: str, test: Callable[[str], Sql]) -> Sql:
    """Walk the payload along the key with json_each, so that names need no escaping."""
    parts = key.split(".")
    tables = ["json_each(payload) AS p0"]
    for i in range(1, len(parts)):
        before = f"p{i - 1}"
        inner = f"CASE {before}.type WHEN 'object' THEN {before}.value ELSE '{{}}' END"
        tables.append(f"json_each({inner}) AS p{i}")
    last = f"p{len(parts) - 1}"
    names = " AND ".join(f"p{i}.key = ?" for i in range(len(parts)))
    direct, params = test(last)
    element, element_params = test("e")
    elements = f"json_each(CASE {last}.type WHEN 'array' THEN {last}.value ELSE '[]' END) AS e"
    where = (
        f"EXISTS (SELECT 1 FROM {', '.join(tables)} WHERE {names} AND ({direct} "  # noqa: S608 - only fixed words and aliases
        f"OR EXISTS (SELECT 1 FROM {elements} WHERE {element})))"
    )
    return where, [*parts, *params, *element_params]
