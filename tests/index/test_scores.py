"""No score exceeds 1, whichever index it comes from, and a copy has exactly 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from index.ann.overlay import Overlay
from index.ann.quick_lists import QuickLists
from index.contract import Searchable
from index.ranking.recommend import recommend
from tests.index.vectors import built, filled, random_vectors

N, D = 4000, 48
XB = random_vectors(N, D, seed=5)
IDS = np.arange(N)


def overlay() -> Searchable:
    half = N // 2
    changed = Overlay.over(filled(IDS[:half], XB[:half]))
    return changed.changed(IDS[half:], XB[half:], np.empty(0, np.int64))


INDEXES = {
    "exact": lambda: filled(IDS, XB),
    "overlay": overlay,
    **{kind: lambda kind=kind: built(IDS, XB, D, kind) for kind in ("ivf", "hnsw", "rabitq")},
}


@pytest.mark.parametrize("kind", INDEXES)
def test_scores_of_copies(kind: str) -> None:
    index: Any = INDEXES[kind]()
    for queries in (1, 3, 64):  # each of which is scanned in its own way
        for start in range(0, 256, queries):
            xq = XB[start : start + queries]
            for allowed in (None, IDS[: N // 2], IDS[:300]):
                scores, ids = index.search(xq, 5, allowed)
                assert scores.max() <= 1
                assert scores.min() >= -1
                assert (ids[:, 0] == np.arange(start, start + len(xq))).all(), kind
                assert (scores[:, 0] == 1).all()


def test_scores_of_quick_lists_and_recommendations() -> None:
    index = filled(IDS, XB)
    scores, _ = QuickLists(index).nearest(XB[:500], 3)
    assert scores.max() <= 1
    for strategy in ("average_vector", "best_score"):
        for row in range(200):
            scores, ids = recommend(index, XB[row : row + 1], XB[:0], strategy, 3, [])
            assert (scores[0, 0], ids[0, 0]) == (1, row)
