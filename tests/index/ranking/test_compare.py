import numpy as np
import pytest

from index.contract import IndexInputError
from index.ranking.compare import compare
from tests.index.vectors import random_vectors, unit

# On a circle: 0 and 1 are close, 2 and 3, 4 and 5.
BEFORE = unit([[np.cos(a), np.sin(a)] for a in (0.0, 0.1, 2.0, 2.1, 4.0, 4.1)])
IDS = np.array([3, 5, 7, 11, 13, 17])


def test_nothing_changes() -> None:
    found = compare(IDS, BEFORE, BEFORE, ["a", "a", "b", "b", None, None], k=1)
    assert (found.queries, found.k, found.overlap, found.unchanged) == (6, 1, 1.0, 1.0)
    assert (found.first_kept, found.label_before, found.label_after) == (1.0, 1.0, 1.0)


def test_two_pictures_swap() -> None:
    after = BEFORE[[2, 1, 0, 3, 4, 5]]
    found = compare(IDS, BEFORE, after, ["a", "a", "b", "b", None, None], k=1)
    assert found.overlap == pytest.approx(2 / 6)
    assert found.first_kept == pytest.approx(2 / 6)
    assert found.worst[:4] == (3, 5, 7, 11)
    assert (found.label_before, found.label_after) == (1.0, 0.0)


def test_another_dimension_copies_and_no_labels() -> None:
    same = np.repeat(random_vectors(1, 8, seed=0), 6, axis=0)
    found = compare(IDS, BEFORE, same, [None] * 6, k=10)
    assert (found.k, found.overlap, found.unchanged) == (5, 1.0, 1.0)
    assert (found.label_before, found.label_after) == (None, None)
    with pytest.raises(IndexInputError, match="at least 2"):
        compare(IDS[:1], BEFORE[:1], same[:1], [None])
