"""Approximate indexes: FAISS finds candidates, and their scores are computed exactly.

Beside the FAISS index lie the vectors themselves, mapped from the disk once the index is stored:
the system keeps in memory what of them is used, as there is room. They score the candidates, they
answer searches under a filter exactly, and searches for more neighbours than the index is good for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.building import IDS_FILE, VECTORS_FILE, ascending, linked, mapped_files
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
    ``places``, an integer array (n,), with i for the row ``places[i]``.
    """

    index: Any
    ids: Ids
    xb: Vectors
    places: NDArray[np.integer] | None = None
    folder: Path | None = None


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
        """Write all files into the folder; return their names.

        Ids and vectors that lie in files already are not written again, where the disk allows two
        names for one file.
        """
        parts = self._parts
        writers: dict[str, Callable[[Path], object]] = {
            INDEX_FILE: lambda path: faiss.write_index(parts.index, str(path)),
            IDS_FILE: lambda path: np.save(path, parts.ids),
            VECTORS_FILE: lambda path: np.save(path, parts.xb),
        }
        places = parts.places
        if places is not None:
            writers[PLACES_FILE] = lambda path: np.save(path, places)
        for name, write in writers.items():
            path = folder / name
            if self._mapped_from(path) or (
                parts.folder is not None and linked(parts.folder / name, path)
            ):
                continue
            write(path)
        return tuple(writers)

    def _mapped_from(self, path: Path) -> bool:
        """Whether the index reads this very file, which must not be written then."""
        arrays = {IDS_FILE: self._parts.ids, VECTORS_FILE: self._parts.xb}
        base = getattr(arrays.get(path.name), "base", None)
        return isinstance(base, np.memmap) and Path(str(base.filename)) == path.resolve()

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
        return cls(kind, Parts(index, ids, xb, places, folder), parameters, recall)


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
