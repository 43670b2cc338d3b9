"""Resume a ranking from a position in it, while pictures are added and deleted.

A position is a score and an id. Scores do not depend on what else is stored, so whatever came
before a position stays before it: nothing is repeated and nothing is skipped.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from index.contract import MAX_K, NO_ID, Ids, IdsLike, Neighbours, Scores
from index.vectors import GROWTH, SPARE, as_ids

Search: TypeAlias = Callable[[int, IdsLike | None], Neighbours]
"""``search(k, allowed)``: one query's neighbours, scores and ids of shape (1, k)."""


class RankPosition(NamedTuple):
    """The last neighbour seen in a ranking."""

    score: float
    id: int

    def precedes(self, scores: Scores, ids: Ids) -> NDArray[np.bool_]:
        """Which of these neighbours come after this position, bool (n,)."""
        tied: NDArray[np.bool_] = (scores == self.score) & (ids > self.id)
        return (scores < self.score) | tied


def ranked(search: Search, k: int, allowed: IdsLike | None) -> tuple[Scores, Ids]:
    """At most ``k`` neighbours, best first, unpadded: scores (n,), ids (n,)."""
    scores, ids = search(k, allowed)
    keep = ids[0] != NO_ID
    return scores[0][keep], ids[0][keep]


def following(
    search: Search, k: int, allowed: IdsLike, position: RankPosition, seen: int
) -> tuple[Scores, Ids]:
    """The best ``k`` after ``position`` in the ranking of all ``allowed`` ids.

    Args:
        search: queries the index; exact for ``allowed`` ids.
        k: maximum number of neighbours to return.
        allowed: the ids to rank, ascending.
        position: where to resume.
        seen: about how many neighbours come before it; a wrong number only costs time.

    Returns:
        Scores float32 and ids int64 of shape (m,), best first, m at most ``k``.
    """
    fetch = min(max(seen, 0) + k + SPARE, MAX_K)
    while True:
        scores, ids = ranked(search, fetch, allowed)
        after = position.precedes(scores, ids)
        if after.sum() >= k or len(ids) < fetch:
            return scores[after][:k], ids[after][:k]
        if fetch < MAX_K:
            fetch = min(GROWTH * fetch, MAX_K)
        else:
            # The index returns no more at once, so exclude what is known to come before.
            allowed = np.setdiff1d(as_ids(allowed), ids[~after], assume_unique=True)
            fetch = min(k + SPARE, MAX_K)
