"""Jobs over HTTP: the list, the log, cancelling and following a job."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from embed.corpus import FolderCorpus
from index.contract import JobControl
from search_api.api.app import create_app
from search_api.client import AsyncClient, Client, ProblemError
from search_api.service.engine import SearchEngine
from search_api.settings import Limits, Shutdown
from tests.search_api.conftest import MeanColour
from tests.search_api.helpers import running, until, wait


class Steps:
    """Work that advances only when told to."""

    def __init__(self) -> None:
        self.step = threading.Semaphore(0)
        self.end = threading.Event()

    def __call__(self, control: JobControl) -> dict[str, int]:
        done = 0
        while not self.end.is_set() and not control.cancelled():
            control.progress("counting", done, 10)
            if self.step.acquire(timeout=0.01):
                done += 1
        return {"counted": done}


@pytest.fixture
def steps() -> Iterator[Steps]:
    steps = Steps()
    yield steps
    steps.end.set()


def test_the_log_lists_skipped_pictures(client: TestClient, folder: Path) -> None:
    for n in range(3):
        (folder / "train" / "red" / f"bad{n}.png").write_bytes(b"rubbish")
    job = wait(client, client.post("/v1/index/rebuild").json()["id"])
    assert (job["state"], job["skipped"], job["eta_seconds"]) == ("succeeded", 3, None)
    log = f"/v1/jobs/{job['id']}/log"
    first = client.get(log, params={"limit": 2}).json()
    assert [(e["number"], e["source"]) for e in first["entries"]] == [
        (0, "train/red/bad0.png"),
        (1, "train/red/bad1.png"),
    ]
    assert "not a picture" in first["entries"][0]["reason"]
    assert (first["total"], first["next_after"]) == (3, 1)
    last = client.get(log, params={"limit": 2, "after": 1}).json()
    assert [e["source"] for e in last["entries"]] == ["train/red/bad2.png"]
    assert last["next_after"] is None
    assert client.get("/v1/jobs/none/log").status_code == 404


def test_jobs_are_listed_after_a_restart(engine: SearchEngine, folder: Path) -> None:
    with TestClient(create_app(engine)) as client:
        assert client.get("/v1/jobs").json() == {"jobs": []}
        first = wait(client, client.post("/v1/index/rebuild").json()["id"])
        second = wait(client, client.post("/v1/index/compact").json()["id"])
    again = SearchEngine(MeanColour(), FolderCorpus(folder), engine.var)
    again.load()
    with TestClient(create_app(again)) as client:
        assert client.get("/v1/jobs").json() == {"jobs": [second, first]}
        assert client.get("/v1/jobs", params={"limit": 1}).json() == {"jobs": [second]}
        assert client.get(f"/v1/jobs/{first['id']}").json() == first
        refused = client.delete(f"/v1/jobs/{first['id']}")
        assert refused.status_code == 409
        assert "succeeded" in refused.json()["detail"]


def test_a_compaction_is_cancelled_before_its_index_is_loaded(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from index.ann import kinds

    entered, opened = threading.Event(), threading.Event()
    build = kinds.build_collected

    def slow(*args: Any) -> Any:
        entered.set()
        assert opened.wait(30)
        return build(*args)

    monkeypatch.setattr(kinds, "build_collected", slow)
    with TestClient(create_app(engine)) as client:
        job_id = client.post("/v1/index/compact").json()["id"]
        assert entered.wait(30)
        assert client.delete(f"/v1/jobs/{job_id}").status_code == 202
        opened.set()
        assert wait(client, job_id)["state"] == "cancelled"
        assert client.get("/v1/index").json()["generation"] == 1


def test_events_report_every_change_and_end(engine: SearchEngine, steps: Steps) -> None:
    with running(engine) as (server, (host, port)), Client(f"http://{host}:{port}") as client:
        job = server.context.jobs.start("count", steps)
        seen = []
        for found in client.job_events(job.id):
            seen.append((found.state, found.progress.done))
            if found.progress.done == 2:
                steps.end.set()
            elif seen[-1][0] == "running":
                steps.step.release()
        assert seen[0][0] in ("queued", "running")
        assert ("running", 1) in seen and ("running", 2) in seen
        assert seen[-1] == ("succeeded", 2)
        assert [found.state for found in client.job_events(job.id)] == ["succeeded"]
        with pytest.raises(ProblemError) as caught:
            list(client.job_events("none"))
        assert caught.value.type == "urn:lookalike:problem:unknown-job"

        async def follow() -> list[str]:
            async with AsyncClient(client.url) as async_client:
                return [found.state async for found in async_client.job_events(job.id)]

        assert asyncio.run(follow()) == ["succeeded"]


def test_the_stream_is_server_sent_events(
    engine: SearchEngine, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.api.routes.jobs._HEARTBEAT_SECONDS", 0.3)
    with running(engine) as (server, (host, port)):
        job = server.context.jobs.start("count", steps)
        url = f"http://{host}:{port}/v1/jobs/{job.id}/events"
        with httpx2.stream("GET", url, timeout=20) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            lines = response.iter_lines()
            first = next(line for line in lines if line)
            assert json.loads(first.removeprefix("data: "))["id"] == job.id
            assert ": alive" in iter(lines)
        # Its client has disconnected: the stream is gone, while the job still runs.
        until(lambda: not server.context.streams)
        assert server.context.jobs.running is not None
        steps.end.set()


def test_the_number_of_followers_is_limited(engine: SearchEngine, steps: Steps) -> None:
    limits = Limits(max_streams=1)
    with running(engine, limits) as (server, (host, port)):
        job = server.context.jobs.start("count", steps)
        url = f"http://{host}:{port}/v1/jobs/{job.id}/events"
        with httpx2.stream("GET", url, timeout=20) as first:
            lines = first.iter_lines()  # kept: without it the stream would be closed
            next(lines)
            refused = httpx2.get(url)
            assert refused.status_code == 503
            assert refused.json()["type"] == "urn:lookalike:problem:no-stream"
            assert refused.headers["retry-after"] == "5"
        until(lambda: not server.context.streams)
        steps.end.set()
        until(lambda: server.context.jobs.running is None)
        assert httpx2.get(url).status_code == 200


def test_streams_do_not_delay_shutdown(engine: SearchEngine) -> None:
    stubborn = threading.Event()

    def work(control: JobControl) -> dict[str, int]:
        control.progress("counting", 1, 2)
        assert stubborn.wait(30)  # never checks whether to stop
        return {}

    shutdown = Shutdown(drain_seconds=0.1, grace_seconds=60)
    with running(engine, shutdown=shutdown) as (server, (host, port)):
        job = server.context.jobs.start("count", work)
        url = f"http://{host}:{port}/v1/jobs/{job.id}/events"
        with httpx2.stream("GET", url, timeout=20) as response:
            lines = response.iter_lines()
            next(lines)
            server.handle_exit(signal.SIGTERM, None)
            rest = [line for line in lines if line]  # ends, although the job does not
        assert all(json.loads(line.removeprefix("data: "))["finished"] is None for line in rest)
        until(lambda: not server.context.streams)
        stubborn.set()


def test_jobs_with_the_client(live_server: str) -> None:
    with Client(live_server) as client:
        job = list(client.job_events(client.rebuild_index(reembed=True).id))[-1]
        assert (job.state, job.skipped) == ("succeeded", 0)
        assert client.list_jobs(limit=5).jobs == [job]
        assert client.job_log(job.id).entries == []
        with pytest.raises(ProblemError) as caught:
            client.cancel_job(job.id)
        assert caught.value.type == "urn:lookalike:problem:job-finished"
        for call in (client.cancel_job, client.job_log, client.job_events):
            with pytest.raises(ValueError, match="not the id of a job"):
                list(call("../index"))
