"""Requests that arrive together share one forward pass and one scan of the index."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

log = logging.getLogger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")
Result = TypeVar("Result", contravariant=True)


class QueueFullError(RuntimeError):
    """The queue is full; try again after ``retry_after`` seconds."""

    def __init__(self, waiting: int, limit: int, retry_after: int) -> None:
        super().__init__(
            f"{waiting} pictures are waiting, the limit is {limit}; try again in {retry_after} s"
        )
        self.retry_after = retry_after


class Slot(Protocol[Result]):
    """Where the result of an item goes; a future is one. A thread of the batcher calls it."""

    def set_running_or_notify_cancel(self) -> bool:
        """Whether the item is still wanted; asked once, when its turn has come."""

    def set_result(self, result: Result, /) -> None:
        """Take the result."""

    def set_exception(self, error: BaseException, /) -> None:
        """Take the error in its place."""


class Batcher(Generic[In, Out]):
    """Processes items in batches on a few threads; a free thread takes whatever is waiting.

    An item that arrives alone starts at once: nothing waits for a batch to fill. Under load batches
    grow by themselves, because more items arrive while earlier batches are processed. With two
    workers the next batch runs while the responses of the previous one are assembled; the second
    worker starts only for a batch of ``min_batch``, because one larger batch beats two small ones.
    """

    RETRY_AFTER = 1
    """Seconds until a full queue has room again: it holds less than a second of work."""

    def __init__(
        self,
        work: Callable[[Sequence[In]], Sequence[Out]],
        max_batch: int,
        max_waiting: int,
        observe: Callable[[int, int], None] = lambda batch, waiting: None,
        workers: int = 1,
        min_batch: int = 1,
    ) -> None:
        """Start the threads.

        Args:
            work: returns one result per item, in the same order.
            max_batch: maximum number of items in one batch.
            max_waiting: maximum number of waiting items; further ones are refused.
            observe: called with each batch's size and the number of items left waiting.
            workers: maximum number of batches processed at a time.
            min_batch: how many items must wait before another worker starts while one is busy.
        """
        if min(max_batch, max_waiting, workers) < 1:
            raise ValueError(
                f"max_batch is {max_batch}, max_waiting {max_waiting}, workers {workers}; expected"
                " at least 1"
            )
        self._work = work
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._observe = observe
        self._min_batch = min_batch
        self._busy = 0
        self._waiting: deque[tuple[In, Slot[Out]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"batcher-{worker}", daemon=True)
            for worker in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many items are waiting now."""
        return len(self._waiting)

    def submit(self, items: Sequence[In]) -> list[Future[Out]]:
        """Queue all items or none; cancelling a future before its turn skips the item.

        A group is accepted as a whole while there is any room, so that one of more than
        ``max_waiting`` items can be served too.

        Raises:
            QueueFullError: there is no room.
            RuntimeError: the batcher is closed.
        """
        futures: list[Future[Out]] = [Future() for _ in items]
        self._queue(list(zip(items, futures, strict=True)))
        return futures

    def submit_to(self, item: In, slot: Slot[Out]) -> None:
        """Queue an item whose result goes to ``slot``; raises as `submit` does."""
        self._queue([(item, slot)])

    def _queue(self, pairs: Sequence[tuple[In, Slot[Out]]]) -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            if len(self._waiting) >= self._max_waiting:
                raise QueueFullError(len(self._waiting), self._max_waiting, self.RETRY_AFTER)
            self._waiting.extend(pairs)
            self._changed.notify()

    def close(self) -> None:
        """Finish the waiting items, then stop the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while batch := self._take():
            # From here on a future can no longer be cancelled; those cancelled before are dropped.
            live = [(item, f) for item, f in batch if f.set_running_or_notify_cancel()]
            self._observe(len(live), len(self._waiting))
            if live:
                self._do(live)
            with self._changed:
                self._busy -= 1
                self._changed.notify()

    def _take(self) -> list[tuple[In, Slot[Out]]]:
        with self._changed:
            while len(self._waiting) < (self._min_batch if self._busy else 1):
                if self._closed and not self._waiting:
                    self._changed.notify_all()
                    return []
                self._changed.wait()
            self._busy += 1
            number = min(len(self._waiting), self._max_batch)
            taken = [self._waiting.popleft() for _ in range(number)]
            if self._waiting:
                self._changed.notify()  # another worker, if there is one left
            return taken

    def _do(self, batch: list[tuple[In, Slot[Out]]]) -> None:
        try:
            results = self._work([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - each future gets it
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            log.warning("a batch of %d failed (%s); doing its items one by one", len(batch), error)
            for pair in batch:
                self._do([pair])
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
