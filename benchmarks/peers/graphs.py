"""Other libraries' graphs behind one interface, for `benchmarks.million`.

    pip install hnswlib usearch rabitqlib

Each is built from pieces of float32 vectors of length 1, saved, and loaded by another process that
searches it. Names: ``hnswlib-M``; ``usearch-TYPE``, the type in which it keeps vectors (M = 16);
``rabitqlib-BITS`` a dimension (HNSW-RaBitQ, M = 16, 16 clusters as in its documentation);
``faiss:FACTORY``, with FAISS's metric L2, which ranks unit vectors as the inner product does and is
the only one that its RaBitQ graphs take. All are built with efConstruction = 200.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

EF_CONSTRUCTION = 200
_M = 16
_CLUSTERS = 16
_TRAINED_ON = 65_536
_REFINED = 4
"""Candidates, as a multiple of k, that FAISS scores again where the factory string says so."""

Pieces = Iterable[tuple[np.ndarray, np.ndarray]]
"""Ids int64 (m,), counted from zero, and vectors float32 (m, d)."""


class Graph(Protocol):
    """A library's index; what is not set has the library's default."""

    def build(self, pieces: Pieces, count: int, threads: int) -> None:
        """Add ``count`` vectors."""

    def save(self, folder: Path) -> None:
        """Write it into the folder."""

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""

    def set(self, ef: int, threads: int) -> None:
        """Search with this effort and this many threads."""

    def search(self, xq: np.ndarray, k: int) -> np.ndarray:
        """The ids (nq, k) nearest to ``xq`` float32 (nq, d)."""


def graph(name: str, dimension: int) -> Graph:
    """The index of this name; raises ImportError if its library is not installed."""
    if name.startswith("faiss:"):
        return _Faiss(dimension, name.removeprefix("faiss:"))
    library, _, detail = name.partition("-")
    makers: dict[str, Any] = {"hnswlib": _Hnswlib, "usearch": _Usearch, "rabitqlib": _Rabitqlib}
    made: Graph = makers[library](dimension, detail)
    return made


def is_peer(name: str) -> bool:
    """Whether `graph` knows it."""
    return name.startswith(("hnswlib-", "usearch-", "rabitqlib-", "faiss:"))


class _Hnswlib:
    def __init__(self, dimension: int, detail: str) -> None:
        import hnswlib

        self._m = int(detail)
        self._index = hnswlib.Index(space="ip", dim=dimension)

    def build(self, pieces: Pieces, count: int, threads: int) -> None:
        self._index.init_index(max_elements=count, ef_construction=EF_CONSTRUCTION, M=self._m)
        self._index.set_num_threads(threads)
        for ids, xb in pieces:
            self._index.add_items(xb, ids)

    def save(self, folder: Path) -> None:
        self._index.save_index(str(folder / "hnswlib.bin"))

    def load(self, folder: Path) -> None:
        self._index.load_index(str(folder / "hnswlib.bin"))

    def set(self, ef: int, threads: int) -> None:
        self._index.set_ef(ef)
        self._index.set_num_threads(threads)

    def search(self, xq: np.ndarray, k: int) -> np.ndarray:
        return np.asarray(self._index.knn_query(xq, k)[0])


class _Usearch:
    def __init__(self, dimension: int, detail: str) -> None:
        from usearch.index import Index

        # Its 8-bit integers belong to the cosine, which scales them.
        metric = "cos" if detail == "i8" else "ip"
        self._index = Index(
            ndim=dimension,
            metric=metric,
            dtype=detail,
            connectivity=_M,
            expansion_add=EF_CONSTRUCTION,
        )
        self._threads = 1

    def build(self, pieces: Pieces, count: int, threads: int) -> None:
        for ids, xb in pieces:
            self._index.add(ids, xb, threads=threads)

    def save(self, folder: Path) -> None:
        self._index.save(folder / "usearch.bin")

    def load(self, folder: Path) -> None:
        self._index.load(folder / "usearch.bin")

    def set(self, ef: int, threads: int) -> None:
        self._index.expansion_search = ef
        self._threads = threads

    def search(self, xq: np.ndarray, k: int) -> np.ndarray:
        found = self._index.search(xq, k, threads=self._threads)
        return np.asarray(found.keys).reshape(len(xq), -1).astype(np.int64)


class _Rabitqlib:
    def __init__(self, dimension: int, detail: str) -> None:
        import rabitqlib

        self._library = rabitqlib
        self._dimension, self._bits = dimension, int(detail)
        self._index: Any = None
        self._ef, self._threads = 10, 1

    def build(self, pieces: Pieces, count: int, threads: int) -> None:
        xb = np.empty((count, self._dimension), np.float32)
        for ids, part in pieces:
            xb[ids] = part
        clusters = self._library.RaBitQKMeans(self._dimension, _CLUSTERS, num_threads=threads)
        clusters.train(xb)
        self._index = self._library.HnswIndex(
            self._dimension, count, _M, EF_CONSTRUCTION, self._bits, "l2"
        )
        self._index.build(xb, clusters.centroids, clusters.assignments, num_threads=threads)

    def save(self, folder: Path) -> None:
        self._index.save(str(folder / "rabitqlib.bin"))

    def load(self, folder: Path) -> None:
        self._index = self._library.HnswIndex.load(str(folder / "rabitqlib.bin"))

    def set(self, ef: int, threads: int) -> None:
        self._ef, self._threads = ef, threads

    def search(self, xq: np.ndarray, k: int) -> np.ndarray:
        found = self._index.search(xq, k, ef=self._ef, num_threads=self._threads)
        return np.asarray(found[0]).astype(np.int64)


class _Faiss:
    def __init__(self, dimension: int, detail: str) -> None:
        import faiss

        self._library: Any = faiss
        self._index = faiss.index_factory(dimension, detail, faiss.METRIC_L2)

    def build(self, pieces: Pieces, count: int, threads: int) -> None:
        self._library.omp_set_num_threads(threads)
        self._hnsw().efConstruction = EF_CONSTRUCTION
        waiting = []
        for _, xb in pieces:
            if self._index.is_trained:
                self._index.add(xb)
                continue
            waiting.append(xb)
            if sum(map(len, waiting)) >= min(_TRAINED_ON, count):
                self._index.train(np.concatenate(waiting))
                for held in waiting:
                    self._index.add(held)
                waiting.clear()

    def save(self, folder: Path) -> None:
        self._library.write_index(self._index, str(folder / "faiss.bin"))

    def load(self, folder: Path) -> None:
        self._index = self._library.read_index(str(folder / "faiss.bin"))

    def set(self, ef: int, threads: int) -> None:
        self._hnsw().efSearch = ef
        if hasattr(self._index, "k_factor"):
            self._index.k_factor = _REFINED
        self._library.omp_set_num_threads(threads)

    def search(self, xq: np.ndarray, k: int) -> np.ndarray:
        return np.asarray(self._index.search(xq, k)[1])

    def _hnsw(self) -> Any:
        found = self._index
        while not hasattr(found, "hnsw"):
            inside = found.base_index if hasattr(found, "base_index") else found.index
            found = self._library.downcast_index(inside)
        return found.hnsw
