"""Switching to another model while the current one serves."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from index.contract import ModelChangedError
from index.local.lock import store_lock
from search_api.api.app import create_app
from search_api.service.engine import SearchEngine
from search_api.service.model_migration import encoder_of
from search_api.stores.model_store import keep_model, model_folder
from tests.search_api.conftest import compact, png, rebuild
from tests.search_api.helpers import NEW, OTHER, Wider, add, at_generation, first, search, wait
from tests.search_api.service.conftest import OLD, opened


@pytest.fixture
def store(folder: Path, tmp_path: Path) -> SearchEngine:
    engine = opened(folder, tmp_path / "var")
    rebuild(engine)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{}")
    (bundle / ".export" / "network").mkdir(parents=True)
    kept = keep_model(engine.var, bundle, OTHER)
    assert kept == model_folder(engine.var, OTHER)
    assert [path.name for path in kept.iterdir()] == ["bundle.json"]
    return engine


def test_a_whole_switch_over_http(store: SearchEngine, folder: Path) -> None:
    second = opened(folder, store.var)
    second.load()
    with TestClient(create_app(store)) as client, TestClient(create_app(second)) as other:
        added = add(client, png(NEW), key="k").json()["results"][0]["id"]
        models = client.get("/v1/models").json()
        assert models == {
            "serving": OLD,
            "generation": 1,
            "models": [
                {"model": OLD, "embedded": 25, "total": 25},
                {"model": OTHER, "embedded": 0, "total": 25},
            ],
        }
        assert client.get(f"/v1/models/{OTHER}/diff").status_code == 422
        assert client.post("/v1/snapshots", json={"name": "old"}).status_code == 201
        job = wait(client, client.post(f"/v1/models/{OTHER}/embed").json()["id"])
        assert job["result"] == {"embedded": 25, "skipped": 0}
        assert search(client, NEW)["model"] == OLD
        report = client.get(f"/v1/models/{OTHER}/diff", params={"k": 3}).json()
        assert (report["model"], report["queries"], report["k"]) == (OTHER, 25, 3)
        assert (report["serving"], report["generation"]) == (OLD, 1)
        # The same colours in another order: no neighbour changes.
        assert (report["overlap"], report["first_kept"]) == (1.0, 1.0)

        late = add(other, png((9, 99, 9))).json()["results"][0]["id"]
        job = wait(client, client.post(f"/v1/models/{OTHER}/switch").json()["id"])
        assert job["result"] == {"generation": 2, "embedded": 1, "skipped": 0}
        for server in (client, other):
            answer = search(server, NEW)
            assert (answer["model"], answer["generation"]) == (OTHER, 2)
            assert answer["points"][0]["id"] == added
            assert first(server, (9, 99, 9))["id"] == late
            assert server.get("/v1/index").json()["dimension"] == 4
            assert add(server, png(NEW)).status_code == 201
        assert client.get(f"/v1/models/{OTHER}/diff").status_code == 409
        assert client.post(f"/v1/models/{OTHER}/switch").status_code == 409
        before = client.get("/v1/images").json()
        refused = client.post("/v1/snapshots/old/restore")
        assert refused.status_code == 409
        assert refused.json()["type"] == "urn:lookalike:problem:snapshot-of-another-model"
        assert client.get("/v1/images").json() == before
        unknown = client.post(f"/v1/models/sha256:{'c' * 64}/embed")
        assert unknown.status_code == 404
        assert "index model BUNDLE" in unknown.json()["detail"]
    again = opened(folder, store.var, Wider())
    assert again.load().generation == 2
    assert again.served.current().index.count() == 28
    again.close()


def test_cancelled_over_http_and_resumed(
    store: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.service.corpus_sync.BATCH", 2)
    model = store.model(OTHER)
    assert isinstance(model, Wider)
    model.wait = 0.05
    with TestClient(create_app(store)) as client:
        job = client.post(f"/v1/models/{OTHER}/embed").json()["id"]
        assert client.post("/v1/index/rebuild").json()["job"] == job
        while client.get(f"/v1/jobs/{job}").json()["progress"]["done"] < 4:
            time.sleep(0.01)
        assert client.delete(f"/v1/jobs/{job}").status_code == 202
        done = wait(client, job)
        assert done["state"] == "cancelled"
        assert "continues from there" in done["error"]
        assert client.delete(f"/v1/jobs/{job}").status_code == 409
        assert client.delete("/v1/jobs/unknown").status_code == 404
        before = store.catalogue.staging.counts()[OTHER]
        assert 4 <= before < 24
        model.wait = 0
        model.encoded = 0
        wait(client, client.post(f"/v1/models/{OTHER}/embed").json()["id"])
        assert model.encoded == 24 - before
        assert search(client, NEW)["model"] == OLD


def test_an_interrupted_switch_continues_and_is_never_compacted_with_the_old_model(
    store: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.builder.embed(encoder_of(store, OTHER))
    store.catalogue.staging.promote(OTHER)
    with pytest.raises(ModelChangedError, match=f"of the model {OTHER}"):
        compact(store)
    monkeypatch.setattr("search_api.jobs.auto_compaction._CHECK_SECONDS", 0.05)
    with ExitStack() as building:
        building.enter_context(store_lock(store.var))  # as while the index is built
        with TestClient(create_app(store)) as client:
            assert search(client, NEW)["model"] == OLD
            refused = add(client, png(NEW))
            assert refused.status_code == 409
            assert refused.json()["type"] == "urn:lookalike:problem:model-changed"
            building.close()  # killed before it was complete
            assert at_generation(client, 2)["model"] == OTHER
            assert search(client, NEW)["model"] == OTHER
            assert add(client, png(NEW)).status_code == 201
