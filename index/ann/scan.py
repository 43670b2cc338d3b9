"""Brute force in pieces, and the exact ranking of candidates."""

from collections.abc import Callable, Iterator, Sequence

import faiss
import numpy as np

from index.contract import NO_ID, Ids, Neighbours, Scores, Vectors
from index.vectors import GROWTH, SPARE, as_scores, margin

_ROWS_AT_ONCE = 65_536
_GROUP = 64
BATCH = 4
"""From this many queries on, a matrix product is faster than FAISS with its default settings, which
multiplies one pair of vectors after another. (Lowering FAISS's own threshold for matrix products
would slow single queries down.)"""


def exact_rows(xb: Vectors, xq: Vectors, k: int, rows: Ids | None = None) -> Ids:
    """Rows (nq, m) of ``xb`` (n, d) that include the best ``k`` of each query.

    Searches only the ascending ``rows`` if given. m is less than ``k`` only if there are fewer.
    Memory is bounded by a few pieces of ``xb``, which may be memory-mapped.
    """
    available = len(xb) if rows is None else len(rows)
    return widened(lambda fetch: scan(xb, xq, fetch, rows), len(xq), k, available)


def widened(
    search: Callable[[int], tuple[Scores, Ids]], queries: int, k: int, available: int
) -> Ids:
    """Rows (queries, m) that include the best ``k``, however float32 rounds their scores.

    ``search(fetch)`` returns the best ``fetch`` in float32: descending scores and rows, each
    (queries, fetch). It is repeated with more until the ``k``-th is clear of the last.
    """
    if not available or not queries:
        return np.empty((queries, 0), np.int64)
    fetch = k + SPARE
    while True:
        fetch = min(fetch, available)
        scores, found = search(fetch)
        if fetch == available:
            return found
        kth = scores[:, k - 1]
        if (kth - scores[:, -1] > margin(kth)).all():
            return found
        fetch *= GROWTH


def best_of(ids: Ids, xb: Vectors, xq: Vectors, k: int, rows: Ids | Sequence[Ids]) -> Neighbours:
    """The best ``k`` among candidate ``rows`` of each query, (nq, m) or nq arrays; -1 is none.

    Scores are those of `index.vectors.cosine`; at equal scores the smaller id comes first.
    """
    scores = np.full((len(xq), k), -np.inf, np.float32)
    found = np.full((len(xq), k), NO_ID, np.int64)
    # One query after another: a few candidates stay in the nearest cache until they are ranked.
    for i, q in enumerate(xq):
        exact, best = _best_of_one(xb, q, k, rows[i])
        scores[i, : len(best)] = exact
        found[i, : len(best)] = ids[best]
    return Neighbours(scores, found)


def _best_of_one(xb: Vectors, q: Vectors, k: int, rows: Ids) -> tuple[Scores, Ids]:
    """Scores and rows of the best ``k`` for one query ``q`` (d,), or of all if there are fewer."""
    # Rows ascend by id, so a stable sort leaves the smaller id first among equals.
    rows = np.sort(rows)
    if len(rows) and rows[0] < 0:
        rows = rows[rows.searchsorted(0) :]
    if not len(rows):
        return np.empty(0, np.float32), rows
    # Clipping lets NumPy copy without a check of each row; none is outside.
    vectors = xb.take(rows, axis=0, mode="clip")
    if len(rows) >= 2 * (k + SPARE):
        likely = _likely(vectors.dot(q), k)
        if likely is not None:
            rows, vectors = rows[likely], vectors.take(likely, axis=0)
    # The same sum as `cosine`, bit for bit.
    products = vectors.astype(np.float64)
    products *= q
    exact = as_scores(products.sum(axis=1), vectors, q)
    best = (-exact).argsort(kind="stable")[:k]
    return exact[best], rows[best]


def _likely(rough: Scores, k: int) -> Ids | None:
    """Ascending positions of those that may be among the best ``k``, judged in float32.

    None if one that would be dropped ties with the last one wanted.
    """
    keep = rough.argpartition(len(rough) - k - SPARE)[len(rough) - k - SPARE :]
    kept = np.sort(rough[keep])
    if kept[SPARE] - kept[0] <= margin(kept[SPARE]):
        return None
    keep.sort()
    return keep


def scan(xb: Vectors, xq: Vectors, k: int, rows: Ids | None) -> tuple[Scores, Ids]:
    """The best ``k`` in float32: descending scores, and rows, each (nq, k)."""
    scores = np.full((len(xq), 0), -np.inf, np.float32)
    found = np.full((len(xq), 0), -1, np.int64)
    for near, where in _pieces(xb, xq, k, rows):
        scores, found = np.hstack((scores, near)), np.hstack((found, where))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, order, axis=1)
        found = np.take_along_axis(found, order, axis=1)
    return scores, found


def _pieces(xb: Vectors, xq: Vectors, k: int, rows: Ids | None) -> Iterator[tuple[Scores, Ids]]:
    """The best of each piece, at most ``k``: scores and rows, each (nq, m)."""
    dense = rows is not None and 4 * len(rows) > len(xb)
    total = len(xb) if rows is None or dense else len(rows)
    for start in range(0, total, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, total)
        if rows is None:
            near, where = _knn(xq, xb[start:stop], k)
            yield near, where + start
        elif not dense:
            near, where = _knn(xq, xb[rows[start:stop]], k)
            yield near, rows[start + where]
        else:
            # Copying most of a piece costs more than scoring all of it.
            inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)] - start
            near, where = _largest((xq @ xb[start:stop].T)[:, inside], k)
            yield near, inside[where] + start


def _knn(xq: Vectors, piece: Vectors, k: int) -> tuple[Scores, Ids]:
    if len(xq) >= BATCH:
        return _largest(xq @ piece.T, k)
    near, where = faiss.knn(
        xq, np.ascontiguousarray(piece), min(k, len(piece)), metric=faiss.METRIC_INNER_PRODUCT
    )
    return near, where


def _largest(products: Scores, k: int) -> tuple[Scores, Ids]:
    """The ``k`` largest of each row, or all if there are fewer, unordered: values and columns."""
    n = products.shape[1]
    groups = n // _GROUP
    if k >= n:
        columns = np.broadcast_to(np.arange(n), products.shape)
    elif groups < 4 * k:
        columns = np.argpartition(products, -k, axis=1)[:, -k:]
    else:
        # The k largest lie in (or equal values in) the k groups with the largest maxima. Taking
        # maxima reads the products once; a partition reads them several times.
        table = products[:, : groups * _GROUP].reshape(len(products), _GROUP, groups)
        best = np.argpartition(table.max(axis=1), -k, axis=1)[:, -k:]
        inside = best[:, :, None] + groups * np.arange(_GROUP)
        rest = np.arange(groups * _GROUP, n)
        candidates = np.hstack(
            (inside.reshape(len(products), -1), np.broadcast_to(rest, (len(products), len(rest))))
        )
        values = np.take_along_axis(products, candidates, axis=1)
        among = np.argpartition(values, -k, axis=1)[:, -k:]
        columns = np.take_along_axis(candidates, among, axis=1)
    return np.take_along_axis(products, columns, axis=1), columns.astype(np.int64)
