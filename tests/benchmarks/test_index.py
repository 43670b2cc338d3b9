from __future__ import annotations

import numpy as np
import pytest

from benchmarks import index
from benchmarks.index import EXACT, FLAT, Contender, Row


@pytest.fixture
def vectors() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(640, 18)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x[:600], x[600:]


def test_brute_force_finds_the_nearest(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    xb, xq = vectors
    expected = np.argsort(-(xq @ xb.T), axis=1)[:, : index.K]
    assert index.recall(index.nearest(xb, xq), expected) == 1
    assert index.recall(expected[:, :5], expected) == 0.5


def test_an_exact_index_finds_everything(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    said: list[str] = []
    rows = index.compare(*vectors, names=(), targets=(), threads=(1,), seconds=0, say=said.append)
    assert [(row.contender.name, row.recall) for row in rows] == [(FLAT, 1.0), (EXACT, 1.0)]
    assert len(said) == 2
    assert min(row.one for row in rows) > 0


def test_ratios_are_to_the_first_with_the_same_threads() -> None:
    def search(xq: np.ndarray) -> np.ndarray:
        raise AssertionError("a table searches nothing")

    flat, fast = Contender(FLAT, search, 0, 4e6), Contender("fast", search, 1.25, 1e6)
    rows = [
        Row(flat, 1, 1.0, 3.0, 64.0),
        Row(fast, 1, 0.95, 0.5, 16.0),
        Row(flat, 2, 1.0, 2.0, 32.0),
        Row(fast, 2, 0.95, 0.5, 8.0),
    ]
    assert index.as_table(rows).splitlines()[2:] == [
        f"| {FLAT} | 1 | 1.0000 | 0.0 | 4 | 3.000 | 64.00 | 500 | 1.0, 1.0 |",
        "| fast | 1 | 0.9500 | 1.2 | 1 | 0.500 | 16.00 | 2,000 | 6.0, 4.0 |",
        f"| {FLAT} | 2 | 1.0000 | 0.0 | 4 | 2.000 | 32.00 | 1,000 | 1.0, 1.0 |",
        "| fast | 2 | 0.9500 | 1.2 | 1 | 0.500 | 8.00 | 4,000 | 4.0, 4.0 |",
    ]
