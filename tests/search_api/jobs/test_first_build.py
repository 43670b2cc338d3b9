"""The first build: it serves what is embedded so far, is continued, and waits for others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from embed.corpus import FolderCorpus
from index.contract import CancelledError, JobControl, NoSpaceError
from search_api.api.app import create_app
from search_api.jobs.tasks import Task
from search_api.service.corpus_sync import sync_corpus
from search_api.service.engine import SearchEngine
from tests.search_api.conftest import MeanColour, colour, png, rebuild
from tests.search_api.helpers import assert_problem, first, until

RED = colour("red", 0)


class Gate(MeanColour):
    """Encodes a batch each time it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = threading.Semaphore(0)

    def encode(self, pictures, *, spare=False):
        if len(pictures) > 1:
            assert self.turns.acquire(timeout=30)
        return super().encode(pictures)


@pytest.fixture(autouse=True)
def batches_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search_api.service.corpus_sync.BATCH", 5)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def empty(gate: Gate, folder: Path, tmp_path: Path) -> Iterator[SearchEngine]:
    """An engine on an empty store."""
    engine = SearchEngine(gate, FolderCorpus(folder), tmp_path / "empty")
    yield engine
    for _ in range(100):
        gate.turns.release()
    engine.close()


def ready(client: TestClient) -> bool:
    return client.get("/readyz").status_code == 200


def test_what_is_embedded_so_far_can_be_searched(empty: SearchEngine, gate: Gate) -> None:
    with TestClient(create_app(empty, build=Task("rebuild"))) as client:
        until(lambda: client.get("/v1/jobs").json()["jobs"] != [])
        (job,) = client.get("/v1/jobs").json()["jobs"]
        until(lambda: client.get("/v1/jobs").json()["jobs"][0]["progress"]["total"] == 24)
        problem = assert_problem(
            client.get("/readyz"), 503, "embedding, 0 of 24", "once the first pictures"
        )
        assert problem["type"] == "urn:lookalike:problem:not-ready"
        assert problem["job"] == job["id"]
        for response in (
            client.get("/v1/index"),
            client.post("/v1/search", files={"image": ("q.png", png(RED))}),
            client.post("/v1/images", files={"images": ("q.png", png(RED))}),
            client.delete("/v1/images/1"),
        ):
            assert_problem(response, 503, "being built")
        assert client.get("/").status_code == client.get("/livez").status_code == 200
        assert empty.catalogue.count() == 0  # nothing of the refused upload
        gate.turns.release()
        until(lambda: ready(client))
        info = client.get("/v1/index").json()
        assert (info["count"], info["generation"], info["complete"]) == (5, 1, False)
        gate.turns.release()
        until(lambda: client.get("/v1/index").json()["count"] == 10)
        assert first(client, colour("blue", 0))["payload"]["label"] == "blue"
        for _ in range(3):
            gate.turns.release()
        until(lambda: client.get("/v1/index").json()["complete"])
        info = client.get("/v1/index").json()
        assert (info["count"], info["generation"]) == (24, 2)
        assert info["pending"] == {"added": 0, "deleted": 0}
        assert len(client.get("/v1/jobs").json()["jobs"]) == 1


def test_an_interrupted_build_goes_on_and_serves_at_once(
    empty: SearchEngine, gate: Gate, folder: Path
) -> None:
    done = []

    def stop() -> bool:
        done.append(1)
        return len(done) > 2

    gate.turns.release(2)
    with pytest.raises(CancelledError):
        empty.builder.rebuild(gate, empty.corpus, JobControl(cancelled=stop), first=True)
    assert empty.builder.unfinished()
    again = SearchEngine(gate, FolderCorpus(folder), empty.var)
    assert again.load().generation == 1
    with TestClient(create_app(again, build=Task("rebuild"))) as client:
        info = client.get("/v1/index").json()
        assert (info["count"], info["complete"]) == (10, False)
        gate.turns.release(3)
        until(lambda: client.get("/v1/index").json()["complete"])
        assert client.get("/v1/index").json()["count"] == 24
        assert gate.encoded == 24  # none of them twice


def test_what_was_embedded_without_an_index_is_served_first(
    empty: SearchEngine, gate: Gate
) -> None:
    gate.turns.release(1)
    done: list[int] = []

    def stop() -> bool:
        done.append(1)
        return len(done) > 1

    with pytest.raises(CancelledError):
        rebuild(empty, JobControl(cancelled=stop))  # as by `lookalike index build`
    assert not empty.ready
    with TestClient(create_app(empty, build=Task("rebuild"))) as client:
        until(lambda: ready(client))
        assert client.get("/v1/index").json()["count"] == 5
        gate.turns.release(9)


def test_a_cancelled_build_is_left_until_somebody_asks(empty: SearchEngine, gate: Gate) -> None:
    with TestClient(create_app(empty, build=Task("rebuild"))) as client:
        until(lambda: client.get("/v1/jobs").json()["jobs"] != [])
        (job,) = client.get("/v1/jobs").json()["jobs"]
        gate.turns.release()
        until(lambda: ready(client))
        client.delete(f"/v1/jobs/{job['id']}")
        for _ in range(9):
            gate.turns.release()
        until(lambda: client.get("/v1/jobs").json()["jobs"][0]["state"] == "cancelled")
        assert client.get("/v1/index").json()["complete"] is False
        assert client.post("/v1/index/rebuild").status_code == 202
        until(lambda: client.get("/v1/index").json()["complete"])
        assert client.get("/v1/index").json()["count"] == 24


def test_a_build_that_cannot_begin_is_tried_again(
    empty: SearchEngine, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.jobs.first_build._REST_SECONDS", 0.05)
    refused: list[int] = []

    def full(*_: object) -> None:
        refused.append(1)
        if len(refused) < 3:
            raise NoSpaceError("no room")

    monkeypatch.setattr(type(empty.storage), "check_room", full)
    gate.turns.release(9)
    with TestClient(create_app(empty, build=Task("rebuild"))) as client:
        assert_problem(client.get("/readyz"), 503, "no index is loaded yet")
        until(lambda: ready(client))
        assert client.get("/v1/index").json()["count"] >= 5


def test_who_waits_for_another_builder_serves_what_that_one_builds(
    empty: SearchEngine, folder: Path
) -> None:
    other = SearchEngine(MeanColour(), FolderCorpus(folder), empty.var)
    with (
        closing(other),
        other.store.lock("theirs"),
        TestClient(create_app(empty, build=Task("rebuild"))) as client,
    ):
        assert_problem(client.get("/readyz"), 503, "no index is loaded yet")
        sync_corpus(other.encoder, other.corpus, other.catalogue, JobControl())
        other.store.publish(other.encoder.digest, 3, "exact")
        until(lambda: ready(client))
        assert client.get("/v1/index").json()["count"] == 24
        assert client.get("/v1/jobs").json()["jobs"] == []


def test_a_complete_store_is_left_alone(engine: SearchEngine) -> None:
    with TestClient(create_app(engine, build=Task("rebuild"))) as client:
        assert client.get("/v1/index").json()["complete"] is True
        assert client.get("/v1/jobs").json()["jobs"] == []
