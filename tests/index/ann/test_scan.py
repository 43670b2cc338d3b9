"""The exact ranking of candidates."""

import numpy as np
import pytest

from index.ann.scan import _largest, best_of
from index.contract import Vectors
from index.vectors import cosine
from tests.index.vectors import assert_same, brute_force, random_vectors, signs

N, D = 900, 16


@pytest.mark.parametrize("xb", [random_vectors(N, D, seed=0), signs(N, D, seed=0)])
@pytest.mark.parametrize("k", [1, 10, 40])
@pytest.mark.parametrize("many", [5, 30, 60, 400])
def test_candidates_are_ranked_as_brute_force_does(xb: Vectors, k: int, many: int) -> None:
    """With and without ties, whether many candidates are dropped beforehand or none."""
    rng = np.random.default_rng(many)
    xq = random_vectors(20, D, seed=1)
    xq[7] = xb[7]
    ids = np.sort(rng.permutation(10**6)[:N])
    rows = np.stack([rng.permutation(N)[:many] for _ in range(20)])
    rows[3, many // 2 :] = -1
    rows[4] = -1
    found = best_of(ids, xb, xq, k, rows)
    for i in range(20):
        valid = np.sort(rows[i][rows[i] >= 0])
        expected = brute_force(ids[valid], xb[valid], xq[i : i + 1], k)
        np.testing.assert_array_equal(found.ids[i : i + 1], expected.ids)
        # A matrix product may differ in the last bit from the sum of `cosine`.
        np.testing.assert_allclose(found.scores[i : i + 1], expected.scores, rtol=3e-7)
    for i in range(20):
        alone = best_of(ids, xb, xq[i : i + 1], k, rows[i : i + 1])
        assert_same(alone, type(found)(found.scores[i : i + 1], found.ids[i : i + 1]))


@pytest.mark.parametrize("d", [1, 3, 67, 266])
def test_a_query_alone_scores_as_cosine_does(d: int) -> None:
    """Bit for bit, however many candidates there are and whether some are dropped beforehand."""
    xb, xq = random_vectors(N, d, seed=2), random_vectors(5, d, seed=3)
    for q in (*xq, xb[11]):
        for rows in (np.arange(7, 12), np.arange(200)[::-1]):
            scores, ids = best_of(np.arange(N), xb, q[None], 10, rows[None])
            kept = ids[0] >= 0
            assert kept.sum() == min(10, len(rows))
            np.testing.assert_array_equal(scores[0, kept], cosine(xb[ids[0, kept]], q))


def test_no_candidates_and_no_queries() -> None:
    xb = random_vectors(5, D, seed=0)
    assert best_of(np.arange(5), xb, xb[:0], 3, np.empty((0, 4), np.int64)).ids.shape == (0, 3)
    none = best_of(np.arange(5), xb, xb[:2], 3, np.empty((2, 0), np.int64))
    assert none.ids.tolist() == [[-1] * 3] * 2


@pytest.mark.parametrize(("n", "k"), [(5, 9), (300, 7), (64 * 40, 7), (64 * 40 + 13, 9)])
def test_the_largest_products(n: int, k: int) -> None:
    products = np.random.default_rng(n).normal(size=(5, n)).astype(np.float32)
    products[1] = 0.5  # all equal
    values, columns = _largest(products, k)
    np.testing.assert_array_equal(np.take_along_axis(products, columns, 1), values)
    assert all(len(set(row)) == min(n, k) for row in columns.tolist())
    np.testing.assert_array_equal(np.sort(values), np.sort(products)[:, -k:])
