"""What a picture is sorted by, in Python and in SQLite."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.filters import parse_filter
from index.local.catalogue import SqliteCatalogue
from index.milvus.rows import as_mapping
from index.records import Entry, Record
from index.sorting import OrderBy, SortPosition, first_of, sort_text, sort_value
from tests.index.test_filters import KEYS, RECORDS
from tests.index.vectors import random_vectors

ORDERED: list[Any] = [
    {"a": -5},
    {"a": 2**53},
    {"a": 2**53 + 1},
    {"a": "2024-06-01T01:00:00+02:00"},
    {"a": "2024-05-31T23:30:00Z"},
    {"a": "2024-06-01"},
    {"a": ""},
    {"a": "Apple"},
    {"a": "apple pie"},
    {"a": "Zoë"},
    {"a": "ZOE\u0308 2"},
    {"a": "éclair"},
    {"a": False},
    {"a": True},
]
MISSING: list[Any] = [{}, {"a": None}, {"a": []}, {"a": {"b": 1}}, {"a": [[1]]}]


def entries_of(payloads: list[Any]) -> list[Entry]:
    return [Entry(f"{i}.png", payload=p, id=i) for i, p in enumerate(payloads, 1)]


def by_python(
    entries: list[Entry], order: OrderBy, limit: int, after: SortPosition | None = None
) -> list[int]:
    valued = [(sort_value(as_mapping(entry), order), entry) for entry in entries]
    return [one.entry.id for one in first_of(valued, order, limit, after)]


@pytest.mark.parametrize("descending", [False, True])
def test_order(descending: bool) -> None:
    entries = entries_of(ORDERED + MISSING)
    order = list(range(1, len(ORDERED) + 1))
    if descending:
        order.reverse()
    last = list(range(len(ORDERED) + 1, len(entries) + 1))  # missing ones, by id
    assert by_python(entries[::-1], OrderBy("a", descending), 99) == order + last


def test_ties_lists_and_columns() -> None:
    payloads = [{"a": [3, 7]}, {"a": 5}, {"a": "x"}, {"a": 5.0}, {"a": ["X", 9]}]
    entries = entries_of(payloads)
    assert by_python(entries, OrderBy("a"), 9) == [1, 2, 4, 5, 3]
    assert by_python(entries, OrderBy("a", True), 9) == [3, 5, 1, 2, 4]
    assert by_python(entries, OrderBy("id", True), 2) == [5, 4]
    assert by_python(entries, OrderBy("source", True), 2, SortPosition("13.png", 3)) == [2, 1]


def test_only_the_start_of_a_text_counts() -> None:
    assert sort_text("A" * 300) == sort_text("a" * 256) == "1" + "a" * 256
    assert sort_text("2024-05-31") < sort_text("2024-05-31T00:00:00.1Z") < sort_text("0")


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteCatalogue]:
    with closing(SqliteCatalogue(Path(tmp_path_factory.mktemp("sorting")) / "c.sqlite")) as opened:
        yield opened


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(RECORDS, min_size=1, max_size=8),
    st.one_of(KEYS, st.just("a"), st.just("id")),
    st.booleans(),
    st.integers(1, 3),
)
def test_pages_in_sqlite_are_those_in_python(
    catalogue: SqliteCatalogue, drawn: list[Any], key: str, descending: bool, size: int
) -> None:
    catalogue.delete(catalogue.ids())
    records = [
        Record(f"{i}:{r['source']}", r["split"], r["label"], r["payload"])
        for i, r in enumerate(drawn)
    ]
    ids = catalogue.upsert(records, random_vectors(len(records), 2, seed=1), "m")
    order = OrderBy(key, descending)
    found: list[int] = []
    after = None
    while page := catalogue.sorted_page(order, size, None, after):
        assert len(page) <= size
        found += [one.entry.id for one in page]
        after = page[-1].position
    assert found == by_python(catalogue.get(ids), order, 99)


def test_changes_between_pages_repeat_and_lose_nothing_else(catalogue: SqliteCatalogue) -> None:
    catalogue.delete(catalogue.ids())
    records = [Record(f"{i}", payload={"n": i % 4} if i % 5 else {}) for i in range(20)]
    xb = random_vectors(20, 2, seed=1)
    ids = catalogue.upsert(records, xb, "m")
    order = OrderBy("n", True)
    whole = [one.entry.id for one in catalogue.sorted_page(order, 99)]
    first = catalogue.sorted_page(order, 7)
    # The last one of the page is deleted, some are added before and after it.
    catalogue.delete([first[-1].entry.id])
    new = catalogue.upsert(
        [Record("x", payload={"n": 9}), Record("y", payload={"n": 0})], xb[:2], "m"
    )
    rest = catalogue.sorted_page(order, 99, None, first[-1].position)
    assert [one.entry.id for one in first] == whole[:7]
    assert [one.entry.id for one in rest if one.entry.id != new[1]] == whole[7:]
    assert new[1] in [one.entry.id for one in rest]
    where = parse_filter({"must": [{"key": "n", "match": {"value": 3}}]})
    assert {one.entry.id for one in catalogue.sorted_page(order, 99, where)} < set(ids)
