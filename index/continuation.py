"""Going on in a ranking from a place in it, while pictures are added and deleted.

A place is a score and an id. Scores do not depend on what else is stored, so what was before a
place stays before it: nothing is repeated, and nothing that was after it is left out.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from index.neighbours import MAX_K, NO_ID, Ids, IdsLike, Neighbours, Scores, as_ids

Search: TypeAlias = Callable[[int, IdsLike | None], Neighbours]
"""``search(k, allowed)``: one query's neighbours, scores and ids of shape (1, k)."""

_SPARE = 16
_GROWTH = 4


class Place(NamedTuple):
    """The last of what was seen of a ranking."""

    score: float
    id: int

    def precedes(self, scores: Scores, ids: Ids) -> NDArray[np.bool_]:
        """Which of these neighbours come after this place, bool (n,)."""
        tied: NDArray[np.bool_] = (scores == self.score) & (ids > self.id)
        return (scores < self.score) | tied


def ranked(search: Search, k: int, allowed: IdsLike | None) -> tuple[Scores, Ids]:
    """At most ``k`` neighbours, best first, without padding: scores (n,), ids (n,)."""
    scores, ids = search(k, allowed)
    keep = ids[0] != NO_ID
    return scores[0][keep], ids[0][keep]


def following(
    search: Search, k: int, allowed: IdsLike, place: Place, seen: int
) -> tuple[Scores, Ids]:
    """The best ``k`` of what comes after ``place`` in the ranking of all ``allowed`` ids.

    Args:
        search: asks the index; exact for ``allowed`` ids.
        k: most neighbours to return.
        allowed: the ids that may be answers, ascending.
        place: where to go on.
        seen: about how many come before it; a wrong number costs time and nothing else.

    Returns:
        Scores float32 and ids int64 of shape (m,), best first, m at most ``k``.
    """
    fetch = min(max(seen, 0) + k + _SPARE, MAX_K)
    while True:
        scores, ids = ranked(search, fetch, allowed)
        after = place.precedes(scores, ids)
        if after.sum() >= k or len(ids) < fetch:
            return scores[after][:k], ids[after][:k]
        if fetch < MAX_K:
            fetch = min(_GROWTH * fetch, MAX_K)
        else:
            # An index answers with no more at a time: leave out what is known to come before.
            allowed = np.setdiff1d(as_ids(allowed), ids[~after], assume_unique=True)
            fetch = min(k + _SPARE, MAX_K)
