"""Filters as SQL over the catalogue's ``images`` table.

Every value and every key is a bound parameter, and no expression is ever NULL.
"""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from index.conditions import COLUMNS, Condition, Filter, HasId, Match, Range
from index.records import Scalar

Sql: TypeAlias = tuple[str, list[str]]
"""An expression and its parameters."""

# Names that JSON never escapes, so that a path finds them as they are.
_PLAIN = re.compile(r"[ !#-\[\]-~]+")
_OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def where_sql(where: Filter | None) -> Sql:
    """The filter as a WHERE expression; None matches everything."""
    if where is None:
        return "1", []
    parts: list[Sql] = []
    if where.must:
        parts.append(_joined(" AND ", [_any_sql([condition]) for condition in where.must]))
    if where.should:
        parts.append(_any_sql(where.should))
    if where.must_not:
        none, params = _any_sql(where.must_not)
        parts.append((f"NOT {none}", params))
    return _joined(" AND ", parts) if parts else ("1", [])


def _any_sql(conditions: Sequence[Condition]) -> Sql:
    """Whether one of them matches; those on the same field read it once."""
    others: list[Sql] = []
    by_key: dict[str, list[Match | Range]] = {}
    for condition in conditions:
        match condition:
            case Filter():
                others.append(where_sql(condition))
            case HasId():
                others.append(
                    ("id IN (SELECT value FROM json_each(?))", [json.dumps(condition.ids)])
                )
            case Match() | Range():
                by_key.setdefault(condition.key, []).append(condition)
    fields = [
        _column_sql(key, same) if key in COLUMNS else _payload_sql(key, same)
        for key, same in by_key.items()
    ]
    # The cheap ones first: what they decide needs no parsing of the payload.
    return _joined(" OR ", sorted(others + fields, key=lambda part: "json_type" in part[0]))


def _joined(word: str, parts: Sequence[Sql]) -> Sql:
    expressions = [expression for expression, _ in parts]
    return f"({word.join(expressions)})", [param for _, params in parts for param in params]


def _column_sql(key: str, conditions: Sequence[Match | Range]) -> Sql:
    texts = [
        value
        for condition in conditions
        if isinstance(condition, Match)  # the columns hold text, which is in no range
        for value in condition.values
        if isinstance(value, str)
    ]
    if not texts:
        return "0", []
    # A NULL column must give false, not NULL, or must_not would drop the row.
    where = f"({key} IS NOT NULL AND {key} IN (SELECT value FROM json_each(?)))"  # noqa: S608 - the key is one of COLUMNS
    return where, [json.dumps(texts)]


class _Operand(NamedTuple):
    """A JSON value in SQL: expressions for its type and its value."""

    type: Sql
    value: Sql


def _test(conditions: Sequence[Match | Range], operand: _Operand) -> Sql:
    """Whether a scalar matches one of the conditions; NULL if there is none."""
    values = [v for c in conditions if isinstance(c, Match) for v in c.values]
    tests = _match_tests(values, operand)
    tests += [_range_test(c, operand) for c in conditions if isinstance(c, Range)]
    return _joined(" OR ", tests)


def _match_tests(values: Sequence[Scalar], operand: _Operand) -> list[Sql]:
    type_, type_params = operand.type
    value_, value_params = operand.value
    tests: list[Sql] = []
    for literal, value in (("true", True), ("false", False)):
        if any(v is value for v in values):
            tests.append((f"{type_} = '{literal}'", type_params))
    texts = [v for v in values if isinstance(v, str)]
    numbers = [v for v in values if not isinstance(v, str | bool)]
    for types, some in (("'text'", texts), ("'integer', 'real'", numbers)):
        if some:
            one_of = f"{value_} IN (SELECT value FROM json_each(?))"  # noqa: S608 - fixed words
            # As JSON: one parameter for any number of values, and SQLite parses decimal numbers
            # exactly as it does those of the payload.
            params = [*type_params, *value_params, json.dumps(some)]
            tests.append((f"({type_} IN ({types}) AND {one_of})", params))
    return tests


def _range_test(condition: Range, operand: _Operand) -> Sql:
    type_, params = operand.type
    value_, value_params = operand.value
    tests: list[Sql] = [(f"{type_} IN ('integer', 'real')", params)]
    for name, operator in _OPERATORS.items():
        bound = getattr(condition, name)
        if bound is not None:
            test = f"{value_} {operator} json_extract(?, '$')"
            tests.append((test, [*value_params, json.dumps(bound)]))
    return _joined(" AND ", tests)


_ELEMENT = _Operand(("e.type", []), ("e.value", []))


def _payload_sql(key: str, conditions: Sequence[Match | Range]) -> Sql:
    parts = key.split(".")
    if not all(map(_PLAIN.fullmatch, parts)):
        return _walked_sql(parts, conditions)
    # SQLite parses the payload once for all of these functions.
    path = "$" + "".join(f'."{part}"' for part in parts)
    type_ = ("json_type(payload, ?)", [path])
    scalar, params = _test(conditions, _Operand(type_, ("json_extract(payload, ?)", [path])))
    element, element_params = _test(conditions, _ELEMENT)
    where = (
        f"CASE {type_[0]} WHEN 'array' THEN "  # noqa: S608 - only fixed words and aliases
        f"EXISTS (SELECT 1 FROM json_each(payload, ?) AS e WHERE {element}) "
        f"ELSE coalesce({scalar}, 0) END"
    )
    return where, [path, path, *element_params, *params]


def _walked_sql(parts: Sequence[str], conditions: Sequence[Match | Range]) -> Sql:
    """Follow the names through the payload with json_each, so that they need no escaping."""
    tables = ["json_each(payload) AS p0"]
    for i in range(1, len(parts)):
        before = f"p{i - 1}"
        inner = f"CASE {before}.type WHEN 'object' THEN {before}.value ELSE '{{}}' END"
        tables.append(f"json_each({inner}) AS p{i}")
    last = f"p{len(parts) - 1}"
    names = " AND ".join(f"p{i}.key = ?" for i in range(len(parts)))
    direct, params = _test(conditions, _Operand((f"{last}.type", []), (f"{last}.value", [])))
    element, element_params = _test(conditions, _ELEMENT)
    elements = f"json_each(CASE {last}.type WHEN 'array' THEN {last}.value ELSE '[]' END) AS e"
    where = (
        f"EXISTS (SELECT 1 FROM {', '.join(tables)} WHERE {names} AND ({direct} "  # noqa: S608 - only fixed words and aliases
        f"OR EXISTS (SELECT 1 FROM {elements} WHERE {element})))"
    )
    return where, [*parts, *params, *element_params]
