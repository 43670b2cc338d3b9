"""Inverted lists that are quick to build, for many queries that may miss a few neighbours."""

from index.ann.approximate import inner
from index.ann.build import create
from index.ann.scan import best_of
from index.contract import Neighbours, Searchable, Vectors
from index.vectors import SPARE

_SAMPLED = 64
"""Vectors that each list's centroid is trained on."""
_ITERATIONS = 5
_PROBED = 0.1


class QuickLists:
    """The vectors of an index as 8-bit codes in inverted lists (``IVF``, ``SQ8``) in memory.

    A tenth of the lists is probed, and a few more candidates than wanted are rescored exactly
    (`benchmarks/tagging.py` measures how rarely that misses a neighbour). An index of
    `index.ann.kinds` is tuned to a recall, which takes longer.
    """

    def __init__(self, index: Searchable) -> None:
        """Copy everything that ``index`` holds now; later changes to it have no effect."""
        self._ids = index.ids()
        self._xb = xb = index.vectors(self._ids)
        count = max(1, int(len(xb) ** 0.5))
        lists = create(f"IVF{count},SQ8", index.dimension)
        inner(lists).cp.niter = _ITERATIONS
        inner(lists).nprobe = max(1, round(_PROBED * count))
        lists.train(xb[:: max(1, len(xb) // (_SAMPLED * count))])
        lists.add(xb)
        self._lists = lists

    def nearest(self, xq: Vectors, k: int) -> Neighbours:
        """The nearest to each of ``xq`` float32 (nq, d)."""
        _, rows = self._lists.search(xq, k + SPARE)
        return best_of(self._ids, self._xb, xq, k, rows)
