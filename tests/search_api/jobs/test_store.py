"""The job store: jobs survive their process, and others can tell whether it still runs."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from index.contract import CancelledError, JobControl
from search_api.jobs.model import Job, Skipped
from search_api.jobs.runner import JobFinishedError, JobRunner
from search_api.jobs.store import JobStore
from tests.search_api.helpers import finished

CHILD = """
import sys, time
from pathlib import Path
from index.contract import CancelledError
from search_api.jobs.runner import JobRunner
from search_api.jobs.store import JobStore

def work(control):
    control.progress("embedding", 7, 20)
    control.skip({"bad.png": "not a picture"})
    print(control.job, flush=True)
    while not control.cancelled():
        time.sleep(0.01)
    raise CancelledError("stopped after 7 of 20")

JobRunner(store=JobStore(Path(sys.argv[1]))).start("rebuild", work)
"""
Child = tuple[subprocess.Popen[str], str]


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    """Another process on the store, and the id of the job that runs in it."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_a_job_survives_its_runner(tmp_path: Path) -> None:
    first = JobRunner(store=JobStore(tmp_path))

    def work(control: JobControl) -> dict[str, int]:
        control.progress("embedding", 2, 2)
        control.skip({"a.png": "empty", "b\udc80.png": "damaged"})
        control.skip({"c.png": "damaged"})
        return {"embedded": 2}

    before = finished(first, first.start("rebuild", work).id)
    first.close()
    second = JobRunner(store=JobStore(tmp_path))
    assert second.get(before.id) == before
    assert second.newest(10) == [before]
    assert (before.state, before.result, before.skipped) == ("succeeded", {"embedded": 2}, 3)
    assert second.skipped(before.id, -1, 2) == [
        Skipped(0, "a.png", "empty"),
        Skipped(1, "b\\x80.png", "damaged"),
    ]
    assert second.skipped(before.id, 1, 2) == [Skipped(2, "c.png", "damaged")]
    assert second.get("unknown") is None
    assert [path.name for path in tmp_path.glob("*.running")] == []
    second.close()


def test_killed_means_interrupted(tmp_path: Path, child: Child) -> None:
    process, job_id = child
    store = JobStore(tmp_path)
    running = store.get(job_id)
    assert running is not None
    assert (running.state, running.stage, running.done) == ("running", "embedding", 7)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (job,) = store.newest(10)
    assert (job.state, job.done, job.total) == ("interrupted", 7, 20)
    assert job.finished is not None and job.finished >= job.started
    assert "start it again" in (job.error or "")
    assert store.get(job_id) == job
    assert store.skipped(job_id, -1, 10) == [Skipped(0, "bad.png", "not a picture")]
    with pytest.raises(JobFinishedError, match="interrupted"):
        JobRunner(store=store).cancel(job_id)


def test_cancelled_through_another_process(tmp_path: Path, child: Child) -> None:
    process, job_id = child
    runner = JobRunner(store=JobStore(tmp_path))
    assert runner.cancel(job_id) is not None
    assert process.wait(20) == 0
    job = runner.get(job_id)
    assert job is not None
    assert (job.state, job.error) == ("cancelled", "stopped after 7 of 20")


def test_a_job_that_the_server_stops_is_interrupted_not_cancelled(tmp_path: Path) -> None:
    runner = JobRunner(store=JobStore(tmp_path))

    def work(control: JobControl) -> dict[str, int]:
        while not control.cancelled():
            time.sleep(0.001)
        raise CancelledError("stopped after 1 of 2; the next build continues from there")

    id_ = runner.start("rebuild", work).id
    runner.stop()
    job = runner.get(id_)
    assert job is not None
    assert (job.state, job.eta_seconds) == ("interrupted", None)
    assert "continues from there" in (job.error or "")


def test_only_the_newest_are_kept_with_their_logs(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    for n in range(4):
        job = Job(f"job{n}", "rebuild", "running")
        store.begin(job, kept=2)
        store.skip(job.id, 0, {"a": "empty"})
        store.save(Job(job.id, "rebuild", "succeeded", finished=1.0 + n))
    assert [job.id for job in store.newest(10)] == ["job3", "job2"]
    assert store.skipped("job0", -1, 10) == []
    assert store.skipped("job3", -1, 10) == [Skipped(0, "a", "empty")]


@pytest.mark.parametrize("content", [b"rubbish" * 1000, b""])
def test_a_damaged_file_is_renamed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(content)
    store = JobStore(tmp_path)
    store.begin(Job("a", "rebuild", "running"), 10)
    store.save(Job("a", "rebuild", "succeeded", finished=1.0))
    assert [job.state for job in JobStore(tmp_path).newest(1)] == ["succeeded"]
    assert (tmp_path / "jobs.damaged").exists() == bool(content)


def test_a_file_of_a_newer_format_is_not_changed(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "jobs.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    before = (tmp_path / "jobs.sqlite").read_bytes()
    store = JobStore(tmp_path)
    store.begin(Job("a", "rebuild", "running"), 10)
    assert [job.state for job in store.newest(1)] == ["running"]
    store.close()
    assert (tmp_path / "jobs.sqlite").read_bytes()[100:] == before[100:]


def test_jobs_run_without_a_file(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    store.close()
    runner = JobRunner(store=store)
    job = finished(runner, runner.start("count", lambda control: {"counted": 1}).id)
    assert (job.state, job.result) == ("succeeded", {"counted": 1})
