"""Checks and conversions of vectors and ids that all engines share, and the exact score."""

import math

import numpy as np
from numpy.typing import NDArray

from index.contract import (
    MAX_DIMENSION,
    MAX_K,
    Ids,
    IdsLike,
    IndexInputError,
    Scores,
    UnknownIdError,
    Vectors,
)

NORM_TOLERANCE = 1e-3
SAME = 0.9999
"""Two embeddings of one picture count as equal from this cosine upwards: their last bits depend on
the batch that the picture was in."""
# SPARE more candidates than the caller wants are fetched, and GROWTH times as many again while the
# last candidate is within TIE of the last one wanted. So float32 rounding never costs a neighbour
# its rank, and equal scores come by ascending id, which keeps consecutive pages disjoint.
SPARE = 16
GROWTH = 4
TIE = 1e-6
FIRST_FETCH = 64
"""Minimum number of candidates for a query whose depth is not known beforehand."""
_NEAR = 1 - 2.5 * NORM_TOLERANCE
_EVEN = 1 - 5 * NORM_TOLERANCE
_SHOWN = 10
_ROWS_AT_ONCE = 8192


def cosine(xb: Vectors, q: Vectors) -> Scores:
    """Similarity of each row of ``xb`` (n, d) to ``q`` (d,), float32 (n,).

    Sums are float64 and in the same order for every row, so equal vectors get equal scores
    wherever they are stored and however many queries are made at once. A float32 matrix product
    does not guarantee that.
    """
    q64 = q.astype(np.float64)
    scores = np.empty(len(xb), np.float32)
    for start in range(0, len(xb), _ROWS_AT_ONCE):
        rows = xb[start : start + _ROWS_AT_ONCE]
        products = rows.astype(np.float64)
        products *= q64
        scores[start : start + _ROWS_AT_ONCE] = as_scores(products.sum(axis=1), rows, q)
    return scores


def as_scores(sums: NDArray[np.float64], xb: Vectors, q: Vectors) -> Scores:
    """Dot products ``sums`` (...,) of ``xb`` (..., d) and ``q`` as scores float32 (...,), -1..1.

    A vector normalised in float32 has a length of about 1, so an exact copy would score a little
    more than 1, or a little less. Where that shows, near 1 and -1, the lengths are divided by.
    """
    near = np.abs(sums) > _NEAR
    if near.any():
        pairs = (xb[near], np.broadcast_to(q, xb.shape)[near])
        a, b = (np.linalg.norm(side.astype(np.float64), axis=-1) for side in pairs)
        sums[near] = np.clip(sums[near] / (a * b), -1, 1)
    return sums.astype(np.float32)


def margin(kth: Scores) -> Scores:
    """How far below the k-th best float32 product no other can be among the best k, elementwise."""
    # Scores near 1 and -1 are divided by lengths, which are 1 within NORM_TOLERANCE.
    return np.where(np.abs(kth) > _EVEN, 1 - _EVEN, TIE)


def rows_of(stored: Ids, wanted: Ids) -> tuple[Ids, NDArray[np.bool_]]:
    """For each wanted id, its row among the ascending ``stored`` ids and whether it is there."""
    rows = np.searchsorted(stored, wanted).astype(np.int64)
    if not len(stored):
        return rows, np.zeros(len(wanted), bool)
    return rows, stored[np.minimum(rows, len(stored) - 1)] == wanted


def rows_of_all(stored: Ids, wanted: IdsLike) -> Ids:
    """The row of each wanted id. Raises UnknownIdError naming the ids that are not there."""
    ids = as_ids(wanted)
    rows, found = rows_of(stored, ids)
    if not found.all():
        raise UnknownIdError(ids[~found].tolist(), "the index")
    return rows


def check_dimension(dimension: int) -> int:
    """Return ``dimension`` if it is an integer in 1..MAX_DIMENSION, else raise IndexInputError."""
    return _bounded(dimension, "dimension", MAX_DIMENSION)


def check_k(k: int) -> int:
    """Return ``k`` if it is an integer in 1..MAX_K, else raise IndexInputError."""
    return _bounded(k, "k", MAX_K)


