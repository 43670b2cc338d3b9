"""How good an approximate index is on the queries that people really ask."""

from __future__ import annotations

import random
import threading
import time
from collections import deque

import numpy as np
from numpy.typing import NDArray

from index.approximate import ApproximateIndex
from index.neighbours import NO_ID, Searchable
from index.overlay import Overlay
from search_api.threads import take_share

_KEPT = 200
_K = 10
_REST = 20.0


class RecallSampler:
    """Asks a few of the queries again, exactly, in the background, and averages the last 200."""

    def __init__(self, share: float = 0.01, seed: int | None = None, rest: float = _REST) -> None:
        """Ask the ``share`` 0..1 of all queries again, one at a time.

        After each it rests ``rest`` times as long as it took: brute force over many millions of
        vectors takes seconds.
        """
        self._share = share
        self._rest = rest
        self._resume = 0.0
        self._random = random.Random(seed)  # noqa: S311 - a sample
        self._values: deque[float] = deque(maxlen=_KEPT)
        self._busy = threading.Lock()

    @property
    def recall(self) -> float | None:
        """Mean share of the true 10 nearest that were found; None before the first sample."""
        values = list(self._values)
        return float(np.mean(values)) if values else None

    def offer(self, index: Searchable, xq: NDArray[np.float32]) -> threading.Thread | None:
        """Perhaps ask the first of these queries again; returns the thread that does."""
        base = index.base if isinstance(index, Overlay) else index
        if not isinstance(base, ApproximateIndex) or self._random.random() >= self._share:
            return None
        if time.monotonic() < self._resume:
            return None
        if not self._busy.acquire(blocking=False):
            return None
        thread = threading.Thread(target=self._ask, args=(base, xq[:1].copy()), daemon=True)
        thread.start()
        return thread

    def _ask(self, base: ApproximateIndex, xq: NDArray[np.float32]) -> None:
        started = time.monotonic()
        take_share()
        try:
            truth = base.exact(xq, _K).ids[0]
            found = base.search(xq, _K).ids[0]
            self._values.append(float(np.isin(truth[truth != NO_ID], found).mean()))
        finally:
            ended = time.monotonic()
            self._resume = ended + self._rest * (ended - started)
            self._busy.release()
