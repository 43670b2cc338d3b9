"""Filters as SQL over the catalogue's ``images`` table.

Every value and every key is a bound parameter, and no expression is ever NULL. What SQLite cannot
compare itself, dates and words, is left to functions of this program, after a test by SQLite that
rules out most rows.
"""

import json
import re
import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from index.conditions import (
    COLUMNS,
    Condition,
    DateRange,
    Except,
    FieldCondition,
    Filter,
    HasId,
    IsEmpty,
    IsNull,
    Match,
    Nested,
    Range,
    ValuesCount,
    Words,
    steps_of,
    within,
)
from index.dates import day
from index.records import Scalar
from index.sorting import OrderBy, SortPosition, sort_text
from index.words import has_words

Sql: TypeAlias = tuple[str, list[str]]
"""An expression and its parameters."""

# Names that JSON never escapes, so that a path finds them as they are.
_PLAIN = re.compile(r"[ !#-\[\]-~]+")
_OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_MAX_TEXTS = 8
_NUMBERS = ("integer", "real")
_AFTER_DIGITS = ":"


def define(connection: sqlite3.Connection) -> None:
    """Define the functions that the expressions call."""
    connection.create_function("in_dates", 2, _in_dates, deterministic=True)
    connection.create_function("has_words", 2, _has_words, deterministic=True)
    connection.create_function("sort_text", 1, _sort_text, deterministic=True)


def where_sql(where: Filter | None, payload: str = "payload", depth: int = 0) -> Sql:
    """The filter as a WHERE expression; None matches everything.

    ``payload`` is the expression of the object that the keys belong to: in a nested condition, at a
    ``depth``, one in a list.
    """
    if where is None:
        return "1", []
    parts: list[Sql] = []
    here = _Place(payload, depth)
    if where.must:
        parts.append(_joined(" AND ", [_any_sql([c], here) for c in where.must]))
    if where.should:
        parts.append(_any_sql(where.should, here))
    if where.must_not:
        none, params = _any_sql(where.must_not, here)
        parts.append((f"NOT {none}", params))
    return _joined(" AND ", parts) if parts else ("1", [])


class _Place(NamedTuple):
    """Where fields are: an expression of the object that has them, and how deep it is nested."""

    payload: str
    depth: int


_TOP = _Place("payload", 0)


def _any_sql(conditions: Sequence[Condition], here: _Place) -> Sql:
    """Whether one of them matches; those on the same field read it once."""
    parts: list[Sql] = []
    by_key: dict[str, list[FieldCondition]] = {}
    for condition in conditions:
        match condition:
            case Filter():
                parts.append(where_sql(condition, *here))
            case HasId():
                parts.append(
                    ("id IN (SELECT value FROM json_each(?))", [json.dumps(condition.ids)])
                )
            case Nested():
                parts.append(_nested_sql(condition, here))
            case _:
                by_key.setdefault(condition.key, []).append(condition)
    for key, same in by_key.items():
        if here == _TOP and key in COLUMNS:
            parts += _columns_sql(key, same)
        else:
            parts += _payload_sql(key, same, here)
    # The cheap ones first: what they decide needs no parsing of the payload.
    return _joined(" OR ", sorted(parts, key=lambda part: "json_type" in part[0]))


def _joined(word: str, parts: Sequence[Sql]) -> Sql:
    expressions = [expression for expression, _ in parts]
    return f"({word.join(expressions)})", [param for _, params in parts for param in params]


def _columns_sql(key: str, conditions: Sequence[FieldCondition]) -> list[Sql]:
    values = tuple(v for c in conditions if isinstance(c, Match) for v in c.values)
    others: list[FieldCondition] = [c for c in conditions if not isinstance(c, Match)]
    # One list for all of them, for which SQLite uses the column's index.
    return [_column_sql(key, c) for c in ([Match(key, values)] if values else []) + others]


def _column_sql(key: str, condition: FieldCondition) -> Sql:
    """A condition on a column, which holds text or NULL."""
    match condition:
        case Match() | Except():
            listed = json.dumps([v for v in condition.values if isinstance(v, str)])
            negated = "NOT " if isinstance(condition, Except) else ""
            test: Sql = (f"{key} {negated}IN (SELECT value FROM json_each(?))", [listed])  # noqa: S608 - the key is one of COLUMNS
        case DateRange():
            test = _date_test(condition, (key, []))
        case Words():
            test = _words_test(condition, (key, []))
        case IsNull() | IsEmpty():
            return f"({key} IS NULL)", []
        case ValuesCount():
            filled, null = within(condition, 1), within(condition, 0)
            if filled == null:
                return str(int(filled)), []
            return f"({key} IS {'NOT ' if filled else ''}NULL)", []
        case _:  # numbers
            return "0", []
    # A NULL column must give false, not NULL, or must_not would drop the row.
    return f"({key} IS NOT NULL AND {test[0]})", test[1]