def _bounded(value: int, name: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise IndexInputError(f"{name} is {value!r}; expected an integer from 1 to {most}")
    if not 1 <= value <= most:
        raise IndexInputError(f"{name} is {value}; expected 1 to {most}")
    return int(value)


def as_ids(ids: IdsLike, name: str = "ids") -> Ids:
    """Return ``ids`` as int64 (n,), or raise IndexInputError for another shape or dtype."""
    try:
        array = np.asarray(ids)
    except ValueError as error:
        raise IndexInputError(f"{name} is ragged; expected shape (n,)") from error
    if array.ndim != 1:
        raise IndexInputError(f"{name} has shape {array.shape}; expected (n,)")
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu":
        raise IndexInputError(f"{name} has dtype {array.dtype}; expected int64")
    if array.dtype == np.uint64 and int(array.max()) > np.iinfo(np.int64).max:
        raise IndexInputError(f"{name} holds {array.max()}; expected at most 2**63 - 1")
    return array.astype(np.int64)


def as_allowed(ids: IdsLike) -> Ids:
    """Return ``ids`` as int64 (n,), ascending and without repetitions."""
    array = as_ids(ids, "allowed")
    # np.unique sorts even what is already sorted.
    return array if (np.diff(array) > 0).all() else np.unique(array)


def as_new_ids(ids: IdsLike, count: int) -> Ids:
    """Return ``ids`` of ``count`` new vectors as int64 (count,): none negative, none repeated."""
    array = as_ids(ids)
    if len(array) != count:
        raise IndexInputError(f"got {len(array)} ids for {count} vectors; expected one id each")
    if array.size and array.min() < 0:
        raise IndexInputError(f"ids holds {array.min()}; expected ids of 0 or more")
    unique, times = np.unique(array, return_counts=True)
    if len(unique) != len(array):
        twice = unique[times > 1][:_SHOWN].tolist()
        raise IndexInputError(f"ids holds these more than once: {twice}; expected each id once")
    return array


def as_vectors(x: Vectors, dimension: int, name: str) -> Vectors:
    """Return ``x`` as a contiguous float32 (n, dimension) array of L2-normalised rows.

    Raises IndexInputError for another type, dtype or shape, for NaN or infinity, and for a row
    whose length differs from 1 by more than NORM_TOLERANCE.
    """
    if not isinstance(x, np.ndarray):
        raise IndexInputError(f"{name} is a {type(x).__name__}; expected a NumPy array")
    if x.dtype != np.float32:
        raise IndexInputError(f"{name} has dtype {x.dtype}; expected float32")
    if x.ndim != 2 or x.shape[1] != dimension:
        raise IndexInputError(f"{name} has shape {x.shape}; expected (n, {dimension})")
    # One query is checked in fewer steps: those below cost more than their arithmetic.
    if len(x) == 1 and abs(math.sqrt(np.vdot(x, x)) - 1.0) <= NORM_TOLERANCE:
        return np.ascontiguousarray(x)
    # float32 is precise enough, and this runs over everything that is ever loaded. A value that is
    # not finite, or overflows when squared, makes the length infinite or NaN.
    with np.errstate(over="ignore", invalid="ignore"):
        wrong = ~(np.abs(np.sqrt(np.einsum("ij,ij->i", x, x)) - 1.0) <= NORM_TOLERANCE)
    if wrong.any():
        finite = np.isfinite(x).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            raise IndexInputError(
                f"{name} row {row} holds NaN or infinity; expected finite numbers"
            )
        row = int(np.argmax(wrong))
        length = np.linalg.norm(x[row].astype(np.float64))
        raise IndexInputError(
            f"{name} row {row} has length {length:.6g}; expected an L2-normalised row, length 1"
        )
    return np.ascontiguousarray(x)


def as_embeddings(embeddings: Vectors) -> Vectors:
    """Return a model's output, of any dimension, as `as_vectors` does."""
    if not isinstance(embeddings, np.ndarray) or embeddings.ndim != 2:
        raise IndexInputError("embeddings is not a matrix; expected float32 (n, d)")
    return as_vectors(embeddings, embeddings.shape[1], "embeddings")
