"""Snapshots over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from fastapi.testclient import TestClient

from search_api.service.engine import SearchEngine
from tests.search_api.conftest import colour, png
from tests.search_api.helpers import NEW, add, search


def test_snapshots_over_http(client: TestClient) -> None:
    empty = client.get("/v1/snapshots").json()
    stamp = {"model": empty["model"], "generation": 1, "sequence": empty["sequence"]}
    assert empty == {"snapshots": [], **stamp}
    made = client.post("/v1/snapshots", json={"name": "before"})
    assert made.status_code == 201
    assert made.json()["count"] == 24
    assert (made.json()["model"], made.json()["generation"]) == (stamp["model"], 1)
    assert client.post("/v1/snapshots", json={"name": "before"}).status_code == 409
    assert client.post("/v1/snapshots", json={"name": "../x"}).status_code == 422
    assert client.post("/v1/snapshots").status_code == 201
    before = search(client, colour("red", 1), 24)["points"]
    add(client, png(NEW))
    client.post("/v1/images/delete", json={"ids": [before[0]["id"]]})
    changed = client.patch(f"/v1/images/{before[1]['id']}", json={"payload": {"label": None}})
    expected = {name: changed.json()[name] for name in stamp}
    assert expected == {**stamp, "sequence": stamp["sequence"] + 3}
    listed = client.get("/v1/images").json()
    assert {name: listed[name] for name in stamp} == expected
    one = client.get(f"/v1/images/{before[1]['id']}").json()
    assert {name: one[name] for name in stamp} == expected
    body = client.post("/v1/snapshots/before/restore").json()
    assert (body["snapshot"], body["changed"], body["deleted"]) == ("before", 2, 1)
    assert search(client, colour("red", 1), 24)["points"] == before
    assert client.post("/v1/snapshots/none/restore").status_code == 404
    names = [s["name"] for s in client.get("/v1/snapshots").json()["snapshots"]]
    assert names[-1] == "before"
    assert client.delete("/v1/snapshots/before").status_code == 204
    assert client.delete("/v1/snapshots/before").status_code == 404


def test_a_repeated_request_learns_that_the_first_one_succeeded(client: TestClient) -> None:
    made = client.post("/v1/snapshots", json={"name": "monday"}).json()
    again = client.post("/v1/snapshots", json={"name": "monday"})
    assert again.status_code == 409
    assert again.json()["type"] == "urn:lookalike:problem:snapshot-exists"
    assert f"'monday', of 24 pictures, made at {made['created']}" in again.json()["detail"]


def test_two_requests_at_once(client: TestClient) -> None:
    for number in range(3):
        body = {"name": f"pair-{number}"}
        with ThreadPoolExecutor(2) as threads:
            make = partial(client.post, "/v1/snapshots", json=body)
            done = [each.result() for each in (threads.submit(make), threads.submit(make))]
        assert sorted(response.status_code for response in done) == [201, 409]
        restored = client.post(f"/v1/snapshots/pair-{number}/restore")
        assert restored.json()["changed"] == 0


def test_missing_bytes_are_refused_unless_allowed(client: TestClient, engine: SearchEngine) -> None:
    add(client, png(NEW))
    client.post("/v1/snapshots", json={"name": "whole"})
    (path,) = engine.var.glob("pictures/??/*")
    path.unlink()
    for response in (
        client.post("/v1/snapshots", json={"name": "other"}),
        client.post("/v1/snapshots/whole/restore"),
    ):
        assert response.status_code == 409
        assert response.json()["type"] == "urn:lookalike:problem:snapshot-incomplete"
        assert "the bytes of 1 added pictures" in response.json()["detail"]
    allowed = client.post("/v1/snapshots", json={"name": "other", "allow_missing": True})
    assert allowed.status_code == 201
    restored = client.post("/v1/snapshots/whole/restore", params={"allow_missing": True})
    assert restored.status_code == 200
    add(client, png(NEW))  # mends it
    assert client.post("/v1/snapshots/whole/restore").status_code == 200
