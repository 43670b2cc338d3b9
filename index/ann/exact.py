"""Exact search: a scan finds candidates, and the few that it returns are scored by `cosine`.

So the score of a pair of pictures does not depend on what else is searched in the same call. Some
thousand vectors and more are scanned as int8 codes, whose candidates provably include the best
(`index.ann.int8`). Fewer, and what the codes cannot tell apart, FAISS and NumPy scan in float32.
"""

import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann import int8
from index.ann.int8 import Codes
from index.ann.reading import read_index
from index.ann.scan import BATCH, best_of, scan, widened
from index.contract import (
    MAX_DIMENSION,
    Ids,
    IdsLike,
    IndexFileError,
    IndexInputError,
    Neighbours,
    Scores,
    Vectors,
)
from index.files import write_atomically
from index.vectors import (
    as_allowed,
    as_ids,
    as_new_ids,
    as_vectors,
    check_dimension,
    check_k,
    rows_of,
    rows_of_all,
)

# magic, dimension, count, two unused numbers, trained, metric
_HEADER = struct.Struct("<4siqqq?i")
_SIZE = struct.Struct("<q")


# From here on, making the codes pays.
_CODED = 4096
# Below this share of the vectors, copying those that are allowed costs less than scanning all.
_FEW = 16
# Above this share of the vectors, scoring the candidates costs as much as a scan in float32.
_MANY = 8


class _State(NamedTuple):
    """Ascending ids int64 (n,), and the FAISS index that holds their vectors in the same order.

    ``xb`` is a view of those vectors float32 (n, d), valid only while the state is alive.
    """

    ids: Ids
    flat: Any
    xb: Vectors
    coding: "_Coding"


class _Coding:
    """The int8 codes of a state's vectors, made when first asked for."""

    def __init__(self) -> None:
        self._codes: Codes | None = None
        self._making = threading.Lock()

    def codes(self, xb: Vectors) -> Codes | None:
        """The codes of ``xb``; None where there are none, and while another thread makes them."""
        if self._codes is None and len(xb) >= _CODED and int8.available():
            if not self._making.acquire(blocking=False):
                return None
            try:
                self._codes = self._codes or Codes.of(xb)
            finally:
                self._making.release()
        return self._codes


