"""Inverted lists made in a moment, for many queries whose answers may lack a few neighbours."""

from typing import Any

import faiss

from index.neighbours import Ids, Searchable, Vectors
from index.scan import SPARE, best_of

_SAMPLED = 64
"""Vectors for each list that its centre is learned from."""
_ITERATIONS = 5
_LOOKED_AT = 0.1


class QuickLists:
    """The vectors of an index as 8-bit codes in inverted lists (``IVF``, ``SQ8``) in memory.

    A tenth of the lists is looked at, and a few more candidates than wanted are scored again
    (`benchmarks/tagging.py` tells how rarely that matters). A kind of `index.kinds` is fitted to a
    recall, which takes longer to make.
    """

    def __init__(self, index: Searchable) -> None:
        """From all that ``index`` holds now; later changes of it are not followed."""
        self._ids = index.ids()
        self._xb = xb = index.vectors(self._ids)
        lists = max(1, int(len(xb) ** 0.5))
        made: Any = faiss.index_factory(
            index.dimension, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT
        )
        self._lists = made
        made.cp.niter = _ITERATIONS
        made.nprobe = max(1, round(_LOOKED_AT * lists))
        made.train(xb[:: max(1, len(xb) // (_SAMPLED * lists))])
        made.add(xb)

    def nearest(self, xq: Vectors, k: int) -> Ids:
        """Ids (nq, k) of the nearest to each row of ``xq`` float32 (nq, d), -1 where none is."""
        _, rows = self._lists.search(xq, k + SPARE)
        return best_of(self._ids, self._xb, xq, k, rows).ids
