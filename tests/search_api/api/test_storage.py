"""Quotas and full disks over HTTP: 507, and nothing is half-written."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from search_api.api.app import create_app
from search_api.service.engine import SearchEngine
from search_api.settings import Limits, Quotas
from tests.search_api.conftest import png
from tests.search_api.helpers import NEW, add, assert_problem, first, search
from tests.search_api.service.storage.test_quotas import Disk


@pytest.fixture
def limited(engine: SearchEngine) -> Iterator[TestClient]:
    limits = Limits(max_added_pictures=2, max_snapshots=1)
    engine.storage.quotas = limits.quotas
    with TestClient(create_app(engine, limits), raise_server_exceptions=False) as client:
        yield client


def test_a_quota_is_a_507_and_is_shown(limited: TestClient) -> None:
    assert add(limited, png(NEW), png((1, 2, 3))).status_code == 201
    problem = assert_problem(add(limited, png((3, 2, 1))), 507, "2 are stored, 0 left")
    assert problem["type"].endswith(":quota-exceeded")
    assert limited.post("/v1/snapshots", json={"name": "a"}).status_code == 201
    assert_problem(limited.post("/v1/snapshots", json={"name": "b"}), 507, "the quota is 1")
    storage = limited.get("/v1/index").json()["storage"]
    assert storage["added_pictures"] == {"used": 2, "limit": 2}
    assert storage["snapshots"] == {"used": 1, "limit": 1}
    assert storage["free_bytes"]["limit"] <= 2**30
    text = limited.get("/metrics").text
    assert 'lookalike_storage{value="used",what="added_pictures"} 2.0' in text
    assert 'lookalike_storage{value="limit",what="added_pictures"} 2.0' in text
    assert 'lookalike_storage{value="limit",what="added_bytes"}' not in text


def test_without_room_writes_are_507_and_the_rest_goes_on(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = add(client, png(NEW), key="k").json()["results"][0]["id"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(100_000, 95_001, 4_999))
    refused = [
        add(client, png((1, 2, 3))),
        client.patch(f"/v1/images/{id_}", json={"payload": {"a": 1}}),
        client.post("/v1/snapshots", json={"name": "s"}),
        client.post("/v1/index/rebuild"),
        client.post("/v1/index/compact"),
        client.post("/v1/classifier/fit"),
        client.post("/v1/images/restore", json={"last": True}),
    ]
    for response in refused:
        assert_problem(response, 507, "4,999 bytes are free", "lookalike purge")
    assert client.get("/v1/jobs").json()["jobs"] == []
    assert first(client, NEW)["id"] == id_
    assert client.delete(f"/v1/images/{id_}").status_code == 200
    done = client.post("/v1/trash/purge", json={"all": True}).json()
    assert (done["purged"], done["files"]) == (1, 1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_in_spite_of_it(
    client: TestClient, engine: SearchEngine, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def put(data: bytes) -> str:
        raise OSError(number, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(engine.blobs, "put", put)
        problem = assert_problem(add(client, png(NEW)), 507, "No space left")
        assert problem["type"].endswith(":no-space")
    assert client.get("/v1/images").json()["total"] == 24
    assert add(client, png(NEW)).status_code == 201  # it recovers by itself


def test_a_full_spool_is_a_507(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    big = png(NEW, (700, 700)) + bytes(2**21)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", full)
        assert_problem(add(client, big), 507, "No space left")
    assert search(client, NEW)["points"]


def test_another_error_of_the_system_is_a_500_as_before(
    client: TestClient, engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(data: bytes) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(engine.blobs, "put", put)
    assert_problem(add(client, png(NEW)), 500, "unexpected error")


def test_files_of_the_spool_are_gone_with_the_process(tmp_path: Path) -> None:
    """They have no name, so that nothing is left of them after kill -9."""
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        file.write(b"x")
        assert list(tmp_path.iterdir()) == []


def test_the_quotas_of_limits() -> None:
    assert Limits(max_added_bytes=5).quotas == Quotas(max_added_bytes=5)
