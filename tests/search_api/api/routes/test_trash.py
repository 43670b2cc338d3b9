"""The trash over HTTP: listing, undoing a delete, deleting for good."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from embed.corpus import FolderCorpus
from search_api.api.app import create_app
from search_api.service.engine import SearchEngine
from search_api.settings import Limits, Quotas
from tests.search_api.conftest import MeanColour, png, rebuild
from tests.search_api.helpers import NEW, OTHER, Wider, add, assert_problem, first, search, wait


def test_a_delete_is_undone_with_the_same_id_and_payload(
    client: TestClient, engine: SearchEngine, folder: Path
) -> None:
    id_ = add(client, png(NEW), key="k", payload='{"label": "pink", "n": 1}').json()["results"][0][
        "id"
    ]
    before = first(client, NEW)
    deleted = client.delete(f"/v1/images/{id_}").json()
    assert deleted["deleted"] == 1
    until = datetime.fromisoformat(deleted["restorable_until"])
    assert first(client, NEW)["id"] != id_
    assert client.get(f"/v1/images/{id_}").status_code == 404
    assert client.get(f"/v1/images/{id_}/file").status_code == 404
    listed = client.get("/v1/trash").json()
    assert (listed["total"], listed["next_after"]) == (1, None)
    (point,) = listed["points"]
    assert (point["id"], point["key"]) == (id_, "k")
    assert point["payload"].pop("file")["name"] == "0.png"
    assert point["payload"] == {"label": "pink", "split": None, "source": "key:k", "n": 1}
    since = datetime.fromisoformat(point["deleted"])
    assert (datetime.fromisoformat(point["expires"]) - since).days == 30
    assert abs((until - since).total_seconds() - 30 * 86_400) < 60

    other = SearchEngine(MeanColour(), FolderCorpus(folder), engine.var)
    other.load()
    with TestClient(create_app(other)) as second:
        assert first(second, NEW)["id"] != id_
        restored = client.post("/v1/images/restore", json={"last": True}).json()
        assert (restored["ids"], restored["conflicts"]) == ([id_], [])
        assert first(client, NEW) == before
        assert first(second, NEW) == before  # another server sees an addition
    assert client.get(f"/v1/images/{id_}/file").status_code == 200
    assert client.get("/v1/trash").json()["total"] == 0
    assert client.post("/v1/images/restore", json={"last": True}).json()["ids"] == []


def test_a_key_added_again_is_a_conflict(client: TestClient) -> None:
    ids = [r["id"] for r in add(client, png(NEW), png((1, 2, 3)), key=["k", "l"]).json()["results"]]
    client.post("/v1/images/delete", json={"ids": ids})
    new = add(client, png((9, 9, 9)), key="k").json()["results"][0]["id"]
    response = client.post("/v1/images/restore", json={"ids": [ids[0]]})
    problem = assert_problem(response, 409, f"{ids[0]} (now {new})", "delete the newer picture")
    assert problem["ids"] == [ids[0]]
    both = client.post("/v1/images/restore", json={"ids": ids})
    assert both.status_code == 200
    assert both.json()["ids"] == [ids[1]]
    assert both.json()["conflicts"] == [{"id": ids[0], "stored_as": new}]
    problem = assert_problem(client.post("/v1/images/restore", json={"ids": [7]}), 404, "the trash")
    assert problem["ids"] == [7]


def test_purging_says_what_goes_and_what_stays(client: TestClient, engine: SearchEngine) -> None:
    ids = [r["id"] for r in add(client, png(NEW), png((1, 2, 3))).json()["results"]]
    client.post("/v1/snapshots", json={"name": "monday"})
    ids += [add(client, png((4, 5, 6))).json()["results"][0]["id"]]
    client.post("/v1/images/delete", json={"ids": ids})
    done = client.post("/v1/trash/purge", json={"ids": ids[1:]}).json()
    assert (done["purged"], done["files"], done["kept_by"]) == (2, 1, {"monday": 1})
    assert [p["id"] for p in client.get("/v1/trash").json()["points"]] == ids[:1]
    assert client.post("/v1/images/restore", json={"ids": ids[1:]}).status_code == 404
    done = client.post("/v1/trash/purge", json={"all": True}).json()
    assert (done["purged"], done["kept_by"]) == (1, {"monday": 1})
    client.delete("/v1/snapshots/monday")
    engine.trash.expire()
    assert engine.blobs.names() == []


def test_pages(client: TestClient) -> None:
    client.post("/v1/images/delete", json={"ids": [3, 5, 9]})
    page = client.get("/v1/trash", params={"limit": 2}).json()
    assert ([p["id"] for p in page["points"]], page["next_after"]) == ([3, 5], 5)
    page = client.get("/v1/trash", params={"limit": 2, "after": 5}).json()
    assert ([p["id"] for p in page["points"]], page["next_after"], page["total"]) == ([9], None, 3)
    assert page["points"][0]["key"] is None


@pytest.mark.parametrize("path", ["/v1/images/restore", "/v1/trash/purge"])
def test_wrong_use(client: TestClient, path: str) -> None:
    name = "last" if "restore" in path else "all"
    assert_problem(client.post(path, json={}), 422, "either `ids` or")
    assert_problem(client.post(path, json={"ids": [1], name: True}), 422, f"`{name}`, and not both")
    many = {"ids": list(range(100_001))}
    assert_problem(client.post(path, json=many), 422, "send at most 100,000")
    assert_problem(client.get("/v1/trash", params={"limit": 0}), 422)


def test_without_days_a_delete_is_final(folder: Path, tmp_path: Path) -> None:
    limits = Limits(trash_days=0)
    engine = SearchEngine(
        MeanColour(), FolderCorpus(folder), tmp_path / "var", quotas=limits.quotas
    )
    rebuild(engine)
    with TestClient(create_app(engine, limits)) as client:
        id_ = add(client, png(NEW)).json()["results"][0]["id"]
        assert client.delete(f"/v1/images/{id_}").json()["restorable_until"] is None
        assert client.get("/v1/trash").json()["total"] == 0
        assert engine.blobs.names() == []


def test_after_a_switch_of_models_a_compaction_embeds_what_is_restored(
    client: TestClient, engine: SearchEngine
) -> None:
    id_ = add(client, png(NEW), key="k").json()["results"][0]["id"]
    client.delete(f"/v1/images/{id_}")
    wider = engine._opened = Wider()
    engine.builder.switch(wider)
    assert first(client, NEW)["id"] != id_
    restored = client.post("/v1/images/restore", json={"ids": [id_]}).json()
    assert (restored["ids"], restored["unembedded"], restored["model"]) == ([id_], 1, OTHER)
    assert client.get(f"/v1/images/{id_}").status_code == 200
    (job,) = [j for j in client.get("/v1/jobs").json()["jobs"] if j["kind"] == "compact"]
    wait(client, job["id"])
    assert search(client, NEW)["model"] == OTHER
    assert first(client, NEW)["id"] == id_


def test_the_quotas_are_limits() -> None:
    limits = Limits(trash_days=2, max_trash_pictures=3)
    assert limits.quotas == Quotas(trash_days=2, max_trash_pictures=3)
