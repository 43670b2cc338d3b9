"""Requests that arrive together share one forward pass and one scan of the index."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")


class QueueFullError(RuntimeError):
    """More work waits than the queue may hold; come back after ``retry_after`` seconds."""

    def __init__(self, waiting: int, limit: int, retry_after: int) -> None:
        super().__init__(
            f"{waiting} pictures are waiting, the limit is {limit}; try again in {retry_after} s"
        )
        self.retry_after = retry_after


class Batcher(Generic[In, Out]):
    """A few threads, the lanes, do all the work, in batches of what waits when one gets to it.

    Alone, an item starts at once: nothing waits for company. Under load batches grow by
    themselves, because more arrives while the batches before are being worked on. With two lanes
    the next batch is worked on while the answers of the one before are put together; a further
    lane begins only with a batch of some size, as one larger batch is worth more than two small.
    """

    RETRY_AFTER = 1
    """Seconds after which a full queue has room again: it holds less than a second's work."""

    def __init__(
        self,
        work: Callable[[Sequence[In]], Sequence[Out]],
        max_batch: int,
        max_waiting: int,
        observe: Callable[[int, int], None] = lambda batch, waiting: None,
        lanes: int = 1,
        least: int = 1,
    ) -> None:
        """Start the threads.

        Args:
            work: items to results, in the same order and of the same number.
            max_batch: most items in one batch.
            max_waiting: how many may wait; an arrival beyond that is refused.
            observe: told of each batch's size and how many are left waiting.
            lanes: how many batches may be worked on at a time.
            least: how many must wait before a further lane begins beside one that works.
        """
        if min(max_batch, max_waiting, lanes) < 1:
            raise ValueError(
                f"max_batch is {max_batch}, max_waiting {max_waiting} and lanes {lanes}; expected"
                " at least 1"
            )
        self._work = work
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._observe = observe
        self._least = least
        self._busy = 0
        self._waiting: deque[tuple[In, Future[Out]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"batcher-{lane}", daemon=True)
            for lane in range(lanes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many items wait now."""
        return len(self._waiting)

    def submit(self, items: Sequence[In]) -> list[Future[Out]]:
        """Queue items, all or none; a future that is cancelled before its turn is never worked on.

        A group is taken whole while there is any room, so that one of more than ``max_waiting``
        can be served too.

        Raises:
            QueueFullError: no room.
            RuntimeError: closed.
        """
        futures: list[Future[Out]] = [Future() for _ in items]
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            if len(self._waiting) >= self._max_waiting:
                raise QueueFullError(len(self._waiting), self._max_waiting, self.RETRY_AFTER)
            self._waiting.extend(zip(items, futures, strict=True))
            self._changed.notify()
        return futures

    def close(self) -> None:
        """Finish what waits, then stop the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while batch := self._take():
            # From here on a future can no longer be cancelled; what was abandoned is left out.
            live = [(item, f) for item, f in batch if f.set_running_or_notify_cancel()]
            self._observe(len(live), len(self._waiting))
            if live:
                self._do(live)
            with self._changed:
                self._busy -= 1
                self._changed.notify()

    def _take(self) -> list[tuple[In, Future[Out]]]:
        with self._changed:
            while len(self._waiting) < (self._least if self._busy else 1):
                if self._closed and not self._waiting:
                    self._changed.notify_all()
                    return []
                self._changed.wait()
            self._busy += 1
            number = min(len(self._waiting), self._max_batch)
            taken = [self._waiting.popleft() for _ in range(number)]
            if self._waiting:
                self._changed.notify()  # another lane, if there is one left
            return taken

    def _do(self, batch: list[tuple[In, Future[Out]]]) -> None:
        try:
            results = self._work([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - each waiter is told
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            log.warning("a batch of %d failed (%s); doing its items one by one", len(batch), error)
            for pair in batch:
                self._do([pair])
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
