"""Tuning a search to the least effort that reaches a recall on held-out queries."""

from collections.abc import Sequence

import faiss
import numpy as np

from index.ann.approximate import IndexParts, candidates, fetched, inner
from index.ann.scan import best_of, exact_rows
from index.contract import Ids, Vectors
from index.vectors import SPARE, rows_of

RECALL_K = 10
"""The number of neighbours at which recall is measured."""

_RESCORED: dict[str, tuple[int, ...]] = {
    "ivf": (1, 2),
    "hnsw": (1, 2),
    "rabitq": (5, 10, 20, 40, 80, 160),
}
_RESCORED_OTHERS = (2, 5, 10, 20, 40, 80)
# 8-bit codes seldom put one of the nearest after more than a few others.
_SPARE = {"ivf": 4, "hnsw": 6}
_FIRST_EFFORT = 6
# In units of scanning one code: reading and exactly scoring one vector, and visiting one node of a
# graph.
_VECTOR_COST = 20
# Of kinds for more vectors than fit into memory: a row on the disk takes some 10 microseconds, even
# if all are requested at once. In memory, more codes for fewer rows are no slower.
_DISK_VECTOR_COST = 200
_NODE_COST = 32


def spare_of(kind: str) -> int:
    """How many more candidates than neighbours are scored at least."""
    return _SPARE.get(kind, SPARE)


def tuned(
    parts: IndexParts, held_out: Ids, kind: str, target: float
) -> tuple[int, int, dict[str, float] | None]:
    """The cheapest effort and multiple of ``k`` to rescore that reach the ``target`` recall.

    ``held_out`` are the rows of the queries, ascending. Returns both with the recall reached; if
    the target is out of reach, the largest of both.
    """
    indexed = parts.index.ntotal
    k = min(RECALL_K, indexed)
    graph = isinstance(inner(parts.index), faiss.IndexHNSW)
    most = 4096 if graph else inner(parts.index).nlist
    multiples = _RESCORED.get(kind, _RESCORED_OTHERS)
    if not len(held_out) or not k:
        return most, multiples[-1], None
    queries = np.array(parts.xb[held_out])
    others = np.setdiff1d(np.arange(len(parts.ids)), held_out, assume_unique=True)
    truth = best_of(parts.ids, parts.xb, queries, k, exact_rows(parts.xb, queries, k, others)).ids
    true_rows, _ = rows_of(parts.ids, truth)
    fetches = [min(fetched(k, multiple, spare_of(kind)), indexed) for multiple in multiples]
    code_cost = _NODE_COST if graph else indexed / most
    vector_cost = _DISK_VECTOR_COST if kind == "rabitq" else _VECTOR_COST
    best: tuple[float, int, int, float] | None = None
    effort = min(_FIRST_EFFORT, most)
    while True:
        values = _recalls(parts, queries, true_rows, fetches, effort, graph)
        for multiple, fetch, value in zip(multiples, fetches, values, strict=True):
            cost = effort * code_cost + vector_cost * fetch
            # So few queries give a rough estimate only, so allow half the misses.
            good = 1 - value <= (1 - target) / 2
            if good and (best is None or cost < best[0]):
                best = (cost, effort, multiple, value)
        if effort >= most or (best is not None and effort * code_cost >= best[0]):
            break
        effort = min(most, effort + max(effort // 4, 1))
    if best is None:
        best = (0.0, effort, multiples[-1], values[-1])
    _, effort, multiple, value = best
    return effort, multiple, {"k": k, "value": round(value, 6), "queries": len(queries)}


def _recalls(
    parts: IndexParts,
    queries: Vectors,
    true_rows: Ids,
    fetches: Sequence[int],
    effort: int,
    graph: bool,
) -> list[float]:
    """The recall for each number of candidates; ``fetches`` ascend."""
    if graph:  # a graph's first candidates depend on how many are requested
        found = [candidates(parts, queries, fetch, effort) for fetch in fetches]
    else:
        all_found = candidates(parts, queries, fetches[-1], effort)
        found = [all_found[:, :fetch] for fetch in fetches]
    return [
        float(np.mean([np.isin(t, f).mean() for t, f in zip(true_rows, rows, strict=True)]))
        for rows in found
    ]
