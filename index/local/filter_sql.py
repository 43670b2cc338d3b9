"""Filters as SQL over the catalogue's ``images`` table.

Every value and every key is a bound parameter, and no expression is ever NULL.
"""

import json
from collections.abc import Callable
from typing import TypeAlias

from index.conditions import COLUMNS, Condition, Filter, HasId, Match, Range

Sql: TypeAlias = tuple[str, list[str]]
"""An expression and its parameters."""

_OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def where_sql(where: Filter | None) -> Sql:
    """The filter as a WHERE expression; None matches everything."""
    if where is None:
        return "1", []
    parts: list[str] = []
    params: list[str] = []
    for conditions, joint, before in (
        (where.must, " AND ", ""),
        (where.should, " OR ", ""),
        (where.must_not, " OR ", "NOT "),
    ):
        if conditions:
            pieces = [_condition_sql(condition) for condition in conditions]
            parts.append(f"{before}({joint.join(expression for expression, _ in pieces)})")
            params += [param for _, values in pieces for param in values]
    return (" AND ".join(parts) if parts else "1"), params


def _condition_sql(condition: Condition) -> Sql:
    match condition:
        case Filter():
            return where_sql(condition)
        case HasId():
            return "id IN (SELECT value FROM json_each(?))", [json.dumps(condition.ids)]
        case Match():
            return _match_sql(condition)
        case Range():
            if condition.key in COLUMNS:
                return "0", []  # these hold text
            return _payload_sql(condition.key, lambda alias: _range_test(condition, alias))


def _match_sql(condition: Match) -> Sql:
    if condition.key not in COLUMNS:
        return _payload_sql(condition.key, lambda alias: _match_test(condition, alias))
    texts = [v for v in condition.values if isinstance(v, str)]
    if not texts:
        return "0", []
    # A NULL column must give false, not NULL, or must_not would drop the row.
    key = condition.key
    where = f"({key} IS NOT NULL AND {key} IN (SELECT value FROM json_each(?)))"  # noqa: S608 - the key is one of COLUMNS
    return where, [json.dumps(texts)]


def _match_test(condition: Match, alias: str) -> Sql:
    tests: list[str] = []
    params: list[str] = []
    for literal, value in (("true", True), ("false", False)):
        if any(v is value for v in condition.values):
            tests.append(f"{alias}.type = '{literal}'")
    texts = [v for v in condition.values if isinstance(v, str)]
    numbers = [v for v in condition.values if not isinstance(v, str | bool)]
    for types, values in (("'text'", texts), ("'integer', 'real'", numbers)):
        if values:
            one_of = f"{alias}.value IN (SELECT value FROM json_each(?))"  # noqa: S608 - a fixed alias
            tests.append(f"{alias}.type IN ({types}) AND {one_of}")
            # As JSON: one parameter for any number of values, and SQLite parses decimal numbers
            # exactly as it does those of the payload.
            params.append(json.dumps(values))
    return "(" + " OR ".join(tests) + ")", params


def _range_test(condition: Range, alias: str) -> Sql:
    tests = [f"{alias}.type IN ('integer', 'real')"]
    params: list[str] = []
    for name, operator in _OPERATORS.items():
        bound = getattr(condition, name)
        if bound is not None:
            tests.append(f"{alias}.value {operator} json_extract(?, '$')")
            params.append(json.dumps(bound))
    return "(" + " AND ".join(tests) + ")", params


def _payload_sql(key: str, test: Callable[[str], Sql]) -> Sql:
    """Follow the key through the payload with json_each, so that names need no escaping."""
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
