"""Batches of what waits: sizes, workers, failures, cancelled items, closing."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import pytest

from search_api.service.batching import Batcher, QueueFullError


class Worker:
    """Doubles numbers; fails on negative ones; holds each batch until it may go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.seen: list[tuple[int, int]] = []
        self.may_go_on = threading.Semaphore(0)
        self.started = threading.Semaphore(0)

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.started.release()
        assert self.may_go_on.acquire(timeout=30)
        if min(items) < 0:
            raise ValueError(f"{min(items)} is negative")
        return [2 * item for item in items]

    def observe(self, size: int, waiting: int) -> None:
        self.seen.append((size, waiting))

    def release(self, batches: int) -> None:
        self.may_go_on.release(batches)


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def batcher(worker: Worker) -> Iterator[Batcher[int, int]]:
    batcher = Batcher(worker, max_batch=4, max_waiting=6, observe=worker.observe)
    yield batcher
    worker.release(100)
    batcher.close()


def results(futures: Sequence[Future[int]]) -> list[int]:
    return [future.result(timeout=30) for future in futures]


def busy(batcher: Batcher[int, int], worker: Worker) -> list[Future[int]]:
    """Has the worker hold a batch of one, so that what comes next has to wait."""
    first = batcher.submit([0])
    assert worker.started.acquire(timeout=30)
    return first


def test_alone_it_starts_at_once(batcher: Batcher[int, int], worker: Worker) -> None:
    worker.release(1)
    assert results(batcher.submit([21])) == [42]
    assert worker.batches == [[21]]


def test_what_waits_goes_together_up_to_the_limit(
    batcher: Batcher[int, int], worker: Worker
) -> None:
    futures = busy(batcher, worker)
    for number in range(1, 7):
        futures += batcher.submit([number])
    worker.release(3)
    assert results(futures) == [0, 2, 4, 6, 8, 10, 12]
    assert worker.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert worker.seen == [(1, 0), (4, 2), (2, 0)]


def test_a_full_queue_refuses_at_once_and_changes_nothing(
    batcher: Batcher[int, int], worker: Worker
) -> None:
    futures = busy(batcher, worker)
    futures += batcher.submit([1, 2, 3, 4, 5, 6])
    with pytest.raises(QueueFullError, match="6 pictures are waiting, the limit is 6") as caught:
        batcher.submit([7])
    assert caught.value.retry_after == 1
    worker.release(3)
    assert results(futures) == [0, 2, 4, 6, 8, 10, 12]
    assert list(itertools.chain(*worker.batches)) == [0, 1, 2, 3, 4, 5, 6]


def test_a_large_group_is_taken_whole(batcher: Batcher[int, int], worker: Worker) -> None:
    worker.release(5)
    assert results(batcher.submit(range(20))) == [2 * n for n in range(20)]


def test_a_bad_item_does_not_harm_its_neighbours(
    batcher: Batcher[int, int], worker: Worker
) -> None:
    first = busy(batcher, worker)
    one, bad, two, worse = batcher.submit([1, -1, 2, -2])
    worker.release(100)
    assert results([*first, one, two]) == [0, 2, 4]
    with pytest.raises(ValueError, match=r"^-1 is negative$"):
        bad.result(timeout=30)
    with pytest.raises(ValueError, match=r"^-2 is negative$"):
        worse.result(timeout=30)
    # It goes on after a failure.
    assert results(batcher.submit([5])) == [10]


def test_what_was_abandoned_is_not_worked_on(batcher: Batcher[int, int], worker: Worker) -> None:
    first = busy(batcher, worker)
    one, gone, two = batcher.submit([1, 2, 3])
    assert gone.cancel()
    worker.release(2)
    assert results([*first, one, two]) == [0, 2, 6]
    assert worker.batches == [[0], [1, 3]]


def test_a_batch_of_abandoned_items_alone_is_skipped(
    batcher: Batcher[int, int], worker: Worker
) -> None:
    first = busy(batcher, worker)
    (gone,) = batcher.submit([1])
    gone.cancel()
    worker.release(1)
    results(first)
    worker.release(1)
    assert results(batcher.submit([2])) == [4]
    assert worker.batches == [[0], [2]]


def test_closing_finishes_what_waits_and_refuses_what_comes() -> None:
    worker = Worker()
    batcher = Batcher(worker, max_batch=2, max_waiting=10)
    futures = busy(batcher, worker) + batcher.submit([1, 2, 3])
    worker.release(3)
    batcher.close()
    assert [future.result(timeout=0) for future in futures] == [0, 2, 4, 6]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit([1])


def test_two_workers_run_at_the_same_time() -> None:
    worker = Worker()
    batcher = Batcher(worker, max_batch=4, max_waiting=10, workers=2)
    one = batcher.submit([1])
    assert worker.started.acquire(timeout=30)
    two = batcher.submit([2, 3])
    assert worker.started.acquire(timeout=30)  # the first batch is still being worked on
    worker.release(2)
    assert results(one + two) == [2, 4, 6]
    batcher.close()
    assert sorted(worker.batches) == [[1], [2, 3]]


def test_the_second_worker_starts_only_with_a_minimum_batch() -> None:
    worker = Worker()
    batcher = Batcher(worker, max_batch=4, max_waiting=10, workers=2, min_batch=3)
    futures = busy(batcher, worker)
    futures += batcher.submit([1, 2])
    assert not worker.started.acquire(timeout=0.2)
    futures += batcher.submit([3])
    assert worker.started.acquire(timeout=30)
    worker.release(2)
    assert results(futures) == [0, 2, 4, 6]
    assert sorted(worker.batches) == [[0], [1, 2, 3]]
    # Fewer items than that are left to the next worker that is free.
    futures = busy(batcher, worker) + batcher.submit([5])
    worker.release(2)
    assert results(futures) == [0, 10]
    batcher.close()


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_sizes_below_one_are_refused(sizes: tuple[int, int, int]) -> None:
    most_batch, most_waiting, workers = sizes
    with pytest.raises(ValueError, match="expected at least 1"):
        Batcher(Worker(), most_batch, most_waiting, workers=workers)
