"""A full disk, on every route that writes: 507 or 503, nothing half-written, and recovery."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from embed.corpus import FolderCorpus
from search_api.api.access import needed
from search_api.api.app import create_app
from search_api.keys import Level
from search_api.service.engine import SearchEngine
from search_api.settings import Limits
from tests.search_api.api.intake.test_strict import routes
from tests.search_api.conftest import MeanColour, encoder, folder, png, rebuild
from tests.search_api.helpers import OTHER, Wider, add, assert_problem, wait
from tests.torture.index.test_disk import disk

__all__ = ["encoder", "folder"]
FULL = {"urn:lookalike:problem:no-space", "urn:lookalike:problem:store-unavailable"}

REQUESTS: dict[str, Callable[[TestClient], Response]] = {
    "POST /v1/images": lambda c: add(c, png((9, 99, 199), (300, 300)), key="new"),
    "PATCH /v1/images/1": lambda c: c.patch("/v1/images/1", json={"payload": {"x": "y" * 9000}}),
    "DELETE /v1/images/1": lambda c: c.delete("/v1/images/2"),
    "POST /v1/images/delete": lambda c: c.post("/v1/images/delete", json={"ids": [3, 4]}),
    "POST /v1/images/restore": lambda c: c.post("/v1/images/restore", json={"last": True}),
    "POST /v1/trash/purge": lambda c: c.post("/v1/trash/purge", json={"ids": [5]}),
    "POST /v1/snapshots": lambda c: c.post("/v1/snapshots", json={"name": "tuesday"}),
    "POST /v1/snapshots/monday/restore": lambda c: c.post("/v1/snapshots/monday/restore"),
    "DELETE /v1/snapshots/monday": lambda c: c.delete("/v1/snapshots/monday"),
    "POST /v1/classifier/fit": lambda c: c.post("/v1/classifier/fit"),
    "POST /v1/index/rebuild": lambda c: c.post("/v1/index/rebuild?reembed=true"),
    "POST /v1/index/compact": lambda c: c.post("/v1/index/compact"),
    "POST /v1/models/sha256:0/embed": lambda c: c.post(f"/v1/models/{OTHER}/embed"),
    "POST /v1/models/sha256:0/switch": lambda c: c.post(f"/v1/models/{OTHER}/switch"),
}
# These make room, or change nothing on disk, and may succeed.
MAY_SUCCEED = {"DELETE /v1/snapshots/monday"}


class Full:
    """A server whose store is on a disk that can be filled to the last byte."""

    def __init__(self, engine: SearchEngine, client: TestClient, small: Path) -> None:
        self.engine, self.client, self._ballast = engine, client, small / "ballast"

    def fill(self) -> None:
        self.engine.catalogue._database.truncate_log()  # type: ignore[attr-defined]
        for step in (65536, 1):
            with self._ballast.open("ab", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(step))
                except OSError:
                    continue

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def state(self) -> dict[str, Any]:
        client = self.client
        images = client.get("/v1/images", params={"limit": 1000}).json()
        return {
            "points": images["points"],
            "sequence": images["sequence"],
            "trash": client.get("/v1/trash").json()["points"],
            "snapshots": [s["name"] for s in client.get("/v1/snapshots").json()["snapshots"]],
            "blobs": sorted(self.engine.blobs.names()),
        }


@pytest.fixture
def full(tmp_path: Path, folder: Path, encoder: MeanColour) -> Iterator[Full]:
    with disk(tmp_path / "disk", "24m") as small:
        other = Wider()
        engine = SearchEngine(
            encoder,
            FolderCorpus(folder),
            small / "var",
            open_model=lambda _: other,
            find_model=lambda digest: small if digest == OTHER else None,
        )
        rebuild(engine)
        limits = Limits(min_free_bytes=0, min_free_share=0)
        engine.storage.quotas = limits.quotas
        with TestClient(create_app(engine, limits), raise_server_exceptions=False) as client:
            assert add(client, png((8, 88, 188)), key="old").status_code == 201
            assert client.post("/v1/snapshots", json={"name": "monday"}).status_code == 201
            assert client.post("/v1/images/delete", json={"ids": [5, 6]}).status_code == 200
            yield Full(engine, client, small)


def test_every_writing_route_is_here(full: Full) -> None:
    writing = {
        f"{method} {path}"
        for method, path, _ in routes(full.client)
        if needed(method, path) is Level.WRITE
    }
    # To cancel a job is recorded in memory where it cannot be on disk.
    assert writing - {"DELETE /v1/jobs/x"} == set(REQUESTS)


@pytest.mark.parametrize("route", REQUESTS)
def test_a_full_disk(full: Full, route: str) -> None:
    client, request = full.client, REQUESTS[route]
    before = full.state()
    full.fill()
    response = request(client)
    if route not in MAY_SUCCEED:
        problem = assert_problem(response, response.status_code)
        assert response.status_code in (503, 507), problem
        assert problem["type"] in FULL
        assert full.state() == before
    files = {"image": ("q.png", png((8, 88, 188)))}
    assert client.post("/v1/search", files=files).status_code == 200
    full.make_room()
    assert [found for found in full.engine.store.verify() if found.problem is not None] == []
    if route not in MAY_SUCCEED:
        again = request(client)
        assert again.status_code in (200, 201, 202), again.text
        if again.status_code == 202:
            assert wait(client, again.json()["id"])["state"] == "succeeded"
        assert client.get("/readyz").status_code == 200