class ExactIndex:
    """Brute-force cosine search; implements `index.contract.Searchable`.

    Readers take the current `_State` once and never lock. A writer makes a new one, because a FAISS
    index must not change while it is searched.
    """

    def __init__(self, dimension: int) -> None:
        self._dimension = check_dimension(dimension)
        self._writing = threading.Lock()
        self._set(np.empty(0, np.int64), np.empty((0, self._dimension), np.float32))

    def _set(self, ids: Ids, xb: Vectors) -> None:
        flat = faiss.IndexFlatIP(self._dimension)
        flat.add(xb)
        view: Vectors = np.empty((0, self._dimension), np.float32)
        if len(ids):
            view = faiss.rev_swig_ptr(flat.get_xb(), xb.size).reshape(xb.shape)
        self._state = _State(ids, flat, view, _Coding())

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def kind(self) -> str:
        return "exact"

    def count(self) -> int:
        return len(self._state.ids)

    def ids(self) -> Ids:
        return self._state.ids.copy()

    def has(self, ids: IdsLike) -> NDArray[np.bool_]:
        return rows_of(self._state.ids, as_ids(ids))[1]

    def add(self, ids: IdsLike, xb: Vectors) -> None:
        """Store vectors ``xb`` float32 (n, d) under ``ids`` int64 (n,); all of them or none.

        Copies everything that is already stored. Raises IndexInputError for wrong shapes, dtypes or
        values, negative ids, repeated ids and ids that are already stored.
        """
        xb = as_vectors(xb, self._dimension, "xb")
        new = as_new_ids(ids, len(xb))
        with self._writing:
            state = self._state
            _, stored = rows_of(state.ids, new)
            if stored.any():
                shown = np.sort(new[stored])[:10].tolist()
                raise IndexInputError(f"ids already stored: {shown}; remove them first")
            if len(state.ids):
                new, xb = np.concatenate((state.ids, new)), np.concatenate((state.xb, xb))
            if (np.diff(new) <= 0).any():
                order = np.argsort(new)
                new, xb = new[order], xb[order]
            self._set(new, xb)

    def vectors(self, ids: IdsLike) -> Vectors:
        state = self._state
        return state.xb[rows_of_all(state.ids, ids)]

    def search(self, xq: Vectors, k: int, allowed: IdsLike | None = None) -> Neighbours:
        xq = as_vectors(xq, self._dimension, "xq")
        k = check_k(k)
        state = self._state
        rows: Ids | None = None
        if allowed is not None:
            rows, stored = rows_of(state.ids, as_allowed(allowed))
            rows = rows[stored]
        return best_of(state.ids, state.xb, xq, k, _candidates(state, xq, k, rows))

    def save(self, path: Path) -> None:
        """Write a FAISS file (``IndexIDMap2`` over ``IndexFlatIP``), durably and atomically."""
        state = self._state
        index = faiss.IndexIDMap2(faiss.IndexFlatIP(self._dimension))
        if len(state.ids):
            index.add_with_ids(state.xb, state.ids)
        write_atomically(path, lambda temporary: faiss.write_index(index, str(temporary)))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that ``save`` wrote.

        Raises IndexFileError if it does not exist, is truncated or too long, is another kind of
        file or FAISS index, or holds invalid ids or vectors.
        """
        dimension, count = _check_header(path)
        try:
            stored: Any = read_index(path)
        except (RuntimeError, MemoryError) as error:
            raise IndexFileError(f"{path}: FAISS cannot read it: {error}") from error
        ids = np.empty(0, np.int64)
        xb = np.empty((0, dimension), np.float32)
        if count:
            flat: Any = faiss.downcast_index(stored.index)
            ids = faiss.vector_to_array(stored.id_map)
            xb = faiss.rev_swig_ptr(flat.get_xb(), count * dimension).reshape(count, dimension)
        index = cls(dimension)
        try:
            index.add(ids, xb)
        except IndexInputError as error:
            raise IndexFileError(f"{path}: {error}; rebuild the index") from error
        # Now rather than during somebody's search.
        index._state.coding.codes(index._state.xb)
        return index


def _candidates(state: _State, xq: Vectors, k: int, rows: Ids | None) -> Ids | Sequence[Ids]:
    """For each query, rows that include its best ``k``; only of ``rows`` (ascending) if given."""
    n = len(state.ids)
    codes = None if rows is not None and _FEW * len(rows) <= n else state.coding.codes(state.xb)
    if codes is None:
        return _in_float(state, xq, k, rows)
    # FAISS keeps the number of threads per caller; whoever limits it means scans.
    threads = faiss.omp_get_max_threads()
    found = codes.candidates(xq, k, rows, max(n // _MANY, k), threads)
    left = [i for i, passed in enumerate(found) if passed is None]
    if left:
        for i, passed in zip(left, _in_float(state, xq[left], k, rows), strict=True):
            found[i] = passed
    return [passed for passed in found if passed is not None]


def _in_float(state: _State, xq: Vectors, k: int, rows: Ids | None) -> Ids:
    """The same as an array (nq, m); m is less than k only if there are fewer."""
    available = len(state.ids) if rows is None else len(rows)
    return widened(lambda fetch: _scan(state, xq, fetch, rows), len(xq), k, available)


def _scan(state: _State, xq: Vectors, k: int, rows: Ids | None) -> tuple[Scores, Ids]:
    """FAISS's best ``k`` rows for each query, among ``rows`` (ascending) if given."""
    if len(xq) >= BATCH:
        return scan(state.xb, xq, k, rows)
    if rows is None:
        scores, found = state.flat.search(xq, k)
        return scores, found
    if _FEW * len(rows) <= len(state.ids):
        scores, found = faiss.knn(xq, state.xb[rows], k, metric=faiss.METRIC_INNER_PRODUCT)
        return scores, rows[found]
    mask = np.zeros(len(state.ids), bool)
    mask[rows] = True
    # The type stubs do not describe what FAISS's Python layer accepts.
    library: Any = faiss
    selector = library.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
    parameters = library.SearchParameters(sel=selector)
    scores, found = state.flat.search(xq, k, params=parameters)
    return scores, found


def _check_header(path: Path) -> tuple[int, int]:
    """Return dimension and count, after checking that the file has the size they imply."""
    try:
        with path.open("rb") as file:
            outer = file.read(_HEADER.size)
            inner = file.read(_HEADER.size)
        size = path.stat().st_size
    except OSError as error:
        raise IndexFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    remedy = "it is damaged or was not written by Lookalike; rebuild the index"
    if len(inner) < _HEADER.size:
        raise IndexFileError(f"{path}: has {size} bytes, too few for an index; {remedy}")
    magic, dimension, count, _, _, _, metric = _HEADER.unpack(outer)
    flat_magic, flat_dimension, flat_count, _, _, _, flat_metric = _HEADER.unpack(inner)
    if (magic, flat_magic) != (b"IxM2", b"IxFI"):
        raise IndexFileError(
            f"{path}: starts with {magic!r} and {flat_magic!r}; expected b'IxM2' and b'IxFI' "
            f"(IndexIDMap2 over IndexFlatIP); {remedy}"
        )
    if metric != faiss.METRIC_INNER_PRODUCT or flat_metric != metric:
        raise IndexFileError(
            f"{path}: has FAISS metric {metric} and {flat_metric}; "
            f"expected {faiss.METRIC_INNER_PRODUCT} (inner product); {remedy}"
        )
    if (dimension, count) != (flat_dimension, flat_count) or not (
        1 <= dimension <= MAX_DIMENSION and count >= 0
    ):
        raise IndexFileError(
            f"{path}: has headers for {count} vectors of {dimension} and {flat_count} of "
            f"{flat_dimension} dimensions; expected equal ones, 1 to {MAX_DIMENSION}; {remedy}"
        )
    expected = 2 * _HEADER.size + 2 * _SIZE.size + count * (4 * dimension + 8)
    if size != expected:
        raise IndexFileError(
            f"{path}: has {size} bytes; expected {expected} for {count} vectors of {dimension} "
            f"dimensions; {remedy}"
        )
    return dimension, count
