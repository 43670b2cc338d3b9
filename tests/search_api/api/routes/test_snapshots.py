"""Snapshots over HTTP."""

from __future__ import annotations

from fastapi.testclient import TestClient

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
