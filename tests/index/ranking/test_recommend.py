from typing import Any

import numpy as np
import pytest

from index.ann.exact import ExactIndex
from index.contract import Ids, IndexInputError, Neighbours, UnknownIdError, Vectors
from index.ranking.recommend import recommend
from tests.index.vectors import brute_force, random_vectors, rank, signs, unit

NONE = np.empty((0, 2), np.float32)


def filled(ids: Any, xb: Vectors) -> ExactIndex:
    index = ExactIndex(xb.shape[1])
    index.add(ids, xb)
    return index


def compass() -> ExactIndex:
    """East, north, west, south, north-east as ids 1 to 5."""
    return filled([1, 2, 3, 4, 5], unit([[1, 0], [0, 1], [-1, 0], [0, -1], [1, 1]]))


def best_score_reference(
    ids: Ids, xb: Vectors, positive: Vectors, negative: Vectors, k: int
) -> Neighbours:
    scores = (xb.astype(np.float64) @ positive.astype(np.float64).T).astype(np.float32).max(axis=1)
    if len(negative):
        against = (xb.astype(np.float64) @ negative.astype(np.float64).T).astype(np.float32)
        most = against.max(axis=1)
        scores = np.where(scores > most, scores, -(most * most))
    return rank(ids, scores[None], k)


def test_average_vector_by_hand() -> None:
    east, north = unit([[1, 0]]), unit([[0, 1]])
    answer = recommend(compass(), np.vstack((east, north)), NONE, "average_vector", 2, [])
    assert answer.ids.tolist() == [[5, 1]]
    np.testing.assert_allclose(answer.scores, [[1.0, np.sqrt(0.5)]], atol=1e-6)
    # 2 * east - north = (2, -1), of length sqrt(5): east scores 2/sqrt(5), south 1/sqrt(5).
    answer = recommend(compass(), east, north, "average_vector", 5, [])
    assert answer.ids.tolist() == [[1, 4, 5, 2, 3]]
    expected = np.array([[2, 1, np.sqrt(0.5), -1, -2]]) / np.sqrt(5)
    np.testing.assert_allclose(answer.scores, expected, atol=1e-6)


def test_best_score_by_hand() -> None:
    east, north = unit([[1, 0]]), unit([[0, 1]])
    # To east and to north: east 1 > 0, north 0 < 1, west -1 < 0, south 0 > -1, north-east equal.
    answer = recommend(compass(), east, north, "best_score", 5, [])
    assert answer.ids.tolist() == [[1, 3, 4, 5, 2]]
    np.testing.assert_allclose(answer.scores, [[1.0, 0.0, 0.0, -0.5, -1.0]], atol=1e-6)
    answer = recommend(compass(), np.vstack((east, -east)), NONE, "best_score", 3, [])
    assert answer.ids.tolist() == [[1, 3, 5]]
    np.testing.assert_allclose(answer.scores, [[1.0, 1.0, np.sqrt(0.5)]], atol=1e-6)


@pytest.mark.parametrize("strategy", ["average_vector", "best_score"])
def test_excluded_and_allowed(strategy: Any) -> None:
    east = unit([[1, 0]])
    answer = recommend(compass(), east, NONE, strategy, 3, [1, 77], allowed=[1, 2, 3, 88])
    assert answer.ids.tolist() == [[2, 3, -1]]
    np.testing.assert_array_equal(answer.scores, np.float32([[0.0, -1.0, -np.inf]]))
    answer = recommend(compass(), east, NONE, strategy, 2, [], allowed=[])
    assert answer.ids.tolist() == [[-1, -1]]
    assert recommend(ExactIndex(2), east, east, "best_score", 1, []).ids.tolist() == [[-1]]


@pytest.mark.parametrize("negatives", [0, 1, 4])
@pytest.mark.parametrize("k", [1, 10, 200])
@pytest.mark.parametrize("make", [signs, random_vectors])
def test_best_score_equals_brute_force(make: Any, k: int, negatives: int) -> None:
    xb = make(3000, 16, seed=0)
    ids = np.random.default_rng(1).permutation(3000)
    index = filled(ids, xb)
    for seed in range(8):
        positive = make(1 + seed % 3, 16, seed=100 + seed)
        negative = make(5, 16, seed=200 + seed)[:negatives]
        exclude = ids[seed : seed + 30]
        keep = ~np.isin(ids, exclude)
        answer = recommend(index, positive, negative, "best_score", k, exclude)
        expected = best_score_reference(ids[keep], xb[keep], positive, negative, k)
        np.testing.assert_array_equal(answer.ids, expected.ids)
        np.testing.assert_array_equal(answer.scores, expected.scores)
        allowed = ids[seed::4]
        answer = recommend(index, positive, negative, "best_score", k, exclude, allowed)
        keep &= np.isin(ids, allowed)
        expected = best_score_reference(ids[keep], xb[keep], positive, negative, k)
        np.testing.assert_array_equal(answer.ids, expected.ids)


