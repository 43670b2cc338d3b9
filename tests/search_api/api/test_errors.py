"""Problems show neither the server's paths nor more than the start of an input."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient

from index.contract import (
    BlobError,
    CatalogueError,
    GenerationError,
    SnapshotError,
    StoreBusyError,
)
from search_api.service.engine import SearchEngine
from tests.search_api.helpers import assert_problem


@pytest.mark.parametrize(
    "kind", [BlobError, CatalogueError, GenerationError, SnapshotError, StoreBusyError, OSError]
)
def test_no_path_of_the_server_is_shown(
    client: TestClient,
    engine: SearchEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[Exception],
) -> None:
    """The log has it, in a line of the same request."""
    path = engine.var / "generations" / "7"
    caplog.set_level(logging.INFO)

    def fail(*_: object) -> None:
        raise kind(f"{path} cannot be read: [Errno 5] {path}/index.faiss")

    monkeypatch.setattr(engine, "summary", fail)
    answer = client.get("/v1/index")
    assert answer.status_code >= 400
    assert str(engine.var.parent) not in answer.text
    if kind is not OSError:
        assert "generations/7 cannot be read: [Errno 5] generations/7/index.faiss" in answer.text
    assert str(path) in caplog.text


def test_a_failed_job_and_a_damaged_snapshot_show_no_path(
    client: TestClient, engine: SearchEngine
) -> None:
    context: Any = client.app.state.context  # type: ignore[attr-defined]

    def fail(_: object) -> None:
        raise CatalogueError(f"{engine.var}/catalogue.sqlite: disk I/O error")

    job = context.jobs.start("count", fail)
    context.jobs._thread.join()
    assert client.get(f"/v1/jobs/{job.id}").json()["error"] == "catalogue.sqlite: disk I/O error"
    assert client.post("/v1/snapshots", json={"name": "monday"}).status_code == 201
    for file in (engine.var / "snapshots" / "monday").iterdir():
        file.write_bytes(b"rubbish")
    (snapshot,) = client.get("/v1/snapshots").json()["snapshots"]
    assert snapshot["problem"]
    assert str(engine.var) not in snapshot["problem"]
    assert client.get("/v1/index").json()["corpus"] == "pictures"


def test_what_was_sent_as_a_path_is_shown(client: TestClient) -> None:
    assert_problem(client.get("/etc/passwd"), 404, "/etc/passwd does not exist")


def test_many_errors_are_counted_not_listed(client: TestClient) -> None:
    ids = {"positive": ["x" * 1000] * 500, "y" * 10_000: 1}
    problem = assert_problem(client.post("/v1/recommend", json=ids), 422, "more")
    assert len(problem["errors"]) == 20
    assert len(json.dumps(problem)) < 6000
