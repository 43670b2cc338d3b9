"""Approximate indexes: FAISS finds candidates, and their scores are computed exactly.

Beside the FAISS index lie the vectors themselves, mapped from the disk once the index is stored:
the system keeps in memory what of them is used, as there is room. They score the candidates, they
answer searches under a filter exactly, and searches for more neighbours than the index is good for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.building import (
    IDS_FILE,
    VECTORS_FILE,
    ascending,
    link_or_copy,
    mapped_files,
    scattered_vectors,
)
from index.local import IndexFileError
from index.neighbours import (
    Ids,
    IdsLike,
    Neighbours,
    UnknownIdError,
    Vectors,
    as_allowed,
    as_ids,
    as_vectors,
    check_k,
    rows_of,
)
from index.scan import SPARE, best_of, exact_rows

INDEX_FILE = "index.faiss"
PLACES_FILE = "places.npy"
# For more candidates than this a scan of everything is about as fast, and exact.
_MOST = 4096


@dataclass(frozen=True)
class Parts:
    """A trained FAISS ``index``, and what its rows are.

    ``ids`` int64 (n,) ascend, ``xb`` float32 (n, d) stands in their order; both may be mapped from
    the disk, from files in ``folder``. FAISS answers with rows of ``xb`` or, where there is
    ``places``, an integer array (n,), with i for the row ``places[i]``. ``scattered`` is ``xb``
    once more, for reading rows that lie apart; None where ``xb`` is in memory.
    """

    index: Any
    ids: Ids
    xb: Vectors
    places: NDArray[np.integer] | None = None
    folder: Path | None = None
    scattered: Vectors | None = None


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
                whether FAISS's codes stay on the disk too.
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

    def has(self, ids: IdsLike) -> NDArray[np.bool_]:
        """Which of these ids are stored, bool (n,)."""
        return rows_of(self._parts.ids, as_ids(ids))[1]

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
        fetch = max(min(self.parameters["rescored"] * k, _MOST), k + SPARE)
        if 2 * k > _MOST or fetch >= self.count() or not len(xq):
            return self._exact(xq, k, None)
        rows = candidates(self._parts, xq, fetch, self.parameters["effort"])
        if (rows[:, min(k, self.count()) - 1] < 0).any():
            # The lists that were looked at hold too few.
            return self._exact(xq, k, None)
        xb = self._parts.xb if self._parts.scattered is None else self._parts.scattered
        return best_of(self._parts.ids, xb, xq, k, rows)

    def exact(self, xq: Vectors, k: int) -> Neighbours:
        """Brute force over everything."""
        return self._exact(as_vectors(xq, self.dimension, "xq"), check_k(k), None)

    def _exact(self, xq: Vectors, k: int, rows: Ids | None) -> Neighbours:
        ids, xb = self._parts.ids, self._parts.xb
        return best_of(ids, xb, xq, k, exact_rows(xb, xq, k, rows))

    def save(self, folder: Path) -> tuple[str, ...]:
        """Write all files into the folder; return their names.

        Those of an index that lies in files already get a second name there, or are copied. Raises
        IndexFileError if they are gone.
        """
        parts = self._parts
        names = [INDEX_FILE, IDS_FILE, VECTORS_FILE]
        if parts.places is not None:
            names.append(PLACES_FILE)
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
                f"{parts.folder}: is gone, and the index was mapped from it; rebuild the index"
            )
        faiss.write_index(parts.index, str(folder / INDEX_FILE))
        if parts.places is not None:
            np.save(folder / PLACES_FILE, parts.places)
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
        """Read what ``save`` wrote; ids and vectors are mapped from the disk.

        ``mapped`` among the parameters leaves FAISS's codes there too.

        Raises IndexFileError if a file is missing or does not fit to the others.
        """
        try:
            flags = faiss.IO_FLAG_MMAP if parameters.get("mapped") else 0
            index: Any = faiss.read_index(str(folder / INDEX_FILE), flags)
            ids, xb = mapped_files(folder)
            scattered = scattered_vectors(folder)
            places = None
            if (folder / PLACES_FILE).exists():
                # No pickles: a stranger's file cannot run code.
                places = np.load(folder / PLACES_FILE, allow_pickle=False)
        except (RuntimeError, OSError, ValueError, EOFError, MemoryError) as error:
            raise IndexFileError(f"{folder}: cannot be read: {error}; rebuild the index") from error
        if (
            xb.shape != (index.ntotal, index.d)
            or xb.dtype != np.float32
            or ids.shape != (index.ntotal,)
            or ids.dtype != np.int64
            or not ascending(ids)
            or not _fit(index, places)
        ):
            shape = None if places is None else places.shape
            raise IndexFileError(
                f"{folder}: has vectors {xb.dtype} {xb.shape} and an index of {index.ntotal} of "
                f"{index.d}, with ids {ids.dtype} {ids.shape} and places {shape}; expected them to "
                "fit together; rebuild the index"
            )
        _no_threads_for_reading(index)
        return cls(kind, Parts(index, ids, xb, places, folder, scattered), parameters, recall)


def _fit(index: Any, places: NDArray[np.integer] | None) -> bool:
    if places is None:
        return isinstance(inner(index), faiss.IndexIVF)
    return places.dtype.kind == "i" and np.array_equal(np.sort(places), np.arange(index.ntotal))


def _no_threads_for_reading(index: Any) -> None:
    """FAISS starts 32 threads for each search of mapped lists; the system reads ahead by itself."""
    found = inner(index)
    if isinstance(found, faiss.IndexIVF):
        library: Any = faiss
        lists = library.downcast_InvertedLists(found.invlists)
        if isinstance(lists, faiss.OnDiskInvertedLists):
            lists.prefetch_nthread = 0


def inner(index: Any) -> Any:
    """The IVF or HNSW index behind a rotation or a reduction of dimensions, if there is one."""
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.downcast_index(index.index)
    return index


def candidates(parts: Parts, xq: Vectors, fetch: int, effort: int) -> Ids:
    """Rows (nq, fetch) near each query, -1 where there are too few."""
    library: Any = faiss
    if isinstance(inner(parts.index), faiss.IndexHNSW):
        # Without ef >= k fewer would come back.
        options = library.SearchParametersHNSW(efSearch=max(effort, fetch))
    else:
        options = library.SearchParametersIVF(nprobe=effort)
    if isinstance(parts.index, faiss.IndexPreTransform):
        options = library.SearchParametersPreTransform(index_params=options)
    _, found = parts.index.search(xq, fetch, params=options)
    if parts.places is None:
        return np.asarray(found, np.int64)
    return np.where(found >= 0, parts.places[found], -1).astype(np.int64)