def test_best_score_falls_back_to_everything() -> None:
    """A negative that equals the positive pushes every near vector below the far ones."""
    xb = random_vectors(20000, 4, seed=0)
    index = filled(np.arange(20000), xb)
    positive = random_vectors(1, 4, seed=1)
    answer = recommend(index, positive, positive, "best_score", 20, [])
    expected = best_score_reference(np.arange(20000), xb, positive, positive, 20)
    np.testing.assert_array_equal(answer.ids, expected.ids)
    np.testing.assert_array_equal(answer.scores, expected.scores)


def assert_best_score(xb: Vectors, positive: Vectors, negative: Vectors, k: int) -> Neighbours:
    ids = np.arange(len(xb))
    answer = recommend(filled(ids, xb), positive, negative, "best_score", k, [])
    expected = best_score_reference(ids, xb, positive, negative, k)
    np.testing.assert_array_equal(answer.ids, expected.ids)
    np.testing.assert_array_equal(answer.scores, expected.scores)
    return answer


def test_best_score_below_zero_considers_what_the_negatives_decide() -> None:
    """All are unlike the positive; the least similar score below those scored by a negative."""
    a = -0.5 - 0.001 * np.arange(70)
    candidates = np.stack((a, np.full(70, -0.8), np.sqrt(1 - a**2 - 0.64)), axis=1)
    others = np.array([[-0.6, 0.0, 0.8]] * 5)
    xb = unit(np.concatenate((candidates, others)))
    answer = assert_best_score(xb, unit([[1, 0, 0]]), unit([[0, 1, 0]]), 1)
    assert answer.ids.tolist() == [[70]]


def test_best_score_waits_for_the_nearest_positive() -> None:
    """A negative outweighs everything that the first search finds near one positive."""
    near = 0.1 + 0.001 * np.arange(70)
    behind = -0.3 - 0.001 * np.arange(30)
    second = np.linspace(0.5, 1.0, 100)
    xb = unit(
        np.concatenate(
            (
                np.stack((np.cos(near), 0 * near, np.sin(near)), axis=1),
                np.stack((np.cos(behind), 0 * behind, np.sin(behind)), axis=1),
                np.stack((0 * second, np.cos(second), -np.sin(second)), axis=1),
            )
        )
    )
    positive = unit([[1, 0, 0], [0, 1, 0]])
    negative = unit([[np.cos(0.2), 0, np.sin(0.2)]])
    answer = assert_best_score(xb, positive, negative, 10)
    assert answer.ids.tolist() == [list(range(70, 80))]


def test_many_excluded_ids() -> None:
    xb = random_vectors(20000, 4, seed=0)
    index = filled(np.arange(20000), xb)
    q = random_vectors(1, 4, seed=1)
    kept = np.arange(19000, 20000)
    expected = brute_force(kept, xb[kept], q, 10)
    for strategy in ("average_vector", "best_score"):
        answer = recommend(index, q, q[:0], strategy, 10, np.arange(19000))
        np.testing.assert_array_equal(answer.ids, expected.ids)


def test_a_vector_removed_meanwhile_is_left_out() -> None:
    class Vanishing(ExactIndex):
        def vectors(self, ids: Any) -> Vectors:
            if 1 in ids:
                raise UnknownIdError([1], "the index")
            return super().vectors(ids)

    index = Vanishing(2)
    index.add([1, 2], unit([[1, 0], [0, 1]]))
    answer = recommend(index, unit([[1, 0]]), NONE, "best_score", 2, [])
    assert answer.ids.tolist() == [[2, -1]]


@pytest.mark.parametrize(
    ("positive", "negative", "strategy", "k", "message"),
    [
        (NONE, unit([[1, 0]]), "best_score", 1, "positive has no rows; expected at least one"),
        (unit([[1, 0]]), NONE, "worst", 1, "strategy is 'worst'; expected one of .*best_score"),
        (unit([[1, 0]]), NONE, "best_score", 0, "k is 0"),
        (unit([[1, 0, 0]]), NONE, "best_score", 1, r"positive has shape \(1, 3\)"),
        (unit([[1, 0]]), unit([[1, 0, 0]]), "best_score", 1, r"negative has shape \(1, 3\)"),
        (unit([[1, 0], [-1, 0]]), NONE, "average_vector", 1, "the examples cancel out"),
    ],
)
def test_refused(positive: Any, negative: Any, strategy: Any, k: int, message: str) -> None:
    with pytest.raises(IndexInputError, match=message):
        recommend(compass(), positive, negative, strategy, k, [])
