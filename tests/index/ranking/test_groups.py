"""Groups by a field: by hand, and against brute force."""

from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest

from index.ann.exact import ExactIndex
from index.contract import Members
from index.ranking.groups import heads, members, nearest_of, order_of
from index.ranking.resume import RankPosition, Search
from index.records import Scalar
from tests.index.vectors import filled, random_vectors, signs, unit


def searching(index: ExactIndex, query: np.ndarray) -> Search:
    return partial(index.search, query[None])


def payloads(values: dict[int, Any]) -> Members:
    return members({i: {"payload": {"f": value}} for i, value in values.items()}, "f")


def test_members_by_hand() -> None:
    of = payloads({1: "b", 2: ["a", "b", "a"], 3: None, 4: {"x": 1}, 5: 1, 6: True, 7: 1.0, 8: []})
    assert of.values == (True, 1, "a", "b")
    assert [of.of(code).tolist() for code in range(4)] == [[6], [5, 7], [2], [1, 2]]
    columns = members({1: {"label": "x"}, 2: {"label": None}}, "label")
    assert (columns.values, columns.ids.tolist()) == (("x",), [1])
    nested = members({9: {"payload": {"a": {"b": "deep"}}}}, "a.b")
    assert nested.values == ("deep",)
    listed = members({9: {"payload": {"a": [{"b": "y"}, {"b": ["x", "y"]}]}}}, "a[].b")
    assert (listed.values, listed.ids.tolist()) == (("x", "y"), [9, 9])
    assert payloads({}).values == ()


def test_groups_by_hand() -> None:
    # Similarities to east: 1 is 1, 2 is 0.8, 3 is 0.6, 4 is 0, 5 is -1.
    index = filled([1, 2, 3, 4, 5], unit([[1, 0], [4, 3], [3, 4], [0, 1], [-1, 0]]))
    search = searching(index, unit([[1, 0]])[0])
    of = payloads({1: "a", 2: "a", 3: ["b", "c"], 4: "b", 77: "gone"})
    found = list(heads(search, of, 2))
    assert [(of.values[h.code], h.position.id) for h in found] == [("a", 1), ("b", 3), ("c", 3)]
    assert found[1].position == RankPosition(pytest.approx(0.6), 3)
    scores, ids = nearest_of(search, of, found[1].code, 5)
    assert ids.tolist() == [3, 4]
    np.testing.assert_allclose(scores, [0.6, 0.0], atol=1e-6)
    rest = heads(search, of, 2, without=["a", "never seen"])
    assert [of.values[h.code] for h in rest] == ["b", "c"]


def reference(
    ids: np.ndarray, scores: np.ndarray, values: dict[int, list[Scalar]]
) -> list[tuple[Scalar, list[int]]]:
    """Every group with all of its ids, by its best (score, id), then by value."""
    groups: dict[Scalar, list[tuple[float, int]]] = {}
    for i, score in zip(ids.tolist(), scores.tolist(), strict=True):
        for value in values.get(i, []):
            groups.setdefault(value, []).append((-score, i))
    ranked = sorted((min(of), order_of(value), value) for value, of in groups.items())
    return [(value, [i for _, i in sorted(groups[value])]) for _, _, value in ranked]


@pytest.mark.parametrize("make", [signs, random_vectors])
@pytest.mark.parametrize("number", [3, 40, 700])
def test_as_brute_force(make: Any, number: int) -> None:
    xb = make(2000, 16, 0)
    ids = np.random.default_rng(1).permutation(3000)[:2000]
    index = filled(ids, xb)
    rng = np.random.default_rng(number)
    values: dict[int, list[Scalar]] = {
        int(i): [f"v{v}" for v in sorted(set(rng.integers(0, number, rng.integers(0, 3)).tolist()))]
        for i in ids
    }
    of = payloads(values)
    for seed in range(3):
        query = make(1, 16, 100 + seed)[0]
        scores = (xb.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        expected = reference(ids, scores, values)
        search = searching(index, query)
        found = list(heads(search, of, 5))
        assert [of.values[h.code] for h in found] == [value for value, _ in expected]
        assert [h.position.id for h in found] == [group[0] for _, group in expected]
        for head, (_, group) in islice(zip(found, expected, strict=True), 20):
            assert nearest_of(search, of, head.code, 4)[1].tolist() == group[:4]
