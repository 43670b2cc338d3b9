"""The interface that every engine keeps, and the checks that they share.

Words: ``d`` is the dimension, ``n`` the number of stored vectors, ``nq`` the number of queries,
``k`` the number of neighbours asked for. All vectors are float32 and L2-normalised, so the inner
product is the cosine similarity.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int64]
Vectors: TypeAlias = NDArray[np.float32]
Scores: TypeAlias = NDArray[np.float32]
IdsLike: TypeAlias = NDArray[np.integer] | Sequence[int]

# FAISS aborts the whole process when asked for a very large k, so no engine accepts one.
MAX_K = 16384
MAX_DIMENSION = 65536
NORM_TOLERANCE = 1e-3
NO_ID = -1
_SHOWN = 10
_ROWS_AT_ONCE = 8192


class IndexInputError(ValueError):
    """A caller passed a value that the index cannot use."""


class UnknownIdError(KeyError):
    """Ids that are not stored. ``ids`` holds all of them, the message the first ten."""

    def __init__(self, ids: Sequence[int], where: str) -> None:
        self.ids = tuple(int(i) for i in ids)
        shown = ", ".join(str(i) for i in self.ids[:_SHOWN])
        more = f" and {len(self.ids) - _SHOWN} more" if len(self.ids) > _SHOWN else ""
        self.message = f"{where} has no such id: {shown}{more}"
        super().__init__(self.message)

    def __str__(self) -> str:
        # KeyError would print the repr of the message.
        return self.message


class Neighbours(NamedTuple):
    """The answer to ``nq`` queries.

    ``scores``: float32 (nq, k), cosine similarity, descending in each row, ``-inf`` where there
    is none. ``ids``: int64 (nq, k), ``-1`` where there is none. At equal scores the smaller id
    comes first.
    """

    scores: Scores
    ids: Ids


class Searchable(Protocol):
    """A set of vectors with ids that answers "which are nearest?".

    Searches may run in several threads at once; each sees one consistent state.
    """

    @property
    def dimension(self) -> int:
        """The length d of every vector."""
        ...

    @property
    def kind(self) -> str:
        """How it searches, for example ``"exact"``."""
        ...

    def count(self) -> int:
        """The number of stored vectors."""
        ...

    def ids(self) -> Ids:
        """All stored ids, int64 (n,), ascending."""
        ...

    def has(self, ids: IdsLike) -> NDArray[np.bool_]:
        """Which of these ids are stored, bool (n,); costs nothing that grows with ``count()``."""
        ...

    def search(self, xq: Vectors, k: int, allowed: IdsLike | None = None) -> Neighbours:
        """Find the ``k`` nearest to each row of ``xq`` float32 (nq, d).

        With ``allowed`` only these ids may be answers, and the answer is that of brute force over
        them; ids that are not stored are ignored, and an empty ``allowed`` gives no answers. ``k``
        may exceed ``count()``.

        Raises IndexInputError for a wrong ``xq`` and for ``k`` outside 1..MAX_K.
        """
        ...

    def vectors(self, ids: IdsLike) -> Vectors:
        """Return a copy of the vectors float32 (n, d), in the order given.

        Raises UnknownIdError that names the ids which are not stored.
        """
        ...


class NeighbourIndex(Searchable, Protocol):
    """A `Searchable` that can be changed, also while other threads search."""

    def add(self, ids: IdsLike, xb: Vectors) -> None:
        """Store vectors ``xb`` float32 (n, d) under ``ids`` int64 (n,); all of them or none.

        Raises IndexInputError for wrong shapes, dtypes or values, negative ids, ids given twice
        and ids that are already stored.
        """
        ...

    def remove(self, ids: IdsLike) -> int:
        """Remove these ids and return how many were stored. Unknown ids are ignored."""
        ...


def cosine(xb: Vectors, q: Vectors) -> Scores:
    """Similarity of each row of ``xb`` (n, d) to ``q`` (d,), float32 (n,).

    The sum is taken in float64 and in the same order for every row, so that equal vectors get
    equal scores wherever they are stored and however many queries are asked at once. A float32
    matrix product does not promise that.
    """
    q64 = q.astype(np.float64)
    scores = np.empty(len(xb), np.float32)
    for start in range(0, len(xb), _ROWS_AT_ONCE):
        rows = xb[start : start + _ROWS_AT_ONCE].astype(np.float64)
        rows *= q64
        scores[start : start + _ROWS_AT_ONCE] = rows.sum(axis=1)
    return scores


def rows_of(stored: Ids, wanted: Ids) -> tuple[Ids, NDArray[np.bool_]]:
    """For each wanted id its row among the ascending ``stored``, and whether it is there."""
    rows = np.searchsorted(stored, wanted).astype(np.int64)
    if not len(stored):
        return rows, np.zeros(len(wanted), bool)
    return rows, stored[np.minimum(rows, len(stored) - 1)] == wanted


def check_dimension(dimension: int) -> int:
    """Return ``dimension`` if it is an integer in 1..MAX_DIMENSION, else raise IndexInputError."""
    if isinstance(dimension, bool) or not isinstance(dimension, int | np.integer):
        raise IndexInputError(f"dimension is {dimension!r}; expected an integer")
    if not 1 <= dimension <= MAX_DIMENSION:
        raise IndexInputError(f"dimension is {dimension}; expected 1 to {MAX_DIMENSION}")
    return int(dimension)


def check_k(k: int) -> int:
    """Return ``k`` if it is an integer in 1..MAX_K, else raise IndexInputError."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise IndexInputError(f"k is {k!r}; expected an integer from 1 to {MAX_K}")
    if not 1 <= k <= MAX_K:
        raise IndexInputError(f"k is {k}; expected 1 to {MAX_K}")
    return int(k)


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
    """Return ids as int64 (n,) ascending, each once. Ids in that order already are not sorted."""
    array = as_ids(ids, "allowed")
    return array if (np.diff(array) > 0).all() else np.unique(array)


def as_new_ids(ids: IdsLike, count: int) -> Ids:
    """Return ``ids`` for ``count`` new vectors: int64 (count,), not negative, none twice."""
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
    # In float32, whose error is far below the tolerance: this is done to all that is ever loaded.
    # What is not finite, or too large to be squared, makes the length so.
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
