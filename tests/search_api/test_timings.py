"""The time spent in each stage of a request, on a clock that the test moves."""

from __future__ import annotations

import pytest

from search_api import timings
from search_api.timings import Timings, time_all


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timings.time, "perf_counter", clock)
    return clock


def test_stages_add_up_in_the_order_of_first_use(clock: Clock) -> None:
    timing = Timings()
    with timing("decode"):
        clock.now += 0.25
    clock.now += 1  # in no stage
    with timing("search"):
        clock.now += 0.5
    with timing("decode"):
        clock.now += 0.125
    timing.add("search", 2)
    found = timing.milliseconds()
    assert found == {"decode": 375, "search": 2500, "total": 1875}
    assert list(found) == ["decode", "search", "total"]


def test_a_stage_that_fails_is_counted(clock: Clock) -> None:
    timing = Timings()
    with pytest.raises(KeyError), timing("decode"):
        clock.now += 0.5
        raise KeyError
    assert timing.milliseconds()["decode"] == 500


def test_a_stage_between_threads_ends_once(clock: Clock) -> None:
    timing = Timings()
    timing.end("queue")  # it was not begun
    assert timing.milliseconds() == {"total": 0}
    timing.begin("queue")
    clock.now += 0.25
    timing.end("queue")
    clock.now += 0.25
    timing.end("queue")
    assert timing.milliseconds() == {"queue": 250, "total": 500}


def test_a_shared_stage_counts_fully_for_each(clock: Clock) -> None:
    one, two = Timings(), Timings()
    one.add("forward", 1)
    stage = time_all([one, two])
    with stage("forward"):
        clock.now += 0.5
    assert one.milliseconds()["forward"] == 1500
    assert two.milliseconds()["forward"] == 500
