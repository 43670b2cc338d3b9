"""An immutable index combined with later additions and deletions, searched as one."""

import numpy as np
from numpy.typing import NDArray

from index.ann.exact import ExactIndex
from index.contract import (
    MAX_K,
    NO_ID,
    Ids,
    IdsLike,
    Neighbours,
    Scores,
    Searchable,
    UnknownIdError,
    Vectors,
)
from index.vectors import GROWTH, SPARE, as_allowed, as_ids, check_k


class Overlay:
    """``base`` without the ids in ``masked``, combined with ``delta``.

    Immutable; implements `index.contract.StoreIndex`. ``delta`` is small and searched exactly. An
    id whose vector has changed since the base was built is masked there and stored in the delta.
    """

    def __init__(self, base: Searchable, delta: ExactIndex, masked: Ids) -> None:
        self._base = base
        self._delta = delta
        masked = np.unique(masked)  # ascending
        self._masked = masked[base.has(masked)]

    @staticmethod
    def over(base: Searchable) -> "Overlay":
        """The base without changes."""
        return Overlay(base, ExactIndex(base.dimension), np.empty(0, np.int64))

    def changed(self, ids: Ids, xb: Vectors, deleted: Ids) -> "Overlay":
        """A new overlay in which ``ids`` have the vectors ``xb`` and ``deleted`` are removed."""
        if not len(ids) and not len(deleted):
            return self
        known = self._delta.ids()
        kept = np.setdiff1d(known, np.concatenate((ids, deleted)), assume_unique=False)
        delta = ExactIndex(self.dimension)
        if len(kept):
            delta.add(kept, self._delta.vectors(kept))
        if len(ids):
            delta.add(ids, xb)
        return Overlay(self._base, delta, np.concatenate((self._masked, ids, deleted)))

    @property
    def dimension(self) -> int:
        return self._base.dimension

    @property
    def kind(self) -> str:
        return self._base.kind

    @property
    def base(self) -> Searchable:
        """The immutable index."""
        return self._base

    @property
    def added(self) -> int:
        return self._delta.count()

    @property
    def masked(self) -> int:
        return len(self._masked)

    def count(self) -> int:
        return self._base.count() - len(self._masked) + self._delta.count()

    def ids(self) -> Ids:
        kept = np.setdiff1d(self._base.ids(), self._masked, assume_unique=True)
        return np.sort(np.concatenate((kept, self._delta.ids())))

    def all_ids(self) -> Ids:
        return self.ids()

    def has(self, ids: IdsLike) -> NDArray[np.bool_]:
        wanted = as_ids(ids)
        in_base = self._base.has(wanted) & ~np.isin(wanted, self._masked)
        return in_base | self._delta.has(wanted)

    def vectors(self, ids: IdsLike) -> Vectors:
        wanted = as_ids(ids)
        in_delta = np.isin(wanted, self._delta.ids())
        gone = ~in_delta & np.isin(wanted, self._masked)
        xb = np.empty((len(wanted), self.dimension), np.float32)
        try:
            xb[~in_delta & ~gone] = self._base.vectors(wanted[~in_delta & ~gone])
        except UnknownIdError as error:
            gone |= np.isin(wanted, np.asarray(error.ids, np.int64)) & ~in_delta
        if gone.any():
            raise UnknownIdError(wanted[gone].tolist(), "the index")
        xb[in_delta] = self._delta.vectors(wanted[in_delta])
        return xb

    def search(self, xq: Vectors, k: int, allowed: IdsLike | None = None) -> Neighbours:
        k = check_k(k)
        base = self._search_base(xq, k, allowed)
        if not self._delta.count():
            return base
        delta = self._delta.search(xq, k, allowed)
        return _best(np.hstack((base.scores, delta.scores)), np.hstack((base.ids, delta.ids)), k)

    def _search_base(self, xq: Vectors, k: int, allowed: IdsLike | None) -> Neighbours:
        if not len(self._masked):
            return self._base.search(xq, k, allowed)
        if allowed is not None:
            valid = np.setdiff1d(as_allowed(allowed), self._masked, assume_unique=True)
            return self._base.search(xq, k, valid)
        # Usually few of the nearest are masked; fetch more until enough remain.
        many = 2 * len(self._masked) > self._base.count()
        fetch = MAX_K + 1 if many else k + min(len(self._masked), SPARE)
        while fetch <= MAX_K:
            scores, ids = self._base.search(xq, fetch)
            masked = np.isin(ids, self._masked)
            left = ((ids != NO_ID) & ~masked).sum(axis=1)
            whole = (ids == NO_ID).any(axis=1) if ids.size else np.ones(len(ids), bool)
            if fetch >= k + len(self._masked) or ((left >= k) | whole).all():
                return _best(np.where(masked, -np.inf, scores), np.where(masked, NO_ID, ids), k)
            fetch = min(GROWTH * fetch, k + len(self._masked))
        valid = np.setdiff1d(self._base.ids(), self._masked, assume_unique=True)
        return self._base.search(xq, k, valid)


def _best(scores: Scores, ids: Ids, k: int) -> Neighbours:
    """The best ``k`` of each row: descending scores, the smaller id first among equals."""
    # The id -1 has a score of -inf, so it comes last.
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    found = np.take_along_axis(ids, order, axis=1).astype(np.int64)
    best = np.take_along_axis(scores, order, axis=1).astype(np.float32)
    return Neighbours(best, found)
