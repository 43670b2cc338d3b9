"""The job runner: one job at a time, its progress, and how it ends."""

from __future__ import annotations

import threading
import time

import pytest

from index.contract import CancelledError, JobControl
from search_api.jobs.runner import JobRunner, JobRunningError
from tests.search_api.helpers import finished


def test_success_keeps_result_and_last_progress() -> None:
    runner = JobRunner()

    def work(control: JobControl) -> dict[str, int]:
        control.progress("counting", 1, 2)
        control.progress("counting", 2, 2)
        return {"counted": 2}

    job = finished(runner, runner.start("count", work).id)
    assert (job.state, job.stage, job.done, job.total) == ("succeeded", "counting", 2, 2)
    assert job.result == {"counted": 2}
    assert job.error is None
    assert job.finished is not None
    assert job.finished >= job.started > 0


def test_failure_keeps_the_reason() -> None:
    runner = JobRunner()

    def work(control: JobControl) -> dict[str, int]:
        raise ValueError("the disk is full")

    job = finished(runner, runner.start("fail", work).id)
    assert (job.state, job.error, job.result) == ("failed", "the disk is full", None)


def test_the_work_is_told_its_job() -> None:
    runner, told = JobRunner(), []

    def work(control: JobControl) -> dict[str, int]:
        told.append(control.job)
        return {}

    job = runner.start("short", work)
    finished(runner, job.id)
    assert told == [job.id]


def test_each_job_is_observed_as_it_starts_and_as_it_ends() -> None:
    seen: list[tuple[str, bool]] = []
    runner = JobRunner(lambda job: seen.append((job.state, job.finished is not None)))

    def cancelled(control: JobControl) -> dict[str, int]:
        while not control.cancelled():
            time.sleep(0.001)
        raise CancelledError("stopped after 1 of 2 pictures")

    job = runner.start("cancelled", cancelled)
    runner.cancel(job.id)
    finished(runner, job.id)
    runner.stop()
    assert seen == [("running", False), ("cancelled", True)]


def test_one_at_a_time_and_stop() -> None:
    runner = JobRunner()
    running = threading.Event()

    def work(control: JobControl) -> dict[str, int]:
        running.set()
        while not control.cancelled():
            time.sleep(0.001)
        return {}

    first = runner.start("first", work)
    assert running.wait(10)
    with pytest.raises(JobRunningError) as error:
        runner.start("second", work)
    assert error.value.job.id == first.id
    runner.stop()
    job = runner.get(first.id)
    assert job is not None
    assert job.state == "succeeded"


def test_old_jobs_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobRunner, "KEPT", 2)
    runner = JobRunner()
    ids = []
    for _ in range(3):
        job = runner.start("short", lambda control: {})
        ids.append(job.id)
        finished(runner, job.id)
    assert runner.get(ids[0]) is None
    assert [runner.get(id_) is not None for id_ in ids[1:]] == [True, True]
    assert runner.get("unknown") is None


def test_time_left_is_that_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [
        (10.0, "embedding", 100, 400),  # what was done before does not count towards the pace
        (20.0, "embedding", 150, 400),
        (30.0, "embedding", 300, 400),
        (100.0, "indexing", 0, 60),
        (101.0, "indexing", 60, 60),
    ]
    now = [0.0]
    monkeypatch.setattr("search_api.jobs.runner.time.monotonic", lambda: now[0])
    runner, seen = JobRunner(), []

    def work(control: JobControl) -> dict[str, int]:
        for seconds, *step in steps:
            now[0] = seconds
            control.progress(*step)
            job = runner.running
            assert job is not None
            seen.append(job.eta_seconds)
        return {}

    runner.start("rebuild", work)
    runner.stop()
    assert seen == [None, 50.0, 10.0, None, 0.0]


def test_every_end_is_observed() -> None:
    seen: list[tuple[str, bool]] = []
    runner = JobRunner(lambda job: seen.append((job.state, job.finished is None)))
    entered = threading.Event()

    def work(control: JobControl) -> dict[str, int]:
        entered.set()
        while not control.cancelled():
            time.sleep(0.001)
        raise CancelledError("stopped")

    job_id = runner.start("rebuild", work).id
    assert entered.wait(10)
    runner.cancel(job_id)
    assert finished(runner, job_id).state == "cancelled"
    assert seen == [("running", True), ("cancelled", False)]
