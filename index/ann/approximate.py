"""Approximate indexes: FAISS finds candidates, whose scores are then computed exactly.

The vectors themselves are kept next to the FAISS index, memory-mapped once the index is stored, so
the operating system caches the parts in use. The candidates are scored with them. Searches with
``allowed`` ids, and for more neighbours than FAISS can find, compare them all by brute force.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann.byte_codes import ByteCodes
from index.ann.reading import read_index, valid_lists
from index.ann.scan import best_of, exact_rows
from index.ann.vector_files import (
    IDS_FILE,
    VECTORS_FILE,
    ScatteredRows,
    ascending,
    link_or_copy,
    mapped_files,
)
from index.contract import Ids, IdsLike, IndexFileError, Neighbours, Vectors
from index.vectors import SPARE, as_allowed, as_ids, as_vectors, check_k, rows_of, rows_of_all

INDEX_FILE = "index.faiss"
ORDER_FILE = "places.npy"
# Beyond this many candidates a full scan is about as fast as scoring them, and exact.
_MAX_CANDIDATES = 4096


@dataclass(frozen=True)
class IndexParts:
    """A trained FAISS ``index`` and the vectors that it indexes.

    ``ids`` int64 (n,) ascend, ``xb`` float32 (n, d) holds their vectors; both may be memory-mapped
    from files in ``folder``. FAISS returns rows of ``xb`` or, if the integer array ``order`` (n,)
    is given, i for the row ``order[i]``. ``scattered`` reads isolated rows of ``xb``; None
    if it is in memory.
    """

    index: Any
    ids: Ids
    xb: Vectors
    order: NDArray[np.integer] | None = None
    folder: Path | None = None
    scattered: ScatteredRows | None = None

    @cached_property
    def finder(self) -> "Finder":
        """What searches the index."""
        return Finder(self.index)


class ApproximateIndex:
    """An immutable FAISS index over stored vectors; implements `index.contract.Searchable`.

    With ``allowed``, and for a large ``k``, the search is exact.
    """

    def __init__(
        self,
        kind: str,
        parts: IndexParts,
        parameters: Mapping[str, Any],
        recall: Mapping[str, float] | None,
    ) -> None:
        """Assemble an index; see `index.ann.kinds.build_collected`.

        Args:
            kind: its name, for example ``ivf``.
            parts: the index and its vectors.
            parameters: ``effort``, which is efSearch or nprobe; ``rescored``, the number of
                candidates as a multiple of ``k``, and ``spare``, how many more than ``k`` they are
                at least; ``factory``, FAISS's factory string; ``mapped``, whether FAISS's codes
                are memory-mapped too.
            recall: measured when it was built; see `index.contract.Manifest`.
        """
        self._kind = kind
        self._parts = parts
        self.parameters = dict(parameters)
        self.recall = None if recall is None else dict(recall)

    @property
    def dimension(self) -> int:
        return int(self._parts.index.d)

    @property
    def kind(self) -> str:
        return self._kind

    def count(self) -> int:
        return len(self._parts.ids)

    def ids(self) -> Ids:
        return self._parts.ids.copy()

    def has(self, ids: IdsLike) -> NDArray[np.bool_]:
        return rows_of(self._parts.ids, as_ids(ids))[1]

    def vectors(self, ids: IdsLike) -> Vectors:
        return np.array(self._parts.xb[rows_of_all(self._parts.ids, ids)], np.float32)

    def search(self, xq: Vectors, k: int, allowed: IdsLike | None = None) -> Neighbours:
        xq = as_vectors(xq, self.dimension, "xq")
        k = check_k(k)
        if allowed is not None:
            rows, stored = rows_of(self._parts.ids, as_allowed(allowed))
            return self._exact(xq, k, rows[stored])
        fetch = fetched(k, self.parameters["rescored"], self.parameters.get("spare", SPARE))
        if 2 * k > _MAX_CANDIDATES or fetch >= self.count() or not len(xq):
            return self._exact(xq, k, None)
        rows = candidates(self._parts, xq, fetch, self.parameters["effort"])
        if (rows[:, min(k, self.count()) - 1] < 0).any():
            # The probed lists hold fewer than k vectors.
            return self._exact(xq, k, None)
        if self._parts.scattered is not None:
            return self._parts.scattered.best_of(self._parts.ids, xq, k, rows)
        return best_of(self._parts.ids, self._parts.xb, xq, k, rows)

    def exact(self, xq: Vectors, k: int) -> Neighbours:
        """Find the ``k`` nearest to each query by brute force."""
        return self._exact(as_vectors(xq, self.dimension, "xq"), check_k(k), None)

    def _exact(self, xq: Vectors, k: int, rows: Ids | None) -> Neighbours:
        ids, xb = self._parts.ids, self._parts.xb
        return best_of(ids, xb, xq, k, exact_rows(xb, xq, k, rows))

    def save(self, folder: Path) -> tuple[str, ...]:
        """Write all files into the folder; return their names.

        Files that the index is already mapped from are hard-linked, or else copied. Raises
        IndexFileError if they are gone.
        """
        parts = self._parts
        names = [INDEX_FILE, IDS_FILE, VECTORS_FILE]
        if parts.order is not None:
            names.append(ORDER_FILE)
        if parts.folder is None or not (parts.folder / INDEX_FILE).exists():
            self._write(folder)
        elif parts.folder.resolve() != folder.resolve():
            for name in names:
                link_or_copy(parts.folder / name, folder / name)
        return tuple(names)

    def _write(self, folder: Path) -> None:
        parts = self._parts
        lists = getattr(inner(parts.index), "invlists", None)
        library: Any = faiss
        if lists is not None and isinstance(
            library.downcast_InvertedLists(lists), faiss.OnDiskInvertedLists
        ):
            raise IndexFileError(
                f"{parts.folder}: is gone, but the index is mapped from it; rebuild the index"
            )
        faiss.write_index(parts.index, str(folder / INDEX_FILE))
        if parts.order is not None:
            np.save(folder / ORDER_FILE, parts.order)
        if parts.folder is None or parts.folder.resolve() != folder.resolve():
            np.save(folder / IDS_FILE, parts.ids)
            np.save(folder / VECTORS_FILE, parts.xb)

    @classmethod
    def load(
        cls,
        folder: Path,
        kind: str,
        parameters: Mapping[str, Any],
        recall: Mapping[str, float] | None,
    ) -> "ApproximateIndex":
        """Read what ``save`` wrote; ids and vectors are memory-mapped, codes if ``mapped`` is set.

        Raises IndexFileError if a file is missing or does not match the others.
        """
        try:
            flags = faiss.IO_FLAG_MMAP if parameters.get("mapped") else 0
            index: Any = read_index(folder / INDEX_FILE, flags)
            ids, xb = mapped_files(folder)
            scattered = ScatteredRows(folder)
            order = None
            if (folder / ORDER_FILE).exists():
                # No pickles: an untrusted file must not run code.
                order = np.load(folder / ORDER_FILE, allow_pickle=False)
        except (RuntimeError, OSError, ValueError, EOFError, MemoryError) as error:
            raise IndexFileError(f"{folder}: cannot be read: {error}; rebuild the index") from error
        if (
            xb.shape != (index.ntotal, index.d)
            or xb.dtype != np.float32
            or ids.shape != (index.ntotal,)
            or ids.dtype != np.int64
            or not ascending(ids)
            or not _valid_order(index, order)
        ):
            shape = None if order is None else order.shape
            raise IndexFileError(
                f"{folder}: has vectors {xb.dtype} {xb.shape}, ids {ids.dtype} {ids.shape}, order "
                f"{shape} and an index of {index.ntotal} vectors of {index.d}; expected files that "
                "match; rebuild the index"
            )
        _disable_prefetch_threads(index)
        return cls(kind, IndexParts(index, ids, xb, order, folder, scattered), parameters, recall)


def _valid_order(index: Any, order: NDArray[np.integer] | None) -> bool:
    if order is None:
        return isinstance(inner(index), faiss.IndexIVF) and valid_lists(inner(index))
    if not isinstance(inner(index), faiss.IndexHNSW):
        return False
    return order.dtype.kind == "i" and np.array_equal(np.sort(order), np.arange(index.ntotal))


def _disable_prefetch_threads(index: Any) -> None:
    """Stop FAISS from starting 32 threads per search to prefetch what the system reads anyway."""
    found = inner(index)
    if isinstance(found, faiss.IndexIVF):
        library: Any = faiss
        lists = library.downcast_InvertedLists(found.invlists)
        if isinstance(lists, faiss.OnDiskInvertedLists):
            lists.prefetch_nthread = 0


def inner(index: Any) -> Any:
    """The IVF or HNSW index behind a rotation or a dimensionality reduction, if there is one."""
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.downcast_index(index.index)
    return index


def fetched(k: int, rescored: int, spare: int) -> int:
    """How many candidates are scored exactly to find ``k``."""
    return max(min(rescored * k, _MAX_CANDIDATES), k + max(spare, k // 4))


def candidates(parts: IndexParts, xq: Vectors, fetch: int, effort: int) -> Ids:
    """Rows (nq, fetch) near each query, padded with -1."""
    found = parts.finder.find(xq, fetch, effort)
    if parts.order is None:
        return found
    rows = parts.order.take(found, mode="clip").astype(np.int64)
    if found.min(initial=0) < 0:
        rows[found < 0] = -1
    return rows


class Finder:
    """Searches a FAISS index for candidates.

    It keeps what would take longer to make for each query than FAISS needs to answer it.
    """

    def __init__(self, index: Any) -> None:
        """Prepare to search ``index``, which must not be replaced afterwards."""
        self._index = index
        self._inner = inner(index)
        self._graph = isinstance(self._inner, faiss.IndexHNSW)
        self._codes = ByteCodes.of(index)
        self._as_it_is = _only_pads(index)
        self._options: dict[int, Any] = {}

    def find(self, xq: Vectors, fetch: int, effort: int) -> Ids:
        """FAISS's numbers (nq, fetch) of what is near each of ``xq`` float32 (nq, d)."""
        # With ef < k, FAISS would return fewer than k.
        options = self._prepared(max(effort, fetch) if self._graph else effort)
        # Where FAISS only pads or scales the vectors, that is done faster here.
        if self._codes is not None:
            found: Ids = self._inner.search(self._codes.encode(xq), fetch, params=options)[1]
        elif self._as_it_is:
            found = self._inner.search(_padded(xq, self._inner.d), fetch, params=options)[1]
        else:
            found = self._index.search(xq, fetch, params=options)[1]
        return found

    def _prepared(self, effort: int) -> Any:
        options = self._options.get(effort)
        if options is not None:
            return options
        library: Any = faiss
        if self._graph:
            options = library.SearchParametersHNSW(efSearch=effort)
        else:
            options = library.SearchParametersIVF(nprobe=effort)
        if not self._as_it_is and self._codes is None:
            options = library.SearchParametersPreTransform(index_params=options)
        self._options[effort] = options
        return options


def _padded(xq: Vectors, width: int) -> Vectors:
    if xq.shape[1] == width:
        return xq
    padded = np.zeros((len(xq), width), np.float32)
    padded[:, : xq.shape[1]] = xq
    return padded


def _only_pads(index: Any) -> bool:
    """Whether vectors reach the inner index as they are, with zeros after them at most."""
    if not isinstance(index, faiss.IndexPreTransform):
        return True
    chain: Any = index.chain
    first = faiss.downcast_VectorTransform(chain.at(0))
    return chain.size() == 1 and isinstance(first, faiss.RemapDimensionsTransform)