class _Operand(NamedTuple):
    """A JSON value in SQL: expressions for its type and its value."""

    type: Sql
    value: Sql


def _value_sql(
    conditions: Sequence[FieldCondition], operand: _Operand, elements: Sql | None = None
) -> Sql:
    """Whether a value matches one of the conditions; of a list, one of the ``elements``, if given.

    The type is read once, and decides which tests there are.
    """
    arms: list[tuple[str, Sql]] = []
    if elements is not None:
        element, params = _value_sql(conditions, _ELEMENT)
        some = f"EXISTS (SELECT 1 FROM {elements[0]} AS e WHERE {element})"  # noqa: S608 - only fixed words and aliases
        arms.append(("array", (some, [*elements[1], *params])))
    for type_ in ("text", "integer", "real", "true", "false", "object", "array"):
        tests = [test for c in conditions if (test := _test(c, type_, operand.value)) is not None]
        if tests:
            arms.append((type_, _joined(" OR ", tests)))
    whens = "".join(f"WHEN '{type_}' THEN {test} " for type_, (test, _) in arms)
    params = [param for _, (_, some) in arms for param in some]
    return f"CASE {operand.type[0]} {whens}ELSE 0 END", [*operand.type[1], *params]


def _test(condition: FieldCondition, type_: str, value: Sql) -> Sql | None:
    """Whether a value of this JSON type matches; None if no value of the type does."""
    match condition:
        case Match():
            return _one_of(condition.values, type_, value)
        case Except():
            test = _one_of(condition.values, type_, value)
            return ("1", []) if test is None else (f"NOT {test[0]}", test[1])
        case Range() if type_ in _NUMBERS:
            return _joined(" AND ", _bound_tests(condition, value))
        case DateRange() if type_ == "text":
            return _date_test(condition, value)
        case Words() if type_ == "text":
            return _words_test(condition, value)
        case _:
            return None


def _one_of(values: Sequence[Scalar], type_: str, value: Sql) -> Sql | None:
    """Whether a value of this JSON type is one of these; None if no value of the type is."""
    if type_ in ("true", "false"):
        return ("1", []) if any(v is (type_ == "true") for v in values) else None
    if type_ == "text":
        some: list[Scalar] = [v for v in values if isinstance(v, str)]
    elif type_ in _NUMBERS:
        some = [v for v in values if not isinstance(v, str | bool)]
    else:
        return None
    # As JSON: one parameter for any number of values, and SQLite parses decimal numbers exactly as
    # it does those of the payload.
    listed = [*value[1], json.dumps(some)]
    return (f"({value[0]} IN (SELECT value FROM json_each(?)))", listed) if some else None  # noqa: S608 - fixed words


def _bound_tests(bounds: Range | ValuesCount, value: Sql) -> list[Sql]:
    return [
        (f"{value[0]} {operator} json_extract(?, '$')", [*value[1], json.dumps(bound)])
        for name, operator in _OPERATORS.items()
        if (bound := getattr(bounds, name)) is not None
    ]


def _date_test(condition: DateRange, value: Sql) -> Sql:
    """Whether a text is a date within the bounds."""
    # The date that the text begins with is at most a day away from that of the instant.
    low, high = condition.gt or condition.gte, condition.lt or condition.lte
    first, last = low and day(low, -1), high and day(high, 2)
    bounds = json.dumps([condition.gt, condition.gte, condition.lt, condition.lte])
    near = (f"{value[0]} BETWEEN ? AND ?", [*value[1], first or "", last or _AFTER_DIGITS])
    return _only_if(near, (f"in_dates({value[0]}, ?)", [*value[1], bounds]))


def _only_if(likely: Sql, exact: Sql) -> Sql:
    """Both tests, the second only where the first is true: AND evaluates both inside a CASE."""
    return f"CASE WHEN {likely[0]} THEN {exact[0]} ELSE 0 END", [*likely[1], *exact[1]]


def _words_test(condition: Words, value: Sql) -> Sql:
    """Whether a text has all of the words."""
    exact = (f"has_words({value[0]}, ?)", [*value[1], json.dumps(condition.words)])
    return _only_if(_words_likely(condition, value), exact)


def _words_likely(condition: Words, value: Sql) -> Sql:
    """Whether a text has all of the words, or may have; so may any with letters beyond ASCII.

    Some of these are equal to letters in ASCII, such as the Kelvin sign to k.
    """
    value_, params = value
    beyond = (f"length({value_}) <> length(CAST({value_} AS BLOB))", [*params, *params])
    if not all(word.isascii() for word in condition.words):
        return beyond
    tests = [(f"{value_} LIKE ?", [*params, f"%{word}%"]) for word in condition.words]
    return _joined(" OR ", [_joined(" AND ", tests), beyond])


