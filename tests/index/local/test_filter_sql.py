"""Filters as SQL match the same entries as in Python."""

import json
import sqlite3
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.conditions import Filter
from index.filters import parse_filter
from index.local.filter_sql import define, where_sql
from tests.index.test_filters import (
    ENTRIES,
    FILTERS,
    MEANINGS,
    ODD,
    ODD_MEANINGS,
    RECORDS,
    SCALARS,
    match,
    nested,
)


def by_sql(where: Filter, entries: list[dict[str, Any]]) -> list[int]:
    connection = sqlite3.connect(":memory:")
    define(connection)
    try:
        connection.execute(
            "CREATE TABLE images (id INTEGER PRIMARY KEY, source, split, label, payload)"
        )
        connection.executemany(
            "INSERT INTO images VALUES (:id, :source, :split, :label, :payload)",
            [{**e, "payload": json.dumps(e["payload"], ensure_ascii=False)} for e in entries],
        )
        condition, params = where_sql(where)
        rows = connection.execute(
            f"SELECT id, {condition} FROM images ORDER BY id", params
        ).fetchall()
    finally:
        connection.close()
    assert all(value in (0, 1) for _, value in rows)
    return [entry_id for entry_id, value in rows if value]


@pytest.mark.parametrize(("obj", "expected"), MEANINGS)
def test_meaning(obj: dict[str, Any], expected: list[int]) -> None:
    assert by_sql(parse_filter(obj), ENTRIES) == expected


@pytest.mark.parametrize(("obj", "expected"), ODD_MEANINGS)
def test_meaning_of_odd_values(obj: dict[str, Any], expected: list[int]) -> None:
    assert by_sql(parse_filter(obj), ODD) == expected


def test_values_and_keys_are_bound() -> None:
    hostile = "x' OR 1=1; --"
    condition, params = where_sql(
        parse_filter({"must": [match(hostile, hostile), match("label", hostile)]})
    )
    assert hostile not in condition
    assert hostile not in params  # but as part of a path and of lists
    assert sum(hostile in param for param in params) == len(params) == 7


def test_the_largest_filters_run() -> None:
    wide = {"must": [match("a.b.c.d.e.f.g.h", i) for i in range(256)]}
    assert by_sql(parse_filter(wide), ENTRIES) == []
    assert by_sql(parse_filter({"must_not": wide["must"]}), ENTRIES) == list(range(1, 11))
    assert by_sql(parse_filter(nested(5)), ENTRIES) == []
    many = {"key": "n", "match": {"any": list(range(16384))}}
    assert by_sql(parse_filter({"must": [many]}), ENTRIES) == [1, 4]
    deep = "a[].b[].c[].d[].e[].f[].g[].h[]"
    for conditions in (
        [{"key": f"a{i}", "match": {"text": f"é{i}"}} for i in range(256)],
        [{"key": f"a{i}", "range": {"gte": f"20{i % 100:02}-01-01"}} for i in range(256)],
        [{"key": deep, "match": {"except": [i, "x", True]}} for i in range(256)],
        [{"key": deep, "values_count": {"gt": i}} for i in range(256)],
        [{"nested": {"key": deep, "filter": {"must": [match(f"a{i}", 1)]}}} for i in range(128)],
    ):
        for clause in ("must", "should"):
            assert by_sql(parse_filter({clause: conditions}), ODD) == []
    inner: dict[str, Any] = {"must": [match("a", 1)]}
    for _ in range(4):
        inner = {"must": [{"nested": {"key": deep, "filter": inner}}]}
    assert by_sql(parse_filter(inner), ODD) == []


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(FILTERS, st.lists(RECORDS, min_size=1, max_size=6))
def test_sql_and_python_agree(obj: dict[str, Any], records: list[dict[str, Any]]) -> None:
    entries = [{**record, "id": i} for i, record in enumerate(records)]
    where = parse_filter(obj)
    expected = [entry["id"] for entry in entries if where.matches(entry)]
    assert by_sql(where, entries) == expected


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_sql_and_python_agree_on_what_is_stored(data: st.DataObject) -> None:
    """Conditions drawn from the entry's own values, so that they often match."""
    value = data.draw(SCALARS)
    near = data.draw(
        st.sampled_from([value, str(value), bool(value), [value], {"a": value}, [[value]]])
    )
    entries = [{"id": 0, "source": "s", "split": None, "label": None, "payload": {"a": near}}]
    conditions = [match("a", value), match("a.a", value), match("a[]", value)]
    conditions += [{"key": "a", "match": {"except": [value]}}]
    if not isinstance(value, bool | str):
        conditions += [{"key": "a", "range": {word: value}} for word in ("gt", "gte", "lt", "lte")]
    for condition in conditions:
        where = parse_filter({"must": [condition]})
        assert by_sql(where, entries) == [0] * where.matches(entries[0])
