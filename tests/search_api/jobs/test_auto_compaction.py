"""Automatic compaction: when it starts, and that a failure does not repeat."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from embed.corpus import FolderCorpus
from index.local.store import LocalStore
from search_api.api.app import create_app
from search_api.jobs.auto_compaction import AutoCompaction
from search_api.jobs.model import Job
from search_api.service.engine import SearchEngine
from search_api.service.ingest import Upload
from search_api.settings import Limits
from tests.search_api.conftest import MeanColour, id_of, png
from tests.search_api.helpers import NEW, add, at_generation, search, wait

OTHER = (10, 20, 200)
LIMITS = Limits(compact_min_changes=3, compact_share=0.1)


def test_the_index_is_compacted_by_itself(engine: SearchEngine) -> None:
    with TestClient(create_app(engine, LIMITS)) as client:
        add(client, png(NEW))
        add(client, png(OTHER))
        assert client.get("/v1/index").json()["generation"] == 1
        client.delete(f"/v1/images/{id_of(client, 'red', 1)}")
        jobs = client.app.state.context.jobs
        running = jobs.running
        if running is not None:
            wait(client, running.id)
        info = client.get("/v1/index").json()
        assert info["generation"] == 2
        assert info["pending"] == {"added": 0, "deleted": 0}
        assert info["count"] == 25


def test_what_other_processes_write_is_compacted_too(
    folder: Path, engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.jobs.auto_compaction._CHECK_SECONDS", 0.05)
    with closing(SearchEngine(MeanColour(), FolderCorpus(folder), engine.var)) as other:
        other.load()
        # Before the server starts, as by `lookalike add`, and while it runs but gets no requests.
        other.ingest.add([Upload(png((9, 9, shade))) for shade in range(3)])
        with TestClient(create_app(engine, LIMITS)) as client:
            info = at_generation(client, 2)
            assert (info["count"], info["pending"]) == (27, {"added": 0, "deleted": 0})
            other.ingest.delete_many([1, 2], None)
            time.sleep(0.2)
            assert client.get("/v1/index").json()["generation"] == 2
            other.ingest.delete(3)
            info = at_generation(client, 3)
            assert (info["count"], info["pending"]) == (24, {"added": 0, "deleted": 0})
            jobs = client.get("/v1/jobs").json()["jobs"]
            assert [job["kind"] for job in jobs] == ["compact", "compact"]


def test_the_classifier_is_fitted_when_that_is_due(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the server's own checks.
    client = TestClient(create_app(engine, LIMITS))
    compaction = client.app.state.context.compaction
    assert compaction.check(restored=True) is None
    # Fewer changes than are compacted, but a label that can be learnt.
    monkeypatch.setattr("search_api.service.labelling.classifier_fit.MIN_PER_CLASS", 2)
    engine.ingest.add([Upload(png(NEW), str(n), "violet") for n in range(2)])
    job = compaction.check(restored=True)
    assert job is not None and job.kind == "fit"
    assert wait(client, job.id)["state"] == "succeeded"
    assert compaction.check(restored=True) is None
    engine.ingest.add([Upload(png(NEW), str(n), "violet") for n in range(2, 5)])
    engine.catalogue.delete([1, 2, 3])
    job = compaction.check(restored=True)
    assert job is not None and job.kind == "compact"  # which fits it, too
    assert wait(client, job.id)["state"] == "succeeded"


def wait_for_first(client: TestClient) -> None:
    end = time.monotonic() + 60
    while not (jobs := client.get("/v1/jobs").json()["jobs"]) or not jobs[0]["finished"]:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_compaction_that_fails_is_not_tried_again_and_again(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.jobs.auto_compaction._CHECK_SECONDS", 0.02)
    monkeypatch.setattr(LocalStore, "publish", lambda *_: (_ for _ in ()).throw(OSError("full")))
    engine.catalogue.delete([1, 2, 3])
    with TestClient(create_app(engine, LIMITS)) as client:
        wait_for_first(client)
        time.sleep(0.3)
        (job,) = client.get("/v1/jobs").json()["jobs"]
        assert (job["kind"], job["state"], job["error"]) == ("compact", "failed", "full")
        assert len(search(client, NEW, 24)["points"]) == 21


def test_a_compaction_that_fails_during_a_check_is_not_started_again(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[int] = []
    check = AutoCompaction.check

    def checked(self: AutoCompaction) -> Job | None:
        checks.append(1)
        end = time.monotonic() + 60
        while len(checks) > 1 and self.tasks.jobs.running is not None and time.monotonic() < end:
            time.sleep(0.01)  # the running job ends during this check
        return check(self)

    def publish(*_: object) -> None:
        time.sleep(0.3)
        raise OSError("full")

    monkeypatch.setattr("search_api.jobs.auto_compaction._CHECK_SECONDS", 0.02)
    monkeypatch.setattr(AutoCompaction, "check", checked)
    monkeypatch.setattr(LocalStore, "publish", publish)
    engine.catalogue.delete([1, 2, 3])
    with TestClient(create_app(engine, LIMITS)) as client:
        wait_for_first(client)
        time.sleep(0.5)
        (job,) = client.get("/v1/jobs").json()["jobs"]
        assert (job["state"], len(checks)) == ("failed", 1)


def test_embeddings_that_were_purged_leave_the_index_within_a_day(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(create_app(engine)) as client:
        compaction = client.app.state.context.compaction
        client.delete("/v1/images/1")
        assert client.post("/v1/trash/purge", json={"ids": [1]}).json()["indexed"]
        assert compaction.check() is None  # the index is new
        monkeypatch.setattr("search_api.jobs.auto_compaction._DAY", timedelta(microseconds=1))
        job = compaction.check()
        assert job is not None
        assert job.kind == "compact"
        wait(client, job.id)
        assert not engine.store.holds_purged()
        assert compaction.check() is None