_ELEMENT = _Operand(("e.type", []), ("e.value", []))


def _payload_sql(key: str, conditions: Sequence[FieldCondition], here: _Place) -> list[Sql]:
    steps = steps_of(key)
    of_elements = [
        c for c in conditions if isinstance(c, Match | Except | Range | DateRange | Words)
    ]
    others = [c for c in conditions if isinstance(c, IsEmpty | IsNull | ValuesCount)]
    if (path := _path(steps)) is not None:
        # SQLite parses the payload once for all of these functions.
        parts = [_direct_sql(path, of_elements, here)] if of_elements else []
        if (texts := _texts_sql(of_elements)) is not None and here == _TOP:
            parts = [_joined(" AND ", [texts, *parts])]
        return parts + [_whole_sql(path, condition, here) for condition in others]
    parts = [_walked_sql(steps, of_elements, here)] if of_elements else []
    return parts + [_walked_whole_sql(steps, condition, here) for condition in others]


def _path(steps: Sequence[str | None]) -> str | None:
    """The steps as a path of SQLite; None if it could not follow them."""
    names = [step for step in steps if step is not None and _PLAIN.fullmatch(step)]
    return "$" + "".join(f'."{name}"' for name in names) if len(names) == len(steps) else None


def _texts_sql(conditions: Sequence[FieldCondition]) -> Sql | None:
    """Whether the payload has one of the texts that the conditions accept, anywhere, as JSON.

    Much faster than parsing it; None where there are other conditions, or many texts.
    """
    values = [v for c in conditions if isinstance(c, Match) for v in c.values]
    plain = [v for v in values if isinstance(v, str) and _PLAIN.fullmatch(v)]
    if not 0 < len(plain) == len(values) <= _MAX_TEXTS or not all(
        isinstance(c, Match) for c in conditions
    ):
        return None
    return _joined(" OR ", [("instr(payload, ?)", [f'"{text}"']) for text in plain])


def _direct_sql(path: str, conditions: Sequence[FieldCondition], here: _Place) -> Sql:
    type_: Sql = (f"json_type({here.payload}, ?)", [path])
    value: Sql = (f"json_extract({here.payload}, ?)", [path])
    elements: Sql = (f"json_each({here.payload}, ?)", [path])
    return _value_sql(conditions, _Operand(type_, value), elements)


def _whole_sql(path: str, condition: IsEmpty | IsNull | ValuesCount, here: _Place) -> Sql:
    type_ = f"json_type({here.payload}, ?)"
    length = f"json_array_length({here.payload}, ?)"
    match condition:
        case IsNull():
            return f"coalesce({type_} = 'null', 0)", [path]
        case IsEmpty():
            empty = f"CASE {type_} WHEN 'null' THEN 1 WHEN 'array' THEN {length} = 0 ELSE 0 END"
            return f"({type_} IS NULL OR {empty})", [path, path, path]
    count = (
        f"CASE coalesce({type_}, 'null') WHEN 'null' THEN 0 WHEN 'array' THEN {length} ELSE 1 END"
    )
    return _joined(" AND ", _bound_tests(condition, (count, [path, path])))


def _walked_sql(
    steps: Sequence[str | None], conditions: Sequence[FieldCondition], here: _Place
) -> Sql:
    reached, names, last = _walk(steps, here)
    elements: Sql = (f"json_each({_if_type('array', last)})", [])
    test, params = _value_sql(conditions, last, elements)
    return f"EXISTS ({reached} AND {test})", [*names, *params]


def _walked_whole_sql(
    steps: Sequence[str | None], condition: IsEmpty | IsNull | ValuesCount, here: _Place
) -> Sql:
    reached, names, last = _walk(steps, here)
    type_ = last.type[0]
    length = f"json_array_length({_if_type('array', last)})"
    match condition:
        case IsNull():
            return f"EXISTS ({reached} AND {type_} = 'null')", names
        case IsEmpty():
            full = f"{type_} <> 'null' AND NOT ({type_} = 'array' AND {length} = 0)"
            return f"NOT EXISTS ({reached} AND {full})", names
    count = f"CASE {type_} WHEN 'null' THEN 0 WHEN 'array' THEN {length} ELSE 1 END"
    test, bounds = _joined(" AND ", _bound_tests(condition, (count, [])))
    where = f"EXISTS ({reached} AND {test})"
    if within(condition, 0):  # as many values has a field that is missing
        return f"({where} OR NOT EXISTS ({reached}))", [*names, *bounds, *names]
    return where, [*names, *bounds]


