"""Approximate indexes: FAISS finds candidates, and their scores are computed exactly.

Beside the FAISS index lie the vectors themselves, in memory or mapped from the disk. They score
the candidates, they answer searches under a filter exactly, and searches for more neighbours than
the index is good for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.local import IndexFileError
from index.neighbours import (
    Ids,
    IdsLike,
    Neighbours,
    UnknownIdError,
    Vectors,
    as_allowed,
    as_ids,
    as_new_ids,
    as_vectors,
    check_k,
    rows_of,
)
from index.scan import SPARE, best_of, exact_rows

INDEX_FILE = "index.faiss"
IDS_FILE = "ids.npy"
PLACES_FILE = "places.npy"
VECTORS_FILE = "vectors.npy"
# For more candidates than this a scan of everything is about as fast, and exact.
_MOST = 4096


@dataclass(frozen=True)
class Parts:
    """A trained FAISS ``index``, and what its rows are.

    ``ids`` int64 (n,) ascend, ``xb`` float32 (n, d) stands in their order and may be mapped from
    the disk; FAISS's row i is the vector at ``places[i]``, an integer array (n,).
    """

    index: Any
    ids: Ids
    xb: Vectors
    places: NDArray[np.integer]


class ApproximateIndex:
    """A FAISS index over stored vectors; keeps the `Searchable` contract, and never changes.

    Under ``allowed``, and for ``k`` beyond what the index is good for, the answer is exact.
    """

    def __init__(
        self,
        kind: str,
        parts: Parts,
        parameters: Mapping[str, Any],
        recall: Mapping[str, float] | None,
    ) -> None:
        """Put together what `index.kinds.build` has made.

        Args:
            kind: its name, for example ``ivf``.
            parts: the index and its vectors.
            parameters: ``effort``, which is efSearch or nprobe; ``rescored``, how many times
                ``k`` candidates are looked at; ``factory``, FAISS's description; ``mapped``,
                whether vectors stay on the disk.
            recall: what was measured.
        """
        self._kind = kind
        self._parts = parts
        self.parameters = dict(parameters)
        self.recall = None if recall is None else dict(recall)

    @property
    def dimension(self) -> int:
        """The length d of every vector."""
        return int(self._parts.index.d)

    @property
    def kind(self) -> str:
        """What it is made of, for example ``"hnsw"``."""
        return self._kind

    def count(self) -> int:
        """The number of stored vectors."""
        return len(self._parts.ids)

    def ids(self) -> Ids:
        """All stored ids, int64 (n,), ascending; a copy."""
        return self._parts.ids.copy()

    def vectors(self, ids: IdsLike) -> Vectors:
        """Return a copy of the vectors, float32 (n, d), in the order given."""
        wanted = as_ids(ids)
        rows, stored = rows_of(self._parts.ids, wanted)
        if not stored.all():
            raise UnknownIdError(wanted[~stored].tolist(), "the index")
        return np.array(self._parts.xb[rows], np.float32)

    def search(self, xq: Vectors, k: int, allowed: IdsLike | None = None) -> Neighbours:
        """Find the ``k`` nearest to each query; see `Searchable.search`."""
        xq = as_vectors(xq, self.dimension, "xq")
        k = check_k(k)
        if allowed is not None:
            rows, stored = rows_of(self._parts.ids, as_allowed(allowed))
            return self._exact(xq, k, rows[stored])
        fetch = max(self.parameters["rescored"] * k, k + SPARE)
        if fetch > _MOST or fetch >= self.count() or not len(xq):
            return self._exact(xq, k, None)
        rows = candidates(self._parts, xq, fetch, self.parameters["effort"])
        if (rows[:, min(k, self.count()) - 1] < 0).any():
            # The lists that were looked at hold too few.
            return self._exact(xq, k, None)
        return best_of(self._parts.ids, self._parts.xb, xq, k, rows)

    def exact(self, xq: Vectors, k: int) -> Neighbours:
        """Brute force over everything."""
        return self._exact(as_vectors(xq, self.dimension, "xq"), check_k(k), None)

    def _exact(self, xq: Vectors, k: int, rows: Ids | None) -> Neighbours:
        ids, xb = self._parts.ids, self._parts.xb
        return best_of(ids, xb, xq, k, exact_rows(xb, xq, k, rows))

    def save(self, folder: Path) -> tuple[str, ...]:
        """Write all files into the folder; return their names."""
        faiss.write_index(self._parts.index, str(folder / INDEX_FILE))
        np.save(folder / IDS_FILE, self._parts.ids)
        np.save(folder / PLACES_FILE, self._parts.places)
        np.save(folder / VECTORS_FILE, self._parts.xb)
        return INDEX_FILE, IDS_FILE, PLACES_FILE, VECTORS_FILE

    @classmethod
    def load(
        cls,
        folder: Path,
        kind: str,
        parameters: Mapping[str, Any],
        recall: Mapping[str, float] | None,
    ) -> "ApproximateIndex":
        """Read what ``save`` wrote; ``mapped`` among the parameters leaves the vectors on disk.

        Raises IndexFileError if a file is missing or does not fit to the others.
        """
        mapped = bool(parameters.get("mapped"))
        try:
            flags = faiss.IO_FLAG_MMAP if mapped else 0
            index: Any = faiss.read_index(str(folder / INDEX_FILE), flags)
            # No pickles: a stranger's file cannot run code.
            ids = np.load(folder / IDS_FILE, allow_pickle=False)
            places = np.load(folder / PLACES_FILE, allow_pickle=False)
            xb = np.load(
                folder / VECTORS_FILE, mmap_mode="r" if mapped else None, allow_pickle=False
            )
            ids = as_new_ids(ids, index.ntotal)
        except (RuntimeError, OSError, ValueError, EOFError, MemoryError) as error:
            raise IndexFileError(f"{folder}: cannot be read: {error}; rebuild the index") from error
        if (
            xb.shape != (index.ntotal, index.d)
            or xb.dtype != np.float32
            or (np.diff(ids) <= 0).any()
            or places.dtype.kind != "i"
            or not np.array_equal(np.sort(places), np.arange(index.ntotal))
        ):
            raise IndexFileError(
                f"{folder}: has vectors {xb.dtype} {xb.shape} and an index of {index.ntotal} of "
                f"{index.d}, with ids and places {ids.shape} and {places.shape}; expected them to "
                "fit together; rebuild the index"
            )
        return cls(kind, Parts(index, ids, xb, places), parameters, recall)


def candidates(parts: Parts, xq: Vectors, fetch: int, effort: int) -> Ids:
    """Rows (nq, fetch) near each query, -1 where there are too few."""
    library: Any = faiss
    if isinstance(parts.index, faiss.IndexHNSW):
        # Without ef >= k fewer would come back.
        options = library.SearchParametersHNSW(efSearch=max(effort, fetch))
    else:
        options = library.SearchParametersIVF(nprobe=effort)
    _, found = parts.index.search(xq, fetch, params=options)
    return np.where(found >= 0, parts.places[found], -1).astype(np.int64)
