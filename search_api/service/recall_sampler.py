"""Measures the recall of an approximate index on the queries that users send."""

from __future__ import annotations

import random
import threading
import time
from collections import deque

import numpy as np
from numpy.typing import NDArray

from index.ann.approximate import ApproximateIndex
from index.ann.overlay import Overlay
from index.contract import NO_ID, Searchable
from search_api.threads import limit_faiss_threads

_KEPT = 200
_K = 10
_REST = 20.0


class RecallSampler:
    """Repeats a sample of the queries exactly, in the background, and averages the last 200."""

    def __init__(self, share: float = 0.01, rest: float = _REST) -> None:
        """Sample the ``share`` 0..1 of all queries, one at a time.

        After each sample, pause for ``rest`` times its duration: an exact scan of many millions of
        vectors takes seconds.
        """
        self._share = share
        self._rest = rest
        self._resume = 0.0
        self._values: deque[float] = deque(maxlen=_KEPT)
        self._busy = threading.Lock()

    @property
    def recall(self) -> float | None:
        """Mean share 0..1 of the true 10 nearest that were found; None before the first sample."""
        values = list(self._values)
        return float(np.mean(values)) if values else None

    def offer(self, index: Searchable, xq: NDArray[np.float32]) -> threading.Thread | None:
        """Sample the first query of ``xq (nq, d)``, perhaps; returns the thread that does it."""
        base = index.base if isinstance(index, Overlay) else index
        if not isinstance(base, ApproximateIndex) or random.random() >= self._share:  # noqa: S311
            return None
        if time.monotonic() < self._resume:
            return None
        if not self._busy.acquire(blocking=False):
            return None
        thread = threading.Thread(target=self._sample, args=(base, xq[:1].copy()), daemon=True)
        thread.start()
        return thread

    def _sample(self, base: ApproximateIndex, xq: NDArray[np.float32]) -> None:
        started = time.monotonic()
        limit_faiss_threads()
        try:
            truth = base.exact(xq, _K).ids[0]
            found = base.search(xq, _K).ids[0]
            self._values.append(float(np.isin(truth[truth != NO_ID], found).mean()))
        finally:
            ended = time.monotonic()
            self._resume = ended + self._rest * (ended - started)
            self._busy.release()
