"""Quick inverted lists: their recall, and padding."""

from __future__ import annotations

import numpy as np

from index.ann.exact import ExactIndex
from index.ann.quick_lists import QuickLists
from index.contract import IdsLike, Vectors


def clustered(n: int, seed: int) -> Vectors:
    """``n`` unit vectors of 32 dimensions around 40 centres."""
    centres = np.random.default_rng(0).standard_normal((40, 32))
    rng = np.random.default_rng(seed)
    x = centres[rng.integers(0, 40, n)] + 0.3 * rng.standard_normal((n, 32))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def stored(ids: IdsLike, xb: Vectors) -> ExactIndex:
    index = ExactIndex(xb.shape[1])
    index.add(ids, xb)
    return index


def test_most_of_the_nearest_are_found() -> None:
    index = stored(np.arange(10_000) * 3 + 7, clustered(10_000, 1))
    queries = clustered(200, 2)
    found = QuickLists(index).nearest(queries, 10).ids
    truth = index.search(queries, 10).ids
    assert found.shape == (200, 10) and found.dtype == np.int64
    recall = np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)])
    assert recall > 0.95
    assert (found[:, 0] == truth[:, 0]).mean() > 0.9


def test_what_is_added_later_is_not_found() -> None:
    xb = clustered(300, 3)
    index = stored(range(200), xb[:200])
    lists = QuickLists(index)
    index.add(range(200, 300), xb[200:])
    assert lists.nearest(xb, 5).ids.max() < 200


def test_missing_neighbours_are_minus_one() -> None:
    lists = QuickLists(stored([4, 9], np.eye(2, dtype=np.float32)))
    found = lists.nearest(np.float32([[0.8, 0.6]]), 4)
    assert found.ids.tolist() == [[4, 9, -1, -1]]
    assert found.scores.tolist() == [[np.float32(0.8), np.float32(0.6), -np.inf, -np.inf]]
