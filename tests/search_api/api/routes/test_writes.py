"""Adding, changing and deleting over HTTP: each is visible in the next search."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from embed.corpus import FolderCorpus
from index.local.lock import store_lock
from search_api.api.app import create_app
from search_api.service.engine import SearchEngine
from tests.search_api.conftest import MeanColour, colour, id_of, png, source_of
from tests.search_api.helpers import NEW, add, assert_problem, first, search, wait

OTHER = (10, 20, 200)


def test_an_added_picture_is_in_the_next_search(client: TestClient, engine: SearchEngine) -> None:
    response = add(client, png(NEW), key="k1", payload='{"label": "pink", "price": 3}')
    assert response.status_code == 201
    body = response.json()
    (result,) = body.pop("results")
    assert result == {
        "filename": "0.png",
        "key": "k1",
        "id": 25,
        "status": "added",
        "existing": None,
        "error": None,
    }
    assert body == {"model": "sha256:mean-colour", "generation": 1, "sequence": 2}
    found = first(client, NEW)
    assert (found["id"], found["score"]) == (25, pytest.approx(1))
    file = {"name": "0.png", "bytes": len(png(NEW)), "format": "PNG", "width": 32, "height": 32}
    expected = {"label": "pink", "split": None, "source": "key:k1", "price": 3, "file": file}
    assert found["payload"] == expected
    info = client.get("/v1/index").json()
    assert (info["count"], info["pending"]) == (25, {"added": 1, "deleted": 0})
    where = '{"must": [{"key": "price", "range": {"gt": 2}}]}'
    assert [p["id"] for p in search(client, OTHER, 12, filter=where)["points"]] == [25]
    similar = client.get("/v1/images/25/similar", params={"limit": 30}).json()["points"]
    assert len(similar) == 24
    file = client.get("/v1/images/25/file")
    assert (file.status_code, file.headers["content-type"]) == (200, "image/png")


def test_the_same_key_replaces_the_picture_if_that_is_wanted(client: TestClient) -> None:
    payload = '{"a": 1, "label": "pink", "split": "val"}'
    first_id = add(client, png(NEW), key="k", payload=payload).json()["results"][0]["id"]
    response = add(client, png(OTHER), key="k", payload='{"b": 2}')
    detail = f"'k' is stored already with other content, as picture {first_id}; send replace=true"
    assert assert_problem(response, 409, detail)["title"]
    assert response.json()["type"] == "urn:lookalike:problem:key-exists"
    (error,) = response.json()["errors"]
    assert (error["status"], error["title"]) == (409, "key-exists")
    assert first(client, NEW)["payload"]["label"] == "pink"

    response = add(client, png(OTHER), png(NEW), key=["k", "k2"])
    assert response.status_code == 201
    refused, added = response.json()["results"]
    assert (refused["id"], refused["status"], refused["existing"]) == (None, None, first_id)
    assert (added["status"], added["error"]) == ("added", None)

    data = {"key": "k", "payload": '{"b": 2}', "replace": "true"}
    (again,) = add(client, png(OTHER), **data).json()["results"]
    assert (again["id"], again["status"]) == (first_id, "replaced")
    assert first(client, OTHER)["id"] == first_id
    # What is not given is kept.
    stored = first(client, OTHER)["payload"]
    assert (stored["a"], stored["b"], stored["label"], stored["split"]) == (1, 2, "pink", "val")
    client.delete(f"/v1/images/{added['id']}")
    assert first(client, NEW)["score"] < 0.999
    assert client.get("/v1/index").json()["count"] == 25
    (same,) = add(client, png(OTHER), key="k").json()["results"]
    assert (same["id"], same["status"]) == (first_id, "unchanged")
    (same,) = add(client, png(OTHER), key="k", payload='{"label": null}').json()["results"]
    assert (same["id"], same["status"]) == (first_id, "updated")
    stored = first(client, OTHER)["payload"]
    assert (stored["label"], stored["a"]) == (None, 1)
    ids = {add(client, png(NEW)).json()["results"][0]["id"] for _ in range(2)}
    assert len(ids) == 2


def test_a_bad_picture_does_not_affect_the_others(client: TestClient) -> None:
    response = add(
        client, png(NEW), b"rubbish", png(OTHER), key=["a", "b", "c"], payload='{"label": "x"}'
    )
    assert response.status_code == 201
    results = response.json()["results"]
    assert [r["key"] for r in results] == ["a", "b", "c"]
    assert [r["id"] for r in results] == [25, None, 26]
    assert results[1]["error"]["status"] == 415
    assert client.get("/v1/index").json()["labels"]["x"] == 2


@pytest.mark.parametrize(
    ("pictures", "data", "status", "words"),
    [
        ([b"rubbish"], {}, 415, "not a picture"),
        ([b"rubbish", b""], {}, 422, "none of the pictures"),
        ([png(NEW)], {"key": ["a", "b"]}, 422, "2 keys for 1 pictures"),
        ([png(NEW), png(NEW)], {"key": ["a", "a"]}, 422, "more than once"),
        ([png(NEW)], {"key": [""]}, 422, "key is empty"),
        ([png(NEW)], {"payload": "{"}, 422, "not JSON"),
        ([png(NEW)], {"payload": "[1]"}, 422, "expected a JSON object"),
        ([png(NEW)], {"payload": '{"label": 3}'}, 422, "payload.label is 3"),
        ([png(NEW)], {"payload": '{"source": "x"}'}, 422, "`source`"),
        ([png(NEW)], {"payload": '{"a": NaN}'}, 422, "finite"),
        ([png(NEW)] * 3, {"payload": ["{}", "{}"]}, 422, "2 payloads for 3"),
        ([png(NEW)], {"key": ["\ud800"]}, 422, ""),
    ],
)
def test_bad_additions_store_nothing(
    client: TestClient, pictures: list[bytes], data: dict, status: int, words: str
) -> None:
    try:
        response = add(client, *pictures, **data)
    except UnicodeEncodeError:
        return  # the client itself cannot send it
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert words in response.json()["detail"]
    assert client.get("/v1/index").json()["count"] == 24


def test_changes_are_in_the_next_search_and_survive_a_rebuild(
    client: TestClient, engine: SearchEngine
) -> None:
    one = id_of(client, "red", 3)
    before = client.get(f"/v1/images/{one}").json()["payload"]
    change = {"payload": {"label": "crimson", "tags": ["a", "b"]}}
    body = client.patch(f"/v1/images/{one}", json=change).json()
    expected = {
        "label": "crimson",
        "split": "train",
        "source": source_of("red", 3),
        "tags": ["a", "b"],
        "file": before["file"],
    }
    assert body["payload"] == expected
    where = '{"must": [{"key": "tags", "match": {"value": "b"}}]}'
    assert [p["id"] for p in search(client, OTHER, filter=where)["points"]] == [one]
    for params in ({}, {"reembed": True}):
        wait(client, client.post("/v1/index/rebuild", params=params).json()["id"])
        assert client.get(f"/v1/images/{one}").json()["payload"] == expected
    client.patch(f"/v1/images/{one}", json={"payload": {"c": 1}, "replace": True})
    payload = client.get(f"/v1/images/{one}").json()["payload"]
    assert payload == {"label": "crimson", "split": "train", "source": expected["source"], "c": 1}


def test_a_deleted_picture_stays_deleted(client: TestClient, engine: SearchEngine) -> None:
    one = first(client, colour("red", 3))["id"]
    assert client.delete(f"/v1/images/{one}").json()["deleted"] == 1
    assert first(client, colour("red", 3))["id"] != one
    assert client.get(f"/v1/images/{one}").status_code == 404
    assert client.get(f"/v1/images/{one}/similar").status_code == 404
    assert client.delete(f"/v1/images/{one}").status_code == 404
    job = wait(client, client.post("/v1/index/rebuild", params={"reembed": True}).json()["id"])
    assert (job["result"]["total"], job["result"]["removed"]) == (23, 0)
    assert client.get("/v1/index").json()["count"] == 23
    assert first(client, colour("red", 3))["payload"]["source"] != source_of("red", 3)


@pytest.mark.parametrize(
    "empty", [{}, {"must": []}, {"must": [{"should": []}, {"must": [{"must_not": []}]}]}]
)
def test_a_filter_without_conditions_deletes_nothing(client: TestClient, empty: Any) -> None:
    response = client.post("/v1/images/delete", json={"filter": empty})
    assert_problem(response, 422, "would delete everything")
    assert client.get("/v1/images").json()["total"] == 24


@pytest.mark.parametrize("name", ["a", "label"])
def test_a_payload_with_a_member_twice(client: TestClient, name: str) -> None:
    text = f'{{"{name}": "x", "{name}": "y"}}'
    files = {"images": ("a.png", png(colour("red", 1)))}
    response = client.post("/v1/images", files=files, data={"payload": text})
    assert_problem(response, 422, f"{name!r} twice")


def test_delete_by_ids_or_filter(client: TestClient) -> None:
    ids = [id_of(client, "blue", shade) for shade in (0, 1)]
    body = client.post("/v1/images/delete", json={"ids": [*ids, 999]}).json()
    assert (body["deleted"], body["generation"]) == (2, 1)
    where = {"must": [{"key": "label", "match": {"value": "red"}}]}
    assert client.post("/v1/images/delete", json={"filter": where}).json()["deleted"] == 8
    points = search(client, colour("red", 0), 24)["points"]
    assert len(points) == 14
    assert {p["payload"]["label"] for p in points} == {"green", "blue"}
    for body in ({}, {"ids": [1], "filter": where}, {"filter": {}}, {"ids": [-1]}):
        assert client.post("/v1/images/delete", json=body).status_code == 422
    assert client.get("/v1/index").json()["count"] == 14


def test_added_pictures_survive_rebuilds_and_restarts(
    client: TestClient, engine: SearchEngine, folder: Path
) -> None:
    one = add(client, png(NEW), key="k").json()["results"][0]["id"]
    job = wait(client, client.post("/v1/index/rebuild", params={"reembed": True}).json()["id"])
    assert job["result"]["removed"] == 0
    job = wait(client, client.post("/v1/index/compact").json()["id"])
    assert (job["kind"], job["result"]) == ("compact", {"generation": 3, "total": 25})
    assert client.get("/v1/index").json()["pending"] == {"added": 0, "deleted": 0}
    again = SearchEngine(MeanColour(), FolderCorpus(folder), engine.var)
    again.load()
    with TestClient(create_app(again)) as other:
        assert first(other, NEW)["id"] == one
        assert other.get(f"/v1/images/{one}/file").status_code == 200


def test_a_damaged_file_of_an_added_picture(client: TestClient, engine: SearchEngine) -> None:
    one = add(client, png(NEW)).json()["results"][0]["id"]
    (path,) = engine.var.glob("pictures/??/*")
    path.write_bytes(path.read_bytes()[:-1])
    response = client.get(f"/v1/images/{one}/file")
    assert response.status_code == 404
    assert "is damaged" in response.json()["detail"]


def test_bytes_are_removed_when_nothing_refers_to_them(
    client: TestClient, engine: SearchEngine
) -> None:
    kept, gone, in_snapshot = (
        add(client, png(rgb)).json()["results"][0]["id"] for rgb in (NEW, OTHER, (1, 2, 3))
    )
    client.post("/v1/snapshots", json={"name": "s"})
    client.delete(f"/v1/images/{in_snapshot}")
    late = add(client, png((9, 9, 9))).json()["results"][0]["id"]
    for one in (gone, late):
        client.delete(f"/v1/images/{one}")
    wait(client, client.post("/v1/index/compact").json()["id"])
    assert len(engine.blobs.names()) == 4  # what is in the trash can be restored
    client.post("/v1/trash/purge", json={"all": True})
    assert len(engine.blobs.names()) == 3
    client.delete("/v1/snapshots/s")
    wait(client, client.post("/v1/index/compact").json()["id"])
    assert len(engine.blobs.names()) == 1
    assert client.get(f"/v1/images/{kept}/file").status_code == 200


def test_two_processes_see_each_others_writes(engine: SearchEngine, folder: Path) -> None:
    other = SearchEngine(MeanColour(), FolderCorpus(folder), engine.var)
    other.load()
    with TestClient(create_app(engine)) as a, TestClient(create_app(other)) as b:
        one = add(a, png(NEW)).json()["results"][0]["id"]
        assert first(b, NEW)["id"] == one
        b.delete(f"/v1/images/{one}")
        assert first(a, NEW)["id"] != one
        wait(b, b.post("/v1/index/compact").json()["id"])
        # The other one serves its index and the changes until it has loaded the new one.
        while search(a, NEW)["generation"] == 1:
            time.sleep(0.01)
        assert search(a, NEW)["generation"] == 2
        assert first(a, NEW)["id"] != one


def test_payload_for_each_picture(client: TestClient) -> None:
    payloads = [json.dumps({"label": name, "n": n}) for n, name in enumerate(("x", "y"))]
    results = add(client, png(NEW), png(OTHER), payload=payloads).json()["results"]
    for n, result in enumerate(results):
        payload = client.get(f"/v1/images/{result['id']}").json()["payload"]
        assert (payload["label"], payload["n"]) == ("xy"[n], n)


def test_as_many_pictures_as_are_allowed_with_keys_and_payloads(client: TestClient) -> None:
    pictures = [png((n, 255 - n, 7)) for n in range(256)]
    keys = [f"key-{n}" for n in range(256)]
    payloads = [json.dumps({"n": n, "text": "é" * 1000}) for n in range(256)]
    response = add(client, *pictures[:200], key=keys[:200])
    assert response.status_code == 201
    response = add(client, *pictures, key=keys, payload=payloads)
    assert response.status_code == 201
    results = response.json()["results"]
    assert [result["key"] for result in results] == keys
    assert client.get(f"/v1/images/{results[255]['id']}").json()["payload"]["n"] == 255


def test_a_payload_does_not_grow_without_bound(client: TestClient, engine: SearchEngine) -> None:
    count = engine.catalogue.count()
    large = json.dumps({"text": "x" * 70_000})
    response = add(client, png(NEW), png(OTHER), key=["good", "large"], payload=["{}", large])
    assert_problem(response, 422, "the picture 'key:large' has 70,097 bytes as JSON; expected at")
    assert engine.catalogue.count() == count
    image = f"/v1/images/{add(client, png(NEW), key='good').json()['results'][0]['id']}"
    for n in range(6):
        fields = {f"field-{n}": "x" * 10_000}
        assert client.patch(image, json={"payload": fields}).status_code == 200
    response = client.patch(image, json={"payload": {"last": "x" * 10_000}})
    assert_problem(response, 422, "the picture 'key:good' has 70,187 bytes as JSON")
    assert len(client.get(image).json()["payload"]) == 10  # with source, label, split and file
    assert client.patch(image, json={"payload": {"a": 1}, "replace": True}).status_code == 200


def test_a_rebuild_in_another_process_is_named(client: TestClient, engine: SearchEngine) -> None:
    with store_lock(engine.var, "job-of-another"):
        for path in ("/v1/index/rebuild", "/v1/index/compact"):
            response = client.post(path)
            assert response.status_code == 409
            assert response.json()["type"] == "urn:lookalike:problem:store-busy"
            assert response.json()["job"] == "job-of-another"
        assert add(client, png(NEW)).status_code == 201
    assert client.post("/v1/index/compact").status_code == 202


def test_the_kind_of_index_is_kept(client: TestClient, engine: SearchEngine) -> None:
    assert client.post("/v1/index/compact", params={"kind": "nonsense"}).status_code == 422
    job = client.post("/v1/index/compact", params={"kind": "hnsw"}).json()["id"]
    assert wait(client, job)["state"] == "succeeded"
    wait(client, client.post("/v1/index/rebuild").json()["id"])
    info = client.get("/v1/index").json()
    assert (info["kind"], info["generation"], info["count"]) == ("hnsw", 3, 24)
    assert info["parameters"]["factory"] == "HNSW16,SQ8_direct"
    points = search(client, colour("green", 2), 24)["points"]
    assert len(points) == 24
    assert points[0]["payload"]["source"] == source_of("green", 2)
    for kind in ("IVF4,PQ2x24", "IVF1073741824,Flat", "PCA9,IVF4,Flat", "IVF4,Flat,Refine(Flat)"):
        response = client.post("/v1/index/compact", params={"kind": kind})
        assert response.status_code == 422
        assert response.json()["detail"].startswith(f"kind is '{kind}'; ")
    with store_lock(engine.var):
        assert client.post("/v1/index/compact", params={"kind": "ivf"}).status_code == 409
    assert engine.builder.kind() == "hnsw"
