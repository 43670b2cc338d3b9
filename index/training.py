"""Training FAISS on a sample, adding piece by piece, and setting the effort of a search.

Nothing here holds all vectors: they are read from ``xb``, which may be mapped from the disk, by
row or in pieces. What grows in memory is FAISS's own codes, and the graph where there is one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.approximate import ApproximateIndex, Parts, candidates, inner
from index.building import PIECE
from index.neighbours import Ids, IndexInputError, Vectors, rows_of
from index.scan import SPARE, best_of, exact_rows

RECALL_K = 10
"""Neighbours asked for when the recall is measured."""

_HELD_OUT = 256
_TRAINING_PER_LIST = 64
# 1-bit codes take directions of like variance, and there is room for so many: 16 bytes of signs,
# 8 of correction factors, 8 of FAISS's id are 32 bytes of memory a vector.
_CODED = 128
_SHARES_OF_K: dict[str, tuple[int, ...]] = {
    "ivf": (2,),
    "hnsw": (2,),
    "rabitq": (5, 10, 20, 40, 80, 160),
}
_ANY_SHARE = (2, 5, 10, 20, 40, 80)
# FAISS's own 40 left graphs of 60,000 embeddings in which a hundredth of the nearest could not be
# reached by any effort; 160 takes 2.5 times as long and leaves none.
_EF_CONSTRUCTION = 160
# Reading a vector and scoring it exactly takes about as long as looking at so many codes.
_VECTOR_COST = 20
_NODE_COST = 32


def factory_of(kind: str, count: int, dimension: int) -> str:
    """FAISS's description of a kind for so many vectors; any other kind is one itself."""
    lists = max(1, min(int(2 * count**0.5), count // 39))
    rotation = (
        f"PCAR{_CODED}" if dimension > _CODED and count >= 8 * dimension else f"RR{dimension}"
    )
    return {
        "ivf": f"IVF{lists},SQ8",
        "hnsw": "HNSW32_SQ8",
        "rabitq": f"{rotation},IVF{lists},RaBitQ",
    }.get(kind, kind)


def create(factory: str, dimension: int, expected: str) -> Any:
    """An empty FAISS index.

    Raises IndexInputError for a string that FAISS does not know, or an index that is neither IVF
    nor HNSW; ``expected`` names what else could have been asked for.
    """
    # A reduction of dimensions keeps distances and not inner products; of vectors of length 1
    # both give one order.
    reduced = not factory.startswith(("IVF", "HNSW"))
    metric = faiss.METRIC_L2 if reduced else faiss.METRIC_INNER_PRODUCT
    try:
        index: Any = faiss.index_factory(dimension, factory, metric)
    except RuntimeError as error:
        raise IndexInputError(
            f"kind is {factory!r}; expected one of {expected} or a FAISS factory string"
        ) from error
    if not isinstance(inner(index), faiss.IndexIVF | faiss.IndexHNSW):
        raise IndexInputError(
            f"kind is {factory!r}, a {type(inner(index)).__name__}; expected an IVF or HNSW index"
        )
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
    """Fill an empty FAISS ``index`` with ``xb`` float32 (n, d) under ids int64 (n,) ascending.

    It is set to the least effort that finds the share ``target`` of the true nearest of held-out
    queries, which are not in the index while this is measured. ``folder`` is where ids and vectors
    are mapped from, if they are.

    Raises IndexInputError where FAISS cannot build it from so few vectors.
    """
    count = len(ids)
    graph = isinstance(inner(index), faiss.IndexHNSW)
    most = _TRAINING_PER_LIST * max(256, 0 if graph else inner(index).nlist)
    held_out = min(_HELD_OUT, count // 20)
    sample = np.random.default_rng(0).choice(count, min(count, most + held_out), replace=False)
    held = np.sort(sample[:held_out])
    places: NDArray[np.integer] | None = None
    if graph:
        # FAISS's graphs number their rows in the order of adding.
        order = np.concatenate((np.setdiff1d(np.arange(count), held), held))
        places = order.astype(np.int32 if count < 2**31 else np.int64)
    parts = Parts(index, ids, xb, places, folder)
    try:
        index.train(xb if count <= most else xb[np.sort(sample[held_out:])])
        _add_all_but(parts, held)
        effort, rescored, recall = measured(parts, held, kind, target)
        _add(parts, held)
    except RuntimeError as error:
        raise IndexInputError(
            f"FAISS cannot build {factory!r} over {count} vectors: {error}; use another kind"
        ) from error
    parameters = {
        "factory": factory,
        "effort": effort,
        "rescored": rescored,
        "mapped": kind == "rabitq",
    }
    return ApproximateIndex(kind, parts, parameters, recall)


def _add_all_but(parts: Parts, held: Ids) -> None:
    for start in range(0, len(parts.ids), PIECE):
        rows = np.arange(start, min(start + PIECE, len(parts.ids)))
        _add(parts, rows[~np.isin(rows, held, assume_unique=True)])


def _add(parts: Parts, rows: Ids) -> None:
    if not len(rows):
        return
    piece = np.ascontiguousarray(parts.xb[rows])
    if parts.places is None:
        parts.index.add_with_ids(piece, rows)
    else:
        parts.index.add(piece)


def measured(
    parts: Parts, held: Ids, kind: str, target: float
) -> tuple[int, int, dict[str, float] | None]:
    """The effort and the share of ``k`` to score again that reach the target at the least cost.

    ``held`` are the rows of the queries, ascending. Returns both with the recall that they give;
    the most of both, where nothing reaches the target.
    """
    inside = parts.index.ntotal
    k = min(RECALL_K, inside)
    graph = isinstance(inner(parts.index), faiss.IndexHNSW)
    most = 4096 if graph else inner(parts.index).nlist
    shares = _SHARES_OF_K.get(kind, _ANY_SHARE)
    if not len(held) or not k:
        return most, shares[-1], None
    queries = np.array(parts.xb[held])
    others = np.setdiff1d(np.arange(len(parts.ids)), held, assume_unique=True)
    truth = best_of(parts.ids, parts.xb, queries, k, exact_rows(parts.xb, queries, k, others)).ids
    true_rows, _ = rows_of(parts.ids, truth)
    fetches = [min(max(share * k, k + SPARE), inside) for share in shares]
    code_cost = _NODE_COST if graph else inside / most
    best: tuple[float, int, int, float] | None = None
    effort = min(16, most)
    while True:
        values = _recalls(parts, queries, true_rows, fetches, effort, graph)
        for share, fetch, value in zip(shares, fetches, values, strict=True):
            cost = effort * code_cost + _VECTOR_COST * fetch
            # So few queries tell the recall roughly: the misses must be half of what is allowed.
            good = 1 - value <= (1 - target) / 2
            if good and (best is None or cost < best[0]):
                best = (cost, effort, share, value)
        if effort >= most or (best is not None and effort * code_cost >= best[0]):
            break
        effort = min(most, effort + max(effort // 2, 1))
    if best is None:
        best = (0.0, effort, shares[-1], values[-1])
    _, effort, share, value = best
    return effort, share, {"k": k, "value": round(value, 6), "queries": len(queries)}


def _recalls(
    parts: Parts,
    queries: Vectors,
    true_rows: Ids,
    fetches: Sequence[int],
    effort: int,
    graph: bool,
) -> list[float]:
    """The recall by the number of candidates, each of which ascends."""
    if graph:  # it finds other candidates when it is asked for more
        found = [candidates(parts, queries, fetch, effort) for fetch in fetches]
    else:
        all_found = candidates(parts, queries, fetches[-1], effort)
        found = [all_found[:, :fetch] for fetch in fetches]
    return [
        float(np.mean([np.isin(t, f).mean() for t, f in zip(true_rows, rows, strict=True)]))
        for rows in found
    ]
