"""Keeps what a search needs warm for a while after the last one.

What is not used soon leaves the CPU's caches, idle threads fall asleep, and the host of a virtual
machine may take its memory for unused: a first search after a pause of a second then takes several
times as long as the next. Keeping it warm costs a part of a core, so it is off unless asked for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np

from embed.pictures import encode_png
from search_api.service.engine import SearchEngine
from search_api.threads import limit_faiss_threads

log = logging.getLogger(__name__)

EVERY = 0.1
"""Seconds from one search to the next."""
_NEIGHBOURS = 13
_SIDE = 32


class Warmth:
    """Calls ``touch`` again and again after each use, until there was none for some seconds.

    While requests keep coming it does nothing, and without any its thread sleeps.
    """

    def __init__(self, touch: Callable[[], object], seconds: float, every: float = EVERY) -> None:
        """Start the thread; nothing is done before `used` is called.

        Args:
            touch: a search of no consequence.
            seconds: for how long after the last use.
            every: seconds without a use, or since the last call of ``touch``, before the next.
        """
        self._touch = touch
        self._seconds = seconds
        self._every = every
        self._last = 0.0
        self._used = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="warmth", daemon=True)
        self._thread.start()

    def used(self) -> None:
        """Note that there was a search; takes next to nothing."""
        self._last = time.monotonic()
        if not self._used.is_set():
            self._used.set()

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()
        self._used.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._used.wait()
            if self._closed.wait(self._every):
                return
            idle = time.monotonic() - self._last
            if idle > self._seconds:
                self._used.clear()
                # A use in between would otherwise be forgotten.
                if time.monotonic() - self._last < self._seconds:
                    self._used.set()
            elif idle >= self._every:
                try:
                    self._touch()
                except Exception as error:  # noqa: BLE001 - the next request will say what is wrong
                    log.debug("the search that keeps the service warm failed: %s", error)


def toucher(engine: SearchEngine) -> Callable[[], object]:
    """A search by a picture of noise that nobody sees: decoded, embedded, compared, looked up."""
    noise = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
    data = encode_png(noise)

    def touch() -> None:
        state = engine.served.current(wait=False)
        xq = state.model.encode([engine.read(data)]).embeddings
        limit_faiss_threads()
        ids = state.index.search(xq, _NEIGHBOURS).ids[0]
        engine.served.entries(state, ids[ids >= 0])

    return touch
