"""Random filters in each engine, against matching each entry in Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.filters import parse_filter
from index.milvus.copying import with_vector
from index.milvus.expressions import UNKNOWN, expression
from index.milvus.rows import MARKED, as_mapping, mark, row
from index.records import Entry, Record
from tests.index.milvus.conftest import Opener
from tests.index.milvus.test_contract import published
from tests.index.test_filters import FILTERS, ODD, ODD_MEANINGS, RECORDS
from tests.index.vectors import assert_same, brute_force, random_vectors

ROWS = 150
XB = random_vectors(ROWS, 8, seed=4)
XQ = random_vectors(2, 8, seed=5)
EDGES: list[dict[str, Any]] = [
    {"a": [1, 10]},
    {"a": 2**53 + 1},
    {"a": float(2**53)},
    {"a": -(2**63)},
    {"a": 1.7976931348623157e308},
    {"a": 5e-324},
    {"a": -0.0},
    {"a": {"b": [1, "1", True, None, [2]]}},
    {"a.b": 1, "": 2},
    {"label": {"a": 1}, "split": "x", "source": ["y"]},
    {'q"': {"c d": "é\u0001\\"}},
]


@pytest.fixture(scope="module")
def filled(open_shared: Opener) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """A store with random pictures, their ids and their vectors."""
    store = open_shared()
    drawn: list[dict[str, Any]] = []

    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @given(st.lists(RECORDS, min_size=3, max_size=6))
    def draw(records: list[dict[str, Any]]) -> None:
        drawn.extend(records)

    draw()
    drawn = drawn[-(ROWS - len(EDGES) - len(ODD)) :]
    drawn += [{"split": None, "label": "é", "payload": payload} for payload in EDGES] + ODD
    records = [
        Record(f"{i}:{r.get('source', '')}", r["split"], r["label"], r["payload"])
        for i, r in enumerate(drawn)
    ]
    half = len(records[::2])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("index.milvus.rows._CAPACITY", 0)  # rows as earlier versions wrote them
        stored = store.catalogue.upsert(records[::2], XB[:half], "m")
    stored += store.catalogue.upsert(records[1::2], XB[half : len(records)], "m")
    ids = np.array(stored)
    published(store, "m", 8)
    yield store, ids, XB[: len(records)]
    store.close()


def check(filled: tuple[Any, np.ndarray, np.ndarray], obj: dict[str, Any]) -> None:
    store, ids, xb = filled
    where = parse_filter(obj)
    catalogue = store.catalogue
    entries = catalogue.get(ids)
    inside = np.array([where.matches(as_mapping(entry)) for entry in entries], bool)
    state = store.served.current()
    answer = state.index.search(XQ, 20, catalogue.matching(where))
    assert_same(answer, brute_force(ids[inside], xb[inside], XQ, 20))
    assert sorted(catalogue.ids(where).tolist()) == sorted(ids[inside].tolist())


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(obj=FILTERS)
def test_random_filters(filled: tuple[Any, np.ndarray, np.ndarray], obj: dict[str, Any]) -> None:
    check(filled, obj)


@pytest.mark.parametrize(
    "conditions",
    [
        [{"key": "a", "range": {"gt": 4, "lt": 6}}, {"key": "a", "range": {"gte": 10}}],
        [{"key": "a", "range": {"gt": 2**53}}, {"key": "a", "match": {"value": 2**53 + 1}}],
        [{"key": "a", "range": {"lte": -(2**63)}}, {"key": "a", "match": {"value": 2**53}}],
        [{"key": "a", "range": {"gt": 1e308}}, {"key": "a", "range": {"gt": 0, "lt": 1e-300}}],
        [{"key": "a.b", "match": {"any": [True, "1"]}}, {"key": "a.b", "match": {"value": 2}}],
        [{"key": "label.a", "match": {"value": 1}}, {"key": "split", "match": {"value": "x"}}],
        [{"key": 'q".c d', "match": {"value": "é\u0001\\"}}, {"has_id": [-1, 5, 2**63 - 1]}],
    ],
)
def test_edges(filled: tuple[Any, np.ndarray, np.ndarray], conditions: list[Any]) -> None:
    """The conditions as ``should`` and as ``must_not``."""
    check(filled, {"should": conditions})
    check(filled, {"must_not": conditions})


def test_what_is_missing_dates_words_and_objects_in_lists(
    filled: tuple[Any, np.ndarray, np.ndarray],
) -> None:
    for obj, _ in ODD_MEANINGS[::5]:
        check(filled, obj)


def test_rows_of_earlier_versions_get_their_marks_when_they_are_copied() -> None:
    entry = Entry("a", None, None, {"n": None, "t": ["2024-05-31", 3], "e": []}, id=5)
    vector = np.array([1, 0], np.float32)
    now = row(entry, vector, 1, 1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("index.milvus.rows._CAPACITY", 0)
        before = row(entry, vector, 1, 1)
    assert MARKED not in before["facts"]
    marks = {MARKED, mark("n", "null"), mark("t", "filled"), mark("t", "dates")}
    marks |= {mark(name, "null") for name in ("label", "split")} | {mark("source", "filled")}
    assert set(now["facts"]) - set(before["facts"]) == marks
    assert with_vector(before, vector, embedded=True)["facts"] == now["facts"]
    assert len(now["low"]) == 2


def test_expressions_on_marks_leave_few_rows() -> None:
    """What is missing is certain without reading the entries, but for rows of earlier versions."""
    unlabelled = expression(parse_filter({"must": [{"is_null": {"key": "label"}}]}))
    assert unlabelled.narrow == f'array_contains(facts, "{mark("label", "null")}")'
    assert unlabelled.wide == f'({unlabelled.narrow}) or not (array_contains(facts, "{MARKED}"))'
    dated = expression(parse_filter({"must": [{"key": "t", "range": {"lt": "2024-05-31"}}]}))
    assert f'low["{mark("t", "dates")}"] <= ' in dated.wide
    assert expression(parse_filter({"must": [{"is_null": {"key": "a[].b"}}]})) == UNKNOWN


def test_expressions_that_need_no_further_filtering() -> None:
    exact = expression(parse_filter({"must_not": [{"key": "a", "match": {"any": [1, "x"]}}]}))
    assert exact.exact
    assert exact.wide.startswith("not (array_contains_any(facts, [")
    ranged = expression(parse_filter({"must": [{"key": "a", "range": {"gt": 1}}]}))
    assert not ranged.exact
    assert " and (high[" in ranged.wide
    assert " and (low[" in ranged.narrow
    # An expression contains no key and no value verbatim.
    hostile = '" or id > 0 or "'
    said = expression(parse_filter({"must": [{"key": hostile, "match": {"value": hostile}}]}))
    assert hostile not in said.wide
    assert len(said.wide) == len('array_contains(facts, "")') + 24