def _nested_sql(condition: Nested, here: _Place) -> Sql:
    # Columns are not in lists, so a column's name is here a name in the payload.
    reached, names, last = _walk([*steps_of(condition.key), None], here)
    inner, params = where_sql(condition.filter, _if_type("object", last), here.depth + 1)
    return f"EXISTS ({reached} AND {last.type[0]} = 'object' AND {inner})", [*names, *params]


def _walk(steps: Sequence[str | None], here: _Place) -> tuple[str, list[str], _Operand]:
    """Follow the steps with json_each, so that names need no escaping.

    Returns a query for all that they reach, its parameters, and what each of its rows is.
    """
    alias = f"p{here.depth}_"
    tables: list[str] = []
    names: list[str] = []
    value = here.payload
    for i, step in enumerate(steps):
        table = f"{alias}{i}"
        kind = "array" if step is None else "object"
        if i:
            before = f"{alias}{i - 1}"
            value = _if_type(kind, _Operand((f"{before}.type", []), (f"{before}.value", [])))
        tables.append(f"json_each({value}) AS {table}")
        names.append("1" if step is None else f"{table}.key = ?")
    last = f"{alias}{len(steps) - 1}"
    query = f"SELECT 1 FROM {', '.join(tables)} WHERE {' AND '.join(names)}"  # noqa: S608 - only fixed words and aliases
    params = [step for step in steps if step is not None]
    return query, params, _Operand((f"{last}.type", []), (f"{last}.value", []))


def _if_type(kind: str, operand: _Operand) -> str:
    """The value if it is an object, or an array, else an empty one."""
    empty = "{}" if kind == "object" else "[]"
    return f"CASE {operand.type[0]} WHEN '{kind}' THEN {operand.value[0]} ELSE '{empty}' END"


def sort_sql(order: OrderBy) -> Sql:
    """What a row is sorted by: SQLite compares NULL, numbers, texts and blobs in this order."""
    key = order.key
    if key == "id":
        return key, []
    if key in COLUMNS:
        return f"CASE WHEN {key} IS NOT NULL THEN sort_text({key}) END", []
    best = "max" if order.descending else "min"
    element, _ = _sort_value(_ELEMENT, "")
    if (path := _path(steps_of(key))) is not None:
        elements = f"WHEN 'array' THEN (SELECT {best}({element}) FROM json_each(payload, ?) AS e) "  # noqa: S608 - only fixed words and aliases
        operand = _Operand(("json_type(payload, ?)", [path]), ("json_extract(payload, ?)", [path]))
        return _sort_value(operand, elements, [path])
    reached, names, last = _walk(steps_of(key), _TOP)
    listed = f"json_each({_if_type('array', last)}) AS e"
    elements = f"WHEN 'array' THEN (SELECT {best}({element}) FROM {listed}) "  # noqa: S608 - only fixed words and aliases
    value, _ = _sort_value(last, elements)
    return f"({reached.replace('SELECT 1', f'SELECT {best}({value})', 1)})", names


def after_sql(order: OrderBy, after: SortPosition | None) -> tuple[str, list[object]]:
    """Whether a row of ``value`` and ``id`` is after the position in the order."""
    if after is None:
        return "1", []
    if after.value is None:
        return "value IS NULL AND id > ?", [after.id]
    value = bytes([after.value]) if isinstance(after.value, bool) else after.value
    later = "<" if order.descending else ">"
    follows = f"value IS NULL OR value {later} ? OR value = ? AND id > ?"
    return follows, [value, value, after.id]


def _sort_value(operand: _Operand, elements: str, params: Sequence[str] = ()) -> Sql:
    value, more = operand.value
    numbers = f"WHEN 'integer' THEN {value} WHEN 'real' THEN {value} "
    others = f"WHEN 'text' THEN sort_text({value}) WHEN 'true' THEN x'01' WHEN 'false' THEN x'00' "
    sql = f"CASE {operand.type[0]} {elements}{numbers}{others}END"
    return sql, [*operand.type[1], *params, *more, *more, *more]


def _in_dates(text: object, bounds: str) -> bool:
    # SQLite may call this before it tests the type.
    return isinstance(text, str) and _dates(bounds).holds(text)


@lru_cache(256)
def _dates(bounds: str) -> DateRange:
    return DateRange("", *json.loads(bounds))


def _sort_text(text: object) -> str | None:
    return sort_text(text) if isinstance(text, str) else None


def _has_words(text: object, words: str) -> bool:
    return isinstance(text, str) and has_words(text, _words(words))


@lru_cache(256)
def _words(words: str) -> frozenset[str]:
    return frozenset(json.loads(words))
