"""Going over to another model while the present one serves."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from embed.corpus import FolderCorpus
from embed.encoder import Encoding
from index.catalogue import ModelChangedError
from search_api import changeover
from search_api.app import create_app
from search_api.engine import SearchEngine
from search_api.ingest import CancelledError
from search_api.results import Page
from search_api.shelf import model_folder, shelve
from search_api.store import store_lock
from search_api.writer import Upload
from tests.search_api.conftest import MeanColour, colour, png, source_of
from tests.search_api.test_index import wait
from tests.search_api.test_writes import NEW, add, first, folded, search

OLD = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


class Wider(MeanColour):
    """Another model: four dimensions, colours turned round."""

    dimension = 4

    def __init__(self, digest: str = OTHER) -> None:
        super().__init__(digest)
        self.wait = 0.0

    def encode(self, pictures, *, spare=False):
        time.sleep(self.wait)
        probabilities, embeddings = super().encode(pictures)
        turned = np.hstack((embeddings[:, ::-1], np.zeros((len(embeddings), 1), np.float32)))
        return Encoding(probabilities, np.ascontiguousarray(turned))


def opened(folder: Path, var: Path, encoder: MeanColour | None = None) -> SearchEngine:
    models = {"a" * 64: MeanColour(OLD), "b" * 64: Wider()}
    return SearchEngine(
        encoder or models["a" * 64],
        FolderCorpus(folder),
        var,
        open_model=lambda path: models[path.name],
    )


@pytest.fixture
def store(folder: Path, tmp_path: Path) -> SearchEngine:
    engine = opened(folder, tmp_path / "var")
    engine.rebuild()
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{}")
    (bundle / ".export" / "network").mkdir(parents=True)
    kept = shelve(engine.var, bundle, OTHER)
    assert kept == model_folder(engine.var, OTHER)
    assert [path.name for path in kept.iterdir()] == ["bundle.json"]
    return engine


def test_the_whole_way_over_http(store: SearchEngine, folder: Path) -> None:
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
    monkeypatch.setattr("search_api.ingest.BATCH", 2)
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
        assert "goes on from there" in done["error"]
        assert client.delete(f"/v1/jobs/{job}").status_code == 409
        assert client.delete("/v1/jobs/unknown").status_code == 404
        before = store.catalogue.staging.counts()[OTHER]
        assert 4 <= before < 24
        model.wait = 0
        model.encoded = 0
        wait(client, client.post(f"/v1/models/{OTHER}/embed").json()["id"])
        assert model.encoded == 24 - before
        assert search(client, NEW)["model"] == OLD


def test_interrupted_between_the_record_and_the_index(store: SearchEngine, folder: Path) -> None:
    changeover.embed(store, OTHER)
    store.catalogue.staging.promote(OTHER)
    # The old model still answers here; a new process makes the index from the record.
    assert store.search(png(colour("red", 1))).model == OLD
    fresh = opened(folder, store.var, Wider())
    assert fresh.load().model_digest == OTHER
    assert "Rebuilt from the catalogue" in fresh.loaded
    assert store.served.current().manifest.model_digest == OTHER
    result = store.search(png(colour("red", 1)), Page(1))
    assert (result.model, result.points[0].entry.source) == (OTHER, source_of("red", 1))
    fresh.close()


def test_what_cannot_be_read_is_kept_and_named(store: SearchEngine, folder: Path) -> None:
    with TestClient(create_app(store)) as client:
        one = add(client, png(NEW), key="k").json()["results"][0]["id"]
    store = opened(folder, store.var)
    store.load()
    (path,) = store.var.glob("pictures/??/*")
    path.unlink()
    manifest, counts = changeover.switch(store, OTHER)
    assert list(counts.skipped) == ["key:k"]
    assert manifest.count == 24
    assert store.catalogue.get([one])[0].source == "key:k"
    assert store.catalogue.model_digests() == {OLD: 1, OTHER: 24}
    store.close()


def test_rebuilding_with_another_model_serves_the_old_until_the_end(
    store: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.ingest.BATCH", 10)
    encoder = Wider("sha256:" + "d" * 64)
    other = opened(folder, store.var, encoder)
    with pytest.raises(CancelledError):
        other.rebuild(cancelled=lambda: encoder.encoded >= 20)
    assert store.search(png(colour("red", 1)), Page(24)).model == OLD
    assert store.catalogue.model_digests() == {OLD: 24}
    _, counts = other.rebuild()
    assert (counts.embedded, counts.total) == (4, 24)
    assert encoder.encoded == 24
    other.close()


def test_what_is_added_in_the_moment_of_going_over_is_found(
    store: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last look at what is missing and the switch another server may add."""
    second = opened(folder, store.var)
    second.load()
    promote = store.catalogue.staging.promote
    late: list[object] = []

    def add_first(digest: str) -> int:
        if not late:
            late.extend(second.writer.add([Upload(png(NEW), "late"), Upload(png((9, 99, 9)))]))
        return promote(digest)

    monkeypatch.setattr(store.catalogue.staging, "promote", add_first)
    manifest, counts = changeover.switch(store, OTHER)
    assert (manifest.count, counts.embedded, counts.total) == (26, 26, 26)
    found = store.search(png(NEW), Page(1))
    assert (found.model, found.points[0].entry.source) == (OTHER, "key:late")
    assert store.catalogue.model_digests() == {OTHER: 26}
    store.catalogue.delete([int(str(i)) for i in late])
    second.close()


def test_pictures_that_can_be_read_again_are_embedded_when_changes_are_folded_in(
    store: SearchEngine, folder: Path
) -> None:
    with TestClient(create_app(store)) as client:
        one = add(client, png(NEW), key="k").json()["results"][0]["id"]
    store = opened(folder, store.var)
    store.load()
    (path,) = store.var.glob("pictures/??/*")
    data = path.read_bytes()
    path.unlink()
    assert changeover.switch(store, OTHER)[0].count == 24
    path.write_bytes(data)
    assert store.compact().count == 25
    assert store.search(png(NEW), Page(1)).points[0].entry.id == one
    store.close()


def test_an_interrupted_change_of_model_goes_on_and_is_never_folded_into_the_old_one(
    store: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changeover.embed(store, OTHER)
    store.catalogue.staging.promote(OTHER)
    with pytest.raises(ModelChangedError, match=f"of the model {OTHER}"):
        store.compact()
    monkeypatch.setattr("search_api.writing._LOOK_SECONDS", 0.05)
    with ExitStack() as building:
        building.enter_context(store_lock(store.var))  # as while the index is made
        with TestClient(create_app(store)) as client:
            assert search(client, NEW)["model"] == OLD
            refused = add(client, png(NEW))
            assert refused.status_code == 409
            assert refused.json()["type"] == "urn:lookalike:problem:model-changed"
            building.close()  # killed before it was there
            assert folded(client, 2)["model"] == OTHER
            assert search(client, NEW)["model"] == OTHER
            assert add(client, png(NEW)).status_code == 201


def test_a_cancelled_rebuild_with_another_model_leaves_one_that_answers(
    store: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.ingest.BATCH", 10)
    (folder / "train" / "red" / "new.png").write_bytes(png((250, 5, 5)))
    encoder = Wider("sha256:" + "d" * 64)
    other = opened(folder, store.var, encoder)
    with pytest.raises(CancelledError):
        other.rebuild(cancelled=lambda: encoder.encoded >= 24)
    assert other.search(png(colour("red", 1)), Page(30)).model == encoder.digest
    assert other.served.current().index.count() == 24
    other.close()
