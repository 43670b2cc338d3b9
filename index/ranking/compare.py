"""How much the neighbours change when one set of embeddings replaces another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.ann.exact import ExactIndex
from index.contract import Ids, IndexInputError, Vectors

_AT_ONCE = 64


@dataclass(frozen=True)
class Difference:
    """The ``k`` nearest of ``queries`` stored pictures, excluding themselves, compared.

    ``overlap``: mean share of neighbours kept. ``unchanged``: share of queries that keep all, in
    any order. ``first_kept``: share of queries that keep the nearest. ``worst``: the ids of the at
    most ten queries that keep the fewest. ``label_before``, ``label_after``: share of neighbours
    with the query's label, over the queries that have one; None if none has.
    """

    queries: int
    k: int
    overlap: float
    unchanged: float
    first_kept: float
    worst: tuple[int, ...]
    label_before: float | None
    label_after: float | None


def compare(
    ids: Ids,
    before: Vectors,
    after: Vectors,
    labels: Sequence[str | None],
    queries: int = 500,
    k: int = 10,
    seed: int = 0,
) -> Difference:
    """Compare ``before`` (n, d) and ``after`` (n, e), two embeddings of the same ``ids`` (n,).

    At most ``queries`` of them are drawn at random, with ``seed``. ``labels`` are those of ``ids``.
    Raises IndexInputError for fewer than two pictures.
    """
    if len(ids) < 2:
        raise IndexInputError(f"{len(ids)} pictures have both embeddings; expected at least 2")
    k = min(k, len(ids) - 1)
    rows = np.sort(np.random.default_rng(seed).permutation(len(ids))[:queries])
    old, new = (_neighbours(ids, xb, rows, k) for xb in (before, after))
    kept = np.array([len(np.intersect1d(a, b)) / k for a, b in zip(old, new, strict=True)])
    label_of = dict(zip(ids.tolist(), labels, strict=True))
    order = np.argsort(kept, kind="stable")[:10]
    return Difference(
        queries=len(rows),
        k=k,
        overlap=float(kept.mean()),
        unchanged=float((kept == 1).mean()),
        first_kept=float((old[:, 0] == new[:, 0]).mean()),
        worst=tuple(int(i) for i in ids[rows][order]),
        label_before=_agreement(ids[rows], old, label_of),
        label_after=_agreement(ids[rows], new, label_of),
    )


def _neighbours(ids: Ids, xb: Vectors, rows: Ids, k: int) -> Ids:
    """The ids int64 (m, k) of the ``k`` nearest of each of these rows, excluding itself."""
    index = ExactIndex(xb.shape[1])
    index.add(ids, xb)
    found = np.empty((len(rows), k), np.int64)
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        answer = index.search(xb[part], k + 1).ids
        for i, row in enumerate(part):
            # A picture with exact copies may not be first, or not be found at all.
            found[start + i] = answer[i][answer[i] != ids[row]][:k]
    return found


def _agreement(queries: Ids, found: Ids, label_of: dict[int, str | None]) -> float | None:
    shares: list[float] = []
    for query, neighbours in zip(queries.tolist(), found.tolist(), strict=True):
        label = label_of[query]
        if label is not None:
            shares.append(sum(label_of[i] == label for i in neighbours) / len(neighbours))
    return float(np.mean(shares)) if shares else None
