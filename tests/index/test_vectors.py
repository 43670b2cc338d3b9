from typing import Any

import numpy as np
import pytest

from index.contract import MAX_K, IndexInputError
from index.vectors import as_ids, as_vectors, check_k, cosine
from tests.index.vectors import random_vectors, unit


def test_cosine_by_hand() -> None:
    xb = unit([[3, 4], [1, 0], [0, -1]])
    scores = cosine(xb, unit([[1, 0]])[0])
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, np.float32([0.6, 1.0, 0.0]))


def test_cosine_is_the_same_for_a_row_wherever_it_stands() -> None:
    xb = random_vectors(9000, 67, seed=0)
    q = xb[1]
    scores = cosine(xb, q)
    assert [cosine(xb[i : i + 1], q)[0] for i in range(0, 9000, 97)] == list(scores[::97])


@pytest.mark.parametrize("d", [2, 3, 16])
def test_a_copy_scores_one_and_nothing_more(d: int) -> None:
    """Whatever float32 makes of its length, which is not exactly 1 for most vectors."""
    xb = random_vectors(3000, d, seed=d)
    raw = (xb.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
    assert (raw > 1).any()
    assert (raw < 1).any()
    for row in range(0, 3000, 37):
        assert cosine(xb[row : row + 1], xb[row])[0] == 1
        assert cosine(-xb[row : row + 1], xb[row])[0] == -1
        scores = cosine(xb, xb[row])
        assert scores.min() >= -1
        assert scores.max() == scores[row] == 1
    # Lengths at the ends of the tolerance, as another program may have stored them.
    for stretch in (1 - 0.9e-3, 1 + 0.9e-3):
        assert cosine(xb[:1] * np.float32(stretch), xb[0])[0] == 1


@pytest.mark.parametrize("k", [0, -1, MAX_K + 1, 2**40])
def test_k_out_of_bounds(k: int) -> None:
    with pytest.raises(IndexInputError, match=rf"k is {k}; expected 1 to 16384"):
        check_k(k)


@pytest.mark.parametrize("k", [True, 1.0, "1", None])
def test_k_of_another_type(k: Any) -> None:
    with pytest.raises(IndexInputError, match="expected an integer"):
        check_k(k)


def test_k_within_bounds() -> None:
    assert [check_k(1), check_k(MAX_K), check_k(np.int64(5))] == [1, MAX_K, 5]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1]], r"shape \(1, 1\)"),
        ([1.0], "dtype float64"),
        ([True], "dtype bool"),
        (np.array([2**63], np.uint64), "9223372036854775808"),
        ([[1], [1, 2]], "ragged"),
    ],
)
def test_ids_refused(ids: Any, message: str) -> None:
    with pytest.raises(IndexInputError, match=message):
        as_ids(ids)


@pytest.mark.parametrize("ids", [[1, 2], (1, 2), np.array([1, 2], np.int32)])
def test_ids_accepted(ids: Any) -> None:
    assert as_ids(ids).dtype == np.int64
    assert as_ids(ids).tolist() == [1, 2]
    assert as_ids([]).shape == (0,)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[1.0, 0.0]], "xq is a list; expected a NumPy array"),
        (np.array([[1.0, 0.0]]), "xq has dtype float64; expected float32"),
        (np.float32([1.0, 0.0]), r"xq has shape \(2,\); expected \(n, 2\)"),
        (np.float32([[1.0, 0.0, 0.0]]), r"xq has shape \(1, 3\); expected \(n, 2\)"),
        (np.float32([[1, 0], [np.nan, 1]]), "xq row 1 holds NaN or infinity"),
        (np.float32([[np.inf, 0]]), "xq row 0 holds NaN or infinity"),
        (np.float32([[1, 0], [0, 0]]), "xq row 1 has length 0; expected an L2-normalised row"),
        (np.float32([[3, 4]]), "xq row 0 has length 5"),
    ],
)
def test_vectors_refused(x: Any, message: str) -> None:
    with pytest.raises(IndexInputError, match=message):
        as_vectors(x, 2, "xq")


def test_vectors_that_are_not_contiguous_are_copied() -> None:
    x = np.asfortranarray(random_vectors(4, 3, seed=1))
    result = as_vectors(x, 3, "xb")
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, x)
