"""Search results against brute force: filters, and FAISS against NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.filters import parse_filter
from index.local.caches import EntryCache
from index.local.catalogue import SqliteCatalogue
from index.local.serving import LocalServedIndex
from index.records import Record
from tests.index.vectors import assert_same, brute_force, filled, random_vectors
from tests.torture.index.conftest import COUNTS
from tests.torture.index.worker import DIMENSION, MODEL, build

COUNT = 300
XB = random_vectors(COUNT + 60, DIMENSION, seed=0)
XQ = random_vectors(3, DIMENSION, seed=1)


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[SqliteCatalogue, LocalServedIndex[str]]]:
    """A generation, and pictures added, changed and deleted since."""
    root = tmp_path_factory.mktemp("store")
    with SqliteCatalogue(root / "catalogue.sqlite") as catalogue:
        catalogue.upsert([record(i) for i in range(COUNT)], XB[:COUNT], MODEL)
        build(root, catalogue)
        catalogue.upsert([record(i) for i in range(COUNT - 30, COUNT + 30)], XB[-60:], MODEL)
        catalogue.delete(list(range(1, COUNT, 7)))
        catalogue.update([2, 3, 4], label="changed", payload={"price": 4.5}, by_hand=True)
        served = LocalServedIndex(
            root, catalogue, lambda digest: digest, EntryCache(catalogue, 100)
        )
        served.load(MODEL)
        yield catalogue, served


def record(i: int) -> Record:
    payload: dict[str, Any] = {"price": i % 20, "tags": ["abc"[i % 3], "xyz"[i % 2]]}
    if i % 4:
        payload["meta"] = {"ok": i % 3 == 0, "note": f"n{i % 5}"}
    return Record(
        f"s/{i}", ("train", "test", None)[i % 3], ("cat", "dog", None)[i % 5 % 3], payload
    )


scalars = st.one_of(
    st.sampled_from(["cat", "dog", "changed", "train", "a", "x", "n1", "s/7"]),
    st.integers(-1, 21),
    st.booleans(),
    st.floats(0, 20, allow_nan=False),
)
keys = st.sampled_from(
    ["label", "split", "source", "price", "tags", "meta.ok", "meta.note", "none", "meta"]
)
matches = st.one_of(
    st.builds(lambda v: {"value": v}, scalars),
    st.builds(lambda v: {"any": v}, st.lists(scalars, min_size=1, max_size=4)),
)
ranges = st.dictionaries(
    st.sampled_from(["gt", "gte", "lt", "lte"]), st.integers(-2, 22), min_size=1
)
leaves = st.one_of(
    st.builds(lambda key, match: {"key": key, "match": match}, keys, matches),
    st.builds(lambda key, bounds: {"key": key, "range": bounds}, keys, ranges),
    st.builds(lambda ids: {"has_id": ids}, st.lists(st.integers(0, 400), min_size=1, max_size=50)),
)


def clauses(conditions: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(
        st.sampled_from(["must", "should", "must_not"]),
        st.lists(conditions, min_size=1, max_size=3),
        min_size=1,
    )


filters = clauses(st.recursive(leaves, clauses, max_leaves=4))


@settings(
    max_examples=COUNTS.filters,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(filters, st.sampled_from([1, 10, 400]))
def test_filters(
    store: tuple[SqliteCatalogue, LocalServedIndex[str]], obj: dict[str, Any], k: int
) -> None:
    catalogue, served = store
    where = parse_filter(obj)
    index = served.current().index
    entries = catalogue.get(catalogue.ids())
    expected = np.array([e.id for e in entries if where.matches(asdict(e))], np.int64)
    xb = index.vectors(expected)
    answer = index.search(XQ, k, catalogue.ids(where))
    assert_same(answer, brute_force(expected, xb, XQ, k))


def test_faiss_against_numpy(counted: Callable[[str, str], None], tmp_path: Path) -> None:
    xb, xq = random_vectors(5000, 64, seed=2), random_vectors(COUNTS.queries, 64, seed=3)
    ids = np.random.default_rng(4).permutation(10**6)[:5000]
    index = filled(ids, xb)
    for start in range(0, len(xq), 50):
        part = xq[start : start + 50]
        assert_same(index.search(part, 20), brute_force(ids, xb, part, 20))
    counted(f"FAISS exact against NumPy, {COUNTS.queries} queries", "equal, ids and scores")
    counted(f"{COUNTS.filters} random filters against brute force", "equal, ids and scores")
