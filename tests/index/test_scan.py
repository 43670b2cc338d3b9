from __future__ import annotations

import numpy as np
import pytest

from index.scan import _largest


@pytest.mark.parametrize(("n", "k"), [(5, 9), (300, 7), (64 * 40, 7), (64 * 40 + 13, 9)])
def test_the_largest_products(n: int, k: int) -> None:
    products = np.random.default_rng(n).normal(size=(5, n)).astype(np.float32)
    products[1] = 0.5  # all equal
    values, columns = _largest(products, k)
    np.testing.assert_array_equal(np.take_along_axis(products, columns, 1), values)
    assert all(len(set(row)) == min(n, k) for row in columns.tolist())
    np.testing.assert_array_equal(np.sort(values), np.sort(products)[:, -k:])
