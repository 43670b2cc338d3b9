"""Brute force in pieces, and the exact ranking of candidates."""

from collections.abc import Callable, Iterator

import faiss
import numpy as np

from index.contract import NO_ID, Ids, Neighbours, Scores, Vectors
from index.vectors import GROWTH, SPARE, TIE, as_scores

_ROWS_AT_ONCE = 65_536
_CANDIDATES_AT_ONCE = 512
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
        if fetch == available or (scores[:, k - 1] - scores[:, -1] > TIE).all():
            return found
        fetch *= GROWTH


def best_of(ids: Ids, xb: Vectors, xq: Vectors, k: int, rows: Ids) -> Neighbours:
    """The best ``k`` among candidate ``rows`` (nq, m) of each query; a row of -1 is none.

    Scores are those of `index.vectors.cosine`; at equal scores the smaller id comes first.
    """
    if len(xq) == 1 and len(xb):
        return _best_of_one(ids, xb, xq[0], k, rows[0])
    scores = np.full((len(xq), k), -np.inf, np.float32)
    found = np.full((len(xq), k), NO_ID, np.int64)
    if not rows.size or not len(xb):
        return Neighbours(scores, found)
    step = max(1, _CANDIDATES_AT_ONCE // rows.shape[1])
    for start in range(0, len(xq), step):
        part = slice(start, start + step)
        # Rows ascend by id, so a stable sort leaves the smaller id first among equals.
        candidates = np.sort(rows[part], axis=1)
        vectors = xb[np.maximum(candidates, 0)]
        if rows.shape[1] >= 2 * (k + SPARE):
            candidates, vectors = _likely(candidates, vectors, xq[part], k)
        # The same sum as `cosine`, bit for bit, for all of these queries at once.
        products = vectors.astype(np.float64)
        queries = xq[part, None, :]
        products *= queries
        exact = as_scores(products.sum(axis=2), vectors, queries)
        exact[candidates < 0] = -np.inf
        best = np.argsort(-exact, axis=1, kind="stable")[:, :k]
        chosen = np.take_along_axis(candidates, best, axis=1)
        columns = best.shape[1]
        scores[part, :columns] = np.take_along_axis(exact, best, axis=1)
        found[part, :columns] = np.where(chosen >= 0, ids[np.maximum(chosen, 0)], NO_ID)
    return Neighbours(scores, found)


def _best_of_one(ids: Ids, xb: Vectors, q: Vectors, k: int, rows: Ids) -> Neighbours:
    """`best_of` for one query ``q`` (d,), in fewer steps: each costs as much as its arithmetic."""
    rows = np.sort(rows)
    if len(rows) and rows[0] < 0:
        rows = rows[rows.searchsorted(0) :]
    # Clipping lets NumPy write without a check of each row; none is outside.
    vectors = xb.take(rows, axis=0, mode="clip")
    if len(rows) >= 2 * (k + SPARE):
        kept = _likely_of_one(vectors.dot(q), k)
        if kept is not None:
            rows, vectors = rows[kept], vectors.take(kept, axis=0)
    products = vectors.astype(np.float64)
    products *= q
    exact = as_scores(products.sum(axis=1), vectors, q)
    best = (-exact).argsort(kind="stable")[:k]
    if len(best) == k:
        return Neighbours(exact[best][None], ids[rows[best]][None])
    scores = np.full((1, k), -np.inf, np.float32)
    found = np.full((1, k), NO_ID, np.int64)
    scores[0, : len(best)], found[0, : len(best)] = exact[best], ids[rows[best]]
    return Neighbours(scores, found)


def _likely_of_one(rough: Scores, k: int) -> Ids | None:
    """`_likely` for one query with float32 scores ``rough`` (m,); None for all candidates."""
    keep = rough.argpartition(len(rough) - k - SPARE)[len(rough) - k - SPARE :]
    kept = np.sort(rough[keep])
    if kept[SPARE] - kept[0] <= TIE:
        return None
    keep.sort()
    return keep


def _likely(candidates: Ids, vectors: Vectors, xq: Vectors, k: int) -> tuple[Ids, Vectors]:
    """The candidates that may be among the best ``k``, judged in float32; their order is kept.

    All of them if one that would be dropped ties with the last one wanted.
    """
    rough = np.matmul(vectors, xq[:, :, None])[:, :, 0]
    rough[candidates < 0] = -np.inf
    keep = np.argpartition(-rough, k + SPARE - 1, axis=1)[:, : k + SPARE]
    kept = -np.sort(-np.take_along_axis(rough, keep, axis=1), axis=1)
    # Both are -inf where fewer than k are valid; then no valid candidate is dropped.
    with np.errstate(invalid="ignore"):
        apart = kept[:, k - 1] - kept[:, -1] > TIE
    if not (apart | (kept[:, -1] == -np.inf)).all():
        return candidates, vectors
    keep = np.sort(keep, axis=1)
    row = np.arange(len(keep))[:, None]
    return candidates[row, keep], vectors[row, keep]


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
