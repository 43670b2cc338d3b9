"""Resuming a ranking after a position."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from index.ranking import resume
from index.ranking.resume import RankPosition, following, ranked
from tests.index.vectors import brute_force, filled, random_vectors, signs


@pytest.mark.parametrize("make", [signs, random_vectors])
@pytest.mark.parametrize("seen", [0, 90, 10**6, -5])
def test_as_brute_force(make: Any, seen: int) -> None:
    xb, query = make(800, 16, 0), make(1, 16, 1)
    ids = np.arange(800)
    whole = brute_force(ids, xb, query, 800)
    search = partial(filled(ids, xb).search, query)
    for last in (0, 89, 790, 799):
        position = RankPosition(float(whole.scores[0, last]), int(whole.ids[0, last]))
        scores, found = following(search, 15, ids, position, seen)
        np.testing.assert_array_equal(found, whole.ids[0, last + 1 : last + 16])
        np.testing.assert_array_equal(scores, whole.scores[0, last + 1 : last + 16])


def test_deeper_than_an_index_answers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "MAX_K", 64)
    xb, query = signs(500, 16, 0), signs(1, 16, 1)
    ids = np.arange(500)
    whole = brute_force(ids, xb, query, 500)
    index = filled(ids, xb)

    def search(k: int, allowed: Any) -> Any:
        assert k <= 64
        return index.search(query, k, allowed)

    for last in (70, 333, 495):
        position = RankPosition(float(whole.scores[0, last]), int(whole.ids[0, last]))
        found = following(search, 10, ids, position, last + 1)[1]
        np.testing.assert_array_equal(found, whole.ids[0, last + 1 : last + 11])


def test_the_position_itself_may_have_been_deleted() -> None:
    xb, query = random_vectors(50, 8, 0), random_vectors(1, 8, 1)
    ids = np.arange(50)
    whole = brute_force(ids, xb, query, 50)
    position = RankPosition(float(whole.scores[0, 9]), int(whole.ids[0, 9]))
    left = np.setdiff1d(ids, whole.ids[0, 5:10])
    found = following(partial(filled(left, xb[left]).search, query), 10, left, position, 10)[1]
    np.testing.assert_array_equal(found, whole.ids[0, 10:20])


def test_only_what_is_allowed() -> None:
    xb, query = random_vectors(50, 8, 0), random_vectors(1, 8, 1)
    search = partial(filled(np.arange(50), xb).search, query)
    even = np.arange(0, 50, 2)
    whole = ranked(search, 50, even)
    assert len(whole[1]) == 25
    position = RankPosition(float(whole[0][4]), int(whole[1][4]))
    np.testing.assert_array_equal(following(search, 50, even, position, 5)[1], whole[1][5:])
