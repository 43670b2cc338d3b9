"""Vectors and a reference search for tests."""

import numpy as np

from index.ann import kinds, vector_files
from index.ann.exact import ExactIndex
from index.ann.vector_files import Pieces
from index.contract import Ids, Neighbours, Searchable, Vectors


def unit(rows: object) -> Vectors:
    x = np.asarray(rows, np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def random_vectors(n: int, d: int, seed: int) -> Vectors:
    return unit(np.random.default_rng(seed).standard_normal((n, d)))


def signs(n: int, d: int, seed: int) -> Vectors:
    """Rows of plus and minus 1/sqrt(d), d a power of 4: similarities are exact, with many ties."""
    return (np.random.default_rng(seed).choice([-1.0, 1.0], (n, d)) / np.sqrt(d)).astype(np.float32)


def brute_force(ids: Ids, xb: Vectors, xq: Vectors, k: int) -> Neighbours:
    products = xq.astype(np.float64) @ xb.astype(np.float64).T
    # Of a copy the cosine counts: float32 vectors have a length of about 1 only.
    lengths = np.outer(*(np.linalg.norm(x.astype(np.float64), axis=1) for x in (xq, xb)))
    products = np.where(np.abs(products) > 0.9975, np.clip(products / lengths, -1, 1), products)
    return rank(ids, products.astype(np.float32), k)


def rank(ids: Ids, all_scores: np.ndarray, k: int) -> Neighbours:
    scores = np.full((len(all_scores), k), -np.inf, np.float32)
    found = np.full((len(all_scores), k), -1, np.int64)
    for i, row in enumerate(all_scores):
        best = np.lexsort((ids, -row))[:k]
        scores[i, : len(best)], found[i, : len(best)] = row[best], ids[best]
    return Neighbours(scores, found)


def filled(ids: object, xb: np.ndarray) -> ExactIndex:
    index = ExactIndex(xb.shape[1])
    index.add(np.asarray(ids, np.int64), xb)
    return index


def built(
    ids: Ids, xb: Vectors, d: int, kind: str = "auto", target: float = kinds.TARGET_RECALL
) -> Searchable:
    """An index over arrays."""
    return kinds.build_collected(kinds.Collected(kind, ids, xb.reshape(len(ids), d)), target)


def pieces_of(ids: Ids, xb: Vectors) -> Pieces:
    """Ids and vectors piece by piece."""
    for start in range(0, len(ids), vector_files.PIECE):
        stop = start + vector_files.PIECE
        yield ids[start:stop], xb[start:stop]


def assert_same(answer: Neighbours, expected: Neighbours) -> None:
    assert answer.scores.dtype == np.float32
    assert answer.ids.dtype == np.int64
    np.testing.assert_array_equal(answer.ids, expected.ids)
    np.testing.assert_array_equal(answer.scores, expected.scores)
