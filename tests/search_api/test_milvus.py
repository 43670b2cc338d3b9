"""The API over each engine: the same requests, the same answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from embed.corpus import FolderCorpus
from index.blobs.folder import FolderBlobs
from index.blobs.objects import ObjectBlobs
from index.contract import CancelledError, JobControl
from index.local.store import LocalStore
from search_api.api.app import create_app
from search_api.jobs.tasks import Task
from search_api.offline.shards import Shard, embed_shard, import_shards, shard_folders
from search_api.service.engine import SearchEngine
from search_api.service.ingest import Upload
from search_api.service.model_migration import candidates, encoder_in_use, encoder_of
from tests.index.milvus.conftest import ENGINES, MILVUS, opener, real_server
from tests.search_api.conftest import MeanColour, colour, compact, png, rebuild, source_of
from tests.search_api.helpers import (
    NEW,
    ODD,
    OTHER,
    Wider,
    add,
    first,
    garden,
    search,
    tint,
    until,
    wait,
)

__all__ = ["real_server"]
CAT = '{"must": [{"key": "label", "match": {"value": "cat"}}]}'


def opened(open_store: Any, folder: Path, var: Path, encoder: Any = None) -> SearchEngine:
    models = {OTHER: Wider()}
    return SearchEngine(
        encoder or MeanColour(),
        FolderCorpus(folder),
        var,
        open_model=lambda path: models[f"sha256:{path.name}"],
        open_store=open_store,
        find_model=lambda digest: (
            Path(digest.removeprefix("sha256:")) if digest in models else None
        ),
    )


def answer(client: TestClient, path: str, **arguments: Any) -> Any:
    """The response, without what may differ between engines."""
    response = client.request(arguments.pop("method", "GET"), path, **arguments)
    body = response.json()

    def comparable(value: Any) -> Any:
        if isinstance(value, list):
            return [comparable(element) for element in value]
        if isinstance(value, dict):
            return {
                key: comparable(element)
                for key, element in value.items()
                if key not in ("id", "image_url", "next_cursor", "sequence", "time", "created",
                               "built", "parameters", "request_id", "detail", "instance", "errors",
                               "next_after", "storage", "restorable_until")
            }  # fmt: skip
        return value

    return response.status_code, comparable(body)


def answers_of(client: TestClient) -> list[Any]:
    """The responses of a service to a list of requests."""
    # No two pictures are equally near to it: ties are ordered by id, and the engines' ids differ.
    picture = {"image": ("q.png", png((231, 37, 11)))}
    answers = [
        answer(client, "/v1/search", method="POST", files=picture, params=params)
        for params in (
            {"limit": 24},
            {"limit": 5, "offset": 3},
            {"limit": 24, "score_threshold": 0.9},
            {"filter": '{"must": [{"key": "label", "match": {"value": "blue"}}]}'},
            {"filter": '{"must_not": [{"key": "split", "match": {"value": "train"}}]}'},
            {"filter": '{"must": [{"key": "n", "range": {"gte": 1}}]}'},
            {"filter": '{"must": [{"key": "tags", "match": {"any": ["x", "y"]}}]}'},
            {"filter": '{"musst": []}'},
            {"limit": 1001},
            {"limit": 2_000_000_000},
            {"diversity": 0.5, "limit": 6},
            {"group_by": "label", "group_size": 2},
            {"group_by": "tags"},
        )
    ]
    page = client.post("/v1/search", files=picture, params={"limit": 7}).json()
    for _ in range(4):
        answers.append([point["payload"]["source"] for point in page["points"]])
        if page["next_cursor"] is None:
            break
        page = client.post(
            "/v1/search", files=picture, params={"limit": 7, "cursor": page["next_cursor"]}
        ).json()
    one = page["points"][0]["id"]
    for strategy in ("average_vector", "best_score"):
        answers.append(
            answer(client, "/v1/recommend", method="POST",
                   json={"positive": [one], "strategy": strategy, "limit": 6})
        )  # fmt: skip
    answers += [
        answer(client, f"/v1/images/{one}/similar", params={"limit": 4}),
        answer(client, f"/v1/images/{one}"),
        answer(client, "/v1/images/77"),
        answer(client, "/v1/images/77/similar"),
    ]
    index = answer(client, "/v1/index")[1]
    answers.append(
        {key: index[key] for key in ("count", "model", "generation", "labels", "splits")}
    )
    return answers


@pytest.fixture(params=ENGINES)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return opener(request.param, request, tmp_path)


@pytest.fixture(params=MILVUS)
def open_milvus(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return opener(request.param, request, tmp_path)


def scenario(client: TestClient) -> None:
    """Writes of every kind, each in the next search; the page of the service, its metrics."""
    added = add(
        client,
        png(NEW),
        png((9, 99, 9)),
        key=["a", "b"],
        payload=['{"label": "cat", "n": 1, "tags": ["x"]}', '{"n": 2.5, "tags": ["x", "y"]}'],
    )
    ids = [result["id"] for result in added.json()["results"]]
    assert added.status_code == 201
    assert first(client, NEW)["id"] == ids[0]
    replacing = {"key": "b", "payload": '{"n": 3}', "replace": "true"}
    (replaced,) = add(client, png((8, 98, 9)), **replacing).json()["results"]
    assert (replaced["id"], replaced["status"]) == (ids[1], "replaced")
    assert first(client, (8, 98, 9))["payload"]["n"] == 3
    bad = add(client, b"rubbish", png((1, 2, 3)), key=["c", "d"]).json()["results"]
    assert bad[0]["error"]["status"] == 415
    patched = client.patch(
        f"/v1/images/{ids[1]}", json={"payload": {"label": "cat", "tags": ["y"]}}
    )
    assert patched.json()["payload"]["label"] == "cat"
    assert first(client, (8, 98, 9))["payload"]["tags"] == ["y"]
    assert client.patch("/v1/images/77", json={"payload": {}}).status_code == 404
    listed = client.get("/v1/images", params={"filter": CAT, "limit": 10}).json()
    assert (listed["total"], sorted(p["id"] for p in listed["points"])) == (2, sorted(ids))
    assert client.get(f"/v1/images/{ids[0]}/file").status_code == 200
    assert client.delete(f"/v1/images/{bad[1]['id']}").json()["deleted"] == 1
    assert client.delete(f"/v1/images/{bad[1]['id']}").status_code == 404


def test_the_same_answers(open_store: Any, folder: Path, tmp_path: Path) -> None:
    engine = opened(open_store, folder, tmp_path / "api")
    rebuild(engine)
    with TestClient(create_app(engine)) as client:
        scenario(client)
        answers = answers_of(client)
        local = SearchEngine(MeanColour(), FolderCorpus(folder), tmp_path / "local")
        rebuild(local)
        with TestClient(create_app(local)) as reference:
            scenario(reference)
            for mine, theirs in zip(answers, answers_of(reference), strict=True):
                assert mine == theirs
        deleted = client.post("/v1/images/delete", json={"filter": json.loads(CAT)}).json()
        assert deleted["deleted"] == 2
        assert deleted["generation"] == 1
        job = wait(client, client.post("/v1/index/rebuild").json()["id"])
        assert job["state"] == "succeeded"
        assert job["result"]["total"] == 24
        result = search(client, colour("red", 2), 24)
        assert (len(result["points"]), result["model"]) == (24, "sha256:mean-colour")
        assert result["generation"] == job["result"]["generation"]
        assert client.post("/v1/index/compact", params={"kind": "nonsense"}).status_code == 422
        if engine.store.parallel:  # Milvus takes no factory strings
            assert client.post("/v1/index/compact?kind=IVF4,Flat").status_code == 422
            wait(client, client.post("/v1/index/compact?kind=hnsw").json()["id"])
            assert (engine.manifest.kind, engine.builder.kind()) == ("hnsw", "hnsw")
            with engine.store.lock():
                assert client.post("/v1/index/compact?kind=exact").status_code == 409
            assert engine.builder.kind() == "hnsw"
        metrics = client.get("/metrics").text
        assert "\nlookalike_index_pictures 24.0" in metrics
        assert client.get("/readyz").status_code == 200
        # Without a trash a delete is final, and the routes of the trash say so.
        deleted = client.post(
            "/v1/images/delete", json={"ids": [client.get("/v1/images").json()["points"][0]["id"]]}
        )
        assert (deleted.json()["restorable_until"] is None) == engine.store.parallel
        answers = [
            client.get("/v1/trash"),
            client.post("/v1/images/restore", json={"last": True}),
            client.post("/v1/trash/purge", json={"all": True}),
        ]
        statuses = {response.status_code for response in answers}
        assert statuses == ({501} if engine.store.parallel else {200})
        assert engine.trash.expire() == 0
        storage = client.get("/v1/index").json()["storage"]
        assert ("added_bytes" in storage) == (not engine.store.parallel)
        snapshot = client.post("/v1/snapshots", json={"name": "one"})
        if engine.store.parallel:
            assert snapshot.status_code == 501
            assert snapshot.json()["type"] == "urn:lookalike:problem:not-with-this-index"
            assert snapshot.headers["content-type"] == "application/problem+json"
            assert client.get("/v1/snapshots").json()["snapshots"] == []
        else:
            assert snapshot.status_code == 201


def test_classes_of_the_store(open_store: Any, tmp_path: Path) -> None:
    """Fitted at the build, and again after labels changed; the same over each engine."""
    engine = opened(open_store, garden(tmp_path / "garden"), tmp_path / "api")
    rebuild(engine)
    with TestClient(create_app(engine)) as client:
        found = search(client, tint("sea", 3))["prediction"]
        assert (found["class"], found["source"]) == ("sea", "store")
        assert search(client, ODD)["prediction"]["class"] is None
        info = client.get("/v1/classifier").json()
        assert (info["source"], info["classes"]) == ("store", {"leaf": 20, "rose": 20, "sea": 20})
        pictures = {"images": ("q.png", png(tint("rose", 3)))}
        for point in client.get("/v1/images", params={"limit": 100}).json()["points"]:
            if point["payload"]["label"] == "rose":
                body = {"payload": {"label": "tulip"}}
                assert client.patch(f"/v1/images/{point['id']}", json=body).status_code == 200
        assert engine.fitter.due(now=True)
        job = wait(client, client.post("/v1/classifier/fit").json()["id"])
        assert (job["kind"], job["result"]) == ("fit", {"classes": 3, "total": 60})
        answer = client.post("/v1/classify", files=pictures).json()["results"][0]
        assert answer["prediction"]["class"] == "tulip"
        assert not engine.fitter.due(now=True)


def test_changing_the_model_over_http(open_milvus: Any, folder: Path, tmp_path: Path) -> None:
    engine = opened(open_milvus, folder, tmp_path / "api")
    rebuild(engine)
    (tmp_path / "api" / "models" / OTHER.removeprefix("sha256:")).mkdir(parents=True)
    with TestClient(create_app(engine)) as client:
        added = add(client, png(NEW), key="k").json()["results"][0]["id"]
        job = wait(client, client.post(f"/v1/models/{OTHER}/embed").json()["id"])
        assert job["result"] == {"embedded": 25, "skipped": 0}
        report = client.get(f"/v1/models/{OTHER}/diff", params={"k": 3}).json()
        assert (report["queries"], report["overlap"]) == (25, 1.0)
        assert search(client, NEW)["model"] == "sha256:mean-colour"
        late = add(client, png((9, 99, 9))).json()["results"][0]["id"]
        job = wait(client, client.post(f"/v1/models/{OTHER}/switch").json()["id"])
        assert job["state"] == "succeeded", job
        assert job["result"]["embedded"] == 1
        found = search(client, NEW)
        assert (found["model"], found["points"][0]["id"]) == (OTHER, added)
        assert found["generation"] == job["result"]["generation"]
        assert first(client, (9, 99, 9))["id"] == late
        assert client.get("/v1/index").json()["dimension"] == 4
        assert [c.model for c in candidates(engine)] == [OTHER]


def test_pictures_added_during_the_switch_are_found(
    open_milvus: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(open_milvus, folder, tmp_path / "api")
    rebuild(engine)
    promote = engine.catalogue.staging.promote

    def add_first(digest: str) -> int:
        engine.ingest.add([Upload(png(NEW), "late")])
        return promote(digest)

    monkeypatch.setattr(engine.catalogue.staging, "promote", add_first)
    _, counts = engine.builder.switch(encoder_of(engine, OTHER))
    assert (counts.embedded, counts.total) == (25, 25)
    found = engine.search(png(NEW)).points[0]
    assert (found.entry.source, found.score) == ("key:late", pytest.approx(1))
    assert engine.served.current().index.count() == 25
    engine.close()


def test_the_first_build_serves_from_the_start_and_what_changes_is_followed(
    open_milvus: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.service.corpus_sync.BATCH", 5)
    monkeypatch.setattr("search_api.jobs.watching._STILL_SECONDS", 0.05)
    engine = opened(open_milvus, folder, tmp_path / "api")
    batches: list[int] = []
    go = threading.Event()

    def stop() -> bool:
        batches.append(1)
        return len(batches) > 2 and not go.is_set()

    encoder, control = encoder_in_use(engine), JobControl(cancelled=stop)
    with pytest.raises(CancelledError):
        engine.builder.rebuild(encoder, engine.corpus, control, first=True)
    assert engine.builder.unfinished()
    assert engine.load().generation == 1
    assert engine.served.current().index.count() == 10
    go.set()
    with TestClient(create_app(engine, build=Task("rebuild"), watch="auto")) as client:
        until(lambda: client.get("/v1/index").json()["complete"], 60)
        assert client.get("/v1/index").json()["count"] == 24
        (folder / "train" / "red" / "new.png").write_bytes(png(NEW))
        (folder / "train" / "red" / "1.png").unlink()

        def followed() -> bool:
            found = client.get("/v1/images", params={"limit": 100}).json()["points"]
            sources = {point["payload"]["source"] for point in found}
            return "train/red/new.png" in sources and "train/red/1.png" not in sources

        until(followed, 60)
        assert first(client, NEW)["payload"]["source"] == "train/red/new.png"


def test_changed_and_moved_files_are_followed_by_either_engine(
    open_milvus: Any, folder: Path, tmp_path: Path
) -> None:
    engine = opened(open_milvus, folder, tmp_path / "api")
    rebuild(engine)
    before = engine.catalogue.all_sources()
    engine.ingest.update(before[source_of("red", 1)], label="mine")
    (folder / source_of("green", 0)).write_bytes(png(NEW))
    (folder / "train" / "red").rename(folder / "train" / "crimson")
    (folder / "train" / "blue" / "0.png").replace(folder / "train" / "blue" / "1.png")
    _, counts = rebuild(engine)
    assert (counts.changed, counts.moved, counts.removed, counts.embedded) == (1, 7, 1, 1)
    after = engine.catalogue.all_sources()
    assert len(after) == counts.total == 23
    for shade in range(6):
        assert after[f"train/crimson/{shade}.png"] == before[source_of("red", shade)]
    assert after[source_of("blue", 1)] == before[source_of("blue", 0)]
    labels = engine.catalogue.label_counts()
    assert (labels["mine"], labels["crimson"], labels["red"]) == (1, 5, 2)
    found = engine.search(png(NEW)).points[0]
    assert (found.entry.id, found.score) == (before[source_of("green", 0)], pytest.approx(1))
    (folder / "train" / "red").mkdir()
    (folder / "train" / "red" / "0.png").write_bytes(png((9, 99, 9)))
    _, counts = rebuild(engine)
    assert (counts.embedded, counts.moved, counts.kept) == (1, 0, 23)
    assert engine.catalogue.all_sources()[source_of("red", 0)] not in after.values()
    engine.close()


def test_shards_go_into_either_engine(open_milvus: Any, folder: Path, tmp_path: Path) -> None:
    corpus, encoder = FolderCorpus(folder), MeanColour()
    for number in (1, 2):
        embed_shard(encoder, corpus, Shard(number, 2), tmp_path / "shards")
    engine = opened(open_milvus, folder, tmp_path / "api")
    shards = shard_folders(tmp_path / "shards")
    for expected in (24, 0):
        number = import_shards(engine.catalogue, shards, encoder.digest, corpus.name)
        assert number == expected
    engine.catalogue.set_meta("corpus", corpus.name)
    assert compact(engine).count == 24
    found = engine.search(png(colour("green", 1)))
    assert found.points[0].entry.source == source_of("green", 1)
    _, counts = rebuild(engine)
    assert (counts.embedded, counts.kept) == (0, 24)
    engine.close()


@pytest.mark.milvus_server
@pytest.mark.timeout(1800)
def test_milvus_away_and_back(real_server: Any, folder: Path, tmp_path: Path, request: Any) -> None:
    """503 while Milvus cannot be reached; recovers by itself; the same after a kill -9."""
    engine = opened(opener("server", request, tmp_path), folder, tmp_path / "api")
    rebuild(engine)

    def eventually(client: TestClient) -> None:
        until = time.monotonic() + 300
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.5)
        assert first(client, NEW)["id"] == one
        assert add(client, png((9, 99, 9)), key="late").status_code == 201
        assert first(client, (9, 99, 9))["payload"]["source"] == "key:late"

    def away(client: TestClient) -> None:
        picture = {"image": ("q.png", png(NEW))}
        for response in (
            client.get("/readyz"),
            client.post("/v1/search", files=picture),
            client.get(f"/v1/images/{one}"),
            add(client, png((1, 1, 1)), key="lost"),
        ):
            assert response.status_code == 503, response.text
            assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["type"] == "urn:lookalike:problem:store-unavailable"
        assert response.headers["retry-after"] == "2"
        assert client.get("/livez").status_code == 200

    with TestClient(create_app(engine)) as client:
        one = add(client, png(NEW), key="k").json()["results"][0]["id"]
        real_server.door.cut()
        try:
            away(client)
        finally:
            real_server.door.mend()
        eventually(client)
        real_server.kill()
        try:
            away(client)
        finally:
            real_server.start()
        eventually(client)


@pytest.fixture(params=["folder", "memory"])
def pictures(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    pytest.importorskip("fsspec")
    if request.param == "folder":
        yield FolderBlobs(tmp_path / "pictures")
    else:
        yield ObjectBlobs(f"memory://{tmp_path.name}")


def test_pictures_in_an_object_store(pictures: Any, folder: Path, tmp_path: Path) -> None:
    def open_store(model_of: Any) -> LocalStore:
        return LocalStore(tmp_path / "var", model_of, pictures)

    engine = opened(open_store, folder, tmp_path / "var")
    rebuild(engine)
    with TestClient(create_app(engine)) as client:
        one = add(client, png(NEW)).json()["results"][0]["id"]
        assert client.get(f"/v1/images/{one}/file").status_code == 200
        assert len(pictures.names()) == 1
