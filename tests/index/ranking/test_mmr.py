"""Maximal marginal relevance: by hand, and against the formula written out."""

import numpy as np
import pytest

from index.contract import IndexInputError
from index.ranking.mmr import mmr
from tests.index.vectors import random_vectors, unit


def brute_force(scores: np.ndarray, xb: np.ndarray, diversity: float, k: int) -> list[int]:
    chosen = [int(np.argmax(scores))]
    while len(chosen) < min(k, len(scores)):
        gains = {}
        for i in range(len(scores)):
            if i not in chosen:
                nearest = max(float(xb[i].astype(float) @ xb[j].astype(float)) for j in chosen)
                gains[i] = (1 - diversity) * float(scores[i]) - diversity * nearest
        chosen.append(max(gains, key=lambda i: (round(gains[i], 12), -i)))
    return chosen


def test_by_hand() -> None:
    # To the query (1, 0): 0.8, 0.8 (the same vector), 0.6. After the first, at diversity 0.5:
    # the copy gains 0.4 - 0.5 = -0.1, the other 0.3 - 0.5 * (0.8 * 0.6 - 0.6 * 0.8) = 0.3.
    xb = unit([[0.8, 0.6], [0.8, 0.6], [0.6, -0.8]])
    scores = np.float32([0.8, 0.8, 0.6])
    assert mmr(scores, xb, 0.5, 3).tolist() == [0, 2, 1]
    # At 0.1: the copy gains 0.72 - 0.1 = 0.62, the other 0.54.
    assert mmr(scores, xb, 0.1, 3).tolist() == [0, 1, 2]
    # Equal at 1/6: 5/6 * 0.8 - 1/6 = 0.5 = 5/6 * 0.6; just above it the other is better.
    assert mmr(scores, xb, 0.1667, 2).tolist() == [0, 2]
    assert mmr(scores, xb, 0.1666, 2).tolist() == [0, 1]


@pytest.mark.parametrize("diversity", [0.0, 0.3, 0.7, 1.0])
def test_as_the_formula(diversity: float) -> None:
    for seed in range(5):
        xb = random_vectors(60, 8, seed)
        scores = xb @ random_vectors(1, 8, 100 + seed)[0]
        order = np.argsort(-scores)
        xb, scores = xb[order], scores[order]
        answer = mmr(scores, xb, diversity, 25)
        assert answer.dtype == np.int64
        assert answer.tolist() == brute_force(scores, xb, diversity, 25)


def test_without_diversity_the_ranking_stays_and_a_shorter_answer_is_a_prefix() -> None:
    xb = random_vectors(40, 8, 0)
    scores = np.sort(random_vectors(1, 40, 1)[0])[::-1]
    assert mmr(scores, xb, 0.0, 40).tolist() == list(range(40))
    whole = mmr(scores, xb, 0.6, 99).tolist()
    assert sorted(whole) == list(range(40))
    assert mmr(scores, xb, 0.6, 7).tolist() == whole[:7]


def test_nothing_to_choose_from() -> None:
    assert mmr(np.empty(0, np.float32), np.empty((0, 4), np.float32), 0.5, 3).tolist() == []


def test_wrong_values() -> None:
    xb = random_vectors(2, 4, 0)
    for diversity in (-0.1, 1.1, float("nan")):
        with pytest.raises(IndexInputError, match="expected 0 to 1"):
            mmr(np.ones(2, np.float32), xb, diversity, 1)
    with pytest.raises(IndexInputError, match="3 scores for 2 vectors"):
        mmr(np.ones(3, np.float32), xb, 0.5, 1)
