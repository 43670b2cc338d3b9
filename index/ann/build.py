"""Training FAISS on a sample and adding vectors piece by piece.

The vectors are never all in memory: they are read from ``xb``, which may be memory-mapped, by row
or in pieces. Only FAISS's own codes, and the graph of an HNSW index, grow in memory.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann.approximate import ApproximateIndex, IndexParts, inner
from index.ann.byte_codes import ByteCodes, new_graph
from index.ann.factory import DIRECT, LEAST_LISTS, TRAINING_PER_LIST, padding, parse
from index.ann.tuning import spare_of, tuned
from index.ann.vector_files import PIECE
from index.contract import Ids, IndexInputError, Vectors

_QUERIES = 256
# 1-bit codes want directions of similar variance. With 128 of them a vector takes 32 bytes: 16 of
# signs, 8 of correction factors, 8 of FAISS's id.
_CODED = 128
# With FAISS's default of 40, one hundredth of the nearest among 60,000 embeddings could not be
# reached at any effort; 160 takes 2.5 times as long and leaves none.
_EF_CONSTRUCTION = 160


def factory_of(kind: str, count: int, dimension: int) -> str:
    """FAISS's factory string for ``count`` vectors; an unknown kind is itself one."""
    lists = max(1, min(int(2 * count**0.5), count // 39))
    rotation = (
        f"PCAR{_CODED}" if dimension > _CODED and count >= 8 * dimension else f"RR{dimension}"
    )
    return {
        "ivf": f"IVF{lists},SQ8",
        "hnsw": f"HNSW16,{DIRECT}",
        "rabitq": f"{rotation},IVF{lists},RaBitQ",
    }.get(kind, kind)


def create(factory: str, dimension: int) -> Any:
    """An empty FAISS index of vectors of ``dimension``, which it pads with zeros itself.

    Raises IndexInputError as `index.ann.factory.parse` does, and for a string that FAISS does not
    know.
    """
    # Dimensionality reduction preserves distances, not inner products. Both rank unit vectors the
    # same way.
    parsed = parse(factory, dimension, None)
    reduced = not factory.startswith(("IVF", "HNSW"))
    metric = faiss.METRIC_L2 if reduced else faiss.METRIC_INNER_PRODUCT
    try:
        index: Any = (
            new_graph(parsed.links, dimension, parsed.indexed(dimension))
            if parsed.code == DIRECT
            else faiss.index_factory(dimension, padding(factory, dimension), metric)
        )
    except RuntimeError as error:
        raise IndexInputError(f"kind is {factory!r}, which FAISS refuses: {error}") from error
    if isinstance(inner(index), faiss.IndexHNSW):
        inner(index).hnsw.efConstruction = _EF_CONSTRUCTION
    return index


def train(
    ids: Ids,
    xb: Vectors,
    index: Any,
    kind: str,
    factory: str,
    target: float,
    folder: Path | None = None,
) -> ApproximateIndex:
    """Fill an empty FAISS ``index`` with ``xb`` float32 (n, d) under ascending ids int64 (n,).

    It is tuned to the least effort that finds the share ``target`` of the true nearest of held-out
    queries, which are added only afterwards. ``folder`` is where ids and vectors are mapped from,
    if they are.

    Raises IndexInputError if FAISS cannot build it from so few vectors.
    """
    count = len(ids)
    graph = isinstance(inner(index), faiss.IndexHNSW)
    most = TRAINING_PER_LIST * max(LEAST_LISTS, 0 if graph else inner(index).nlist)
    queries = min(_QUERIES, count // 20)
    sample = np.random.default_rng(0).choice(count, min(count, most + queries), replace=False)
    held_out = np.sort(sample[:queries])
    order: NDArray[np.integer] | None = None
    if graph:
        # FAISS's graphs number vectors in the order of adding.
        added = np.concatenate((np.setdiff1d(np.arange(count), held_out), held_out))
        order = added.astype(np.int32 if count < 2**31 else np.int64)
    parts = IndexParts(index, ids, xb, order, folder)
    try:
        if parse(factory, xb.shape[1], None).code == DIRECT:
            ByteCodes.fitted(xb, inner(index).d).put_into(index)
        else:
            index.train(xb if count <= most else xb[np.sort(sample[queries:])])
        _add_all_but(parts, held_out)
        effort, rescored, recall = tuned(parts, held_out, kind, target)
        _add(parts, held_out)
        if graph:
            parts = _near_together(parts)
    except RuntimeError as error:
        raise IndexInputError(
            f"FAISS cannot build {factory!r} over {count} vectors: {error}; use another kind"
        ) from error
    parameters = {
        "factory": factory,
        "effort": effort,
        "rescored": rescored,
        "spare": spare_of(kind),
        "mapped": kind == "rabitq",
    }
    return ApproximateIndex(kind, parts, parameters, recall)


def _near_together(parts: IndexParts) -> IndexParts:
    """The same with the graph's nodes in the order of a walk from its entry.

    What is visited one after the other then lies closer together in memory: a search takes a tenth
    less time.
    """
    graph = inner(parts.index).hnsw
    first = faiss.vector_to_array(graph.offsets)[:-1].astype(np.int64)
    links = faiss.vector_to_array(graph.neighbors)
    nearest = np.arange(graph.nb_neighbors(0))
    visited = np.zeros(len(first), bool)
    level = np.array([graph.entry_point])
    walk = []
    while len(level):
        visited[level] = True
        walk.append(level)
        reached = links[first[level][:, None] + nearest].ravel()
        reached = reached[reached >= 0]
        reached = reached[~visited[reached]]
        level = reached[np.sort(np.unique(reached, return_index=True)[1])]
    walk.append(np.flatnonzero(~visited))
    permutation = np.concatenate(walk)
    inner(parts.index).permute_entries(permutation)
    order = permutation if parts.order is None else parts.order[permutation]
    return replace(parts, order=order)


def _add_all_but(parts: IndexParts, held_out: Ids) -> None:
    for start in range(0, len(parts.ids), PIECE):
        rows = np.arange(start, min(start + PIECE, len(parts.ids)))
        _add(parts, rows[~np.isin(rows, held_out, assume_unique=True)])


def _add(parts: IndexParts, rows: Ids) -> None:
    if not len(rows):
        return
    piece = np.ascontiguousarray(parts.xb[rows])
    if parts.order is None:
        parts.index.add_with_ids(piece, rows)
    else:
        parts.index.add(piece)
