"""The index over HTTP: what it holds, rebuilding, jobs, health, metrics, documents."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from embed.corpus import ArrayCorpus, FolderCorpus, sample
from search_api.app import create_app
from search_api.engine import SearchEngine
from tests.search_api.conftest import MeanColour, colour, png


def wait(client: TestClient, job_id: str) -> dict:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        job = client.get(f"/v1/jobs/{job_id}").json()
        if job["finished"] is not None:
            return job
        time.sleep(0.01)
    raise AssertionError(f"the job did not finish: {job}")


def test_index_info(client: TestClient, engine: SearchEngine, encoder: MeanColour) -> None:
    info = client.get("/v1/index").json()
    assert info.pop("built") == engine.manifest.created
    assert info == {
        "count": 24,
        "kind": "exact",
        "dimension": 3,
        "metric": "cosine",
        "model": encoder.digest,
        "generation": 1,
        "sequence": 1,
        "pending": {"added": 0, "deleted": 0},
        "parameters": {},
        "recall": None,
        "corpus": engine.corpus.name,
        "sample": False,
        "notice": None,
        "classes": ["blue", "green", "red"],
        "labels": {"blue": 8, "green": 8, "red": 8},
        "splits": {"test": 6, "train": 18},
        "limits": {
            "max_upload_bytes": 20 * 2**20,
            "max_pixels": 50_000_000,
            "max_images": 256,
            "max_limit": 1000,
            "max_offset": 10_000,
            "max_examples": 100,
            "max_candidates": 2000,
        },
    }


def test_sample_is_labelled(tmp_path: Path) -> None:
    engine = SearchEngine(MeanColour(), sample(per_class=5), tmp_path / "var")
    engine.rebuild()
    with TestClient(create_app(engine)) as client:
        info = client.get("/v1/index").json()
    assert info["sample"] is True
    assert "sample" in info["notice"]
    assert info["count"] == 50
    assert info["splits"] == {"test": 10, "train": 40}


def test_rebuild_takes_up_and_drops_pictures(
    client: TestClient, folder: Path, encoder: MeanColour
) -> None:
    embedded = encoder.encoded
    (folder / "train" / "red" / "new.png").write_bytes(png((250, 5, 5)))
    (folder / "train" / "red" / "0.png").unlink()
    (folder / "train" / "red" / "broken.png").write_bytes(b"not a picture")
    response = client.post("/v1/index/rebuild")
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    job = wait(client, response.json()["id"])
    assert job["state"] == "succeeded", job
    assert job["kind"] == "rebuild"
    assert job["error"] is None
    assert job["result"] == {
        "generation": 2,
        "total": 24,
        "embedded": 1,
        "removed": 1,
        "skipped": 1,
    }
    assert encoder.encoded == embedded + 1
    answer = client.post(
        "/v1/search", files={"image": ("q.png", png((250, 5, 5)))}, params={"limit": 24}
    ).json()
    assert answer["generation"] == 2
    sources = [p["payload"]["source"] for p in answer["points"]]
    assert sources[0] == "train/red/new.png"
    assert "train/red/0.png" not in sources
    assert len(sources) == 24


def test_ids_are_stable_across_a_rebuild(client: TestClient) -> None:
    def ids() -> dict[str, int]:
        points = client.get("/v1/images", params={"limit": 100}).json()["points"]
        return {p["payload"]["source"]: p["id"] for p in points}

    before = ids()
    wait(client, client.post("/v1/index/rebuild").json()["id"])
    wait(client, client.post("/v1/index/rebuild", params={"reembed": True}).json()["id"])
    assert ids() == before


class Gate(MeanColour):
    """Waits in the middle of encoding until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.shut = False

    def encode(self, pictures, *, spare=False):
        if self.shut and len(pictures) > 1:
            self.entered.set()
            assert self.opened.wait(30)
        return super().encode(pictures)


def test_searches_go_on_and_a_second_rebuild_is_refused(folder: Path, tmp_path: Path) -> None:
    gate = Gate()
    engine = SearchEngine(gate, FolderCorpus(folder), tmp_path / "var")
    engine.rebuild()
    with TestClient(create_app(engine)) as client:
        gate.shut = True
        first = client.post("/v1/index/rebuild", params={"reembed": True}).json()
        assert gate.entered.wait(30)
        job = client.get(f"/v1/jobs/{first['id']}").json()
        assert job["state"] == "running"
        assert job["progress"] == {"stage": "embedding", "done": 0, "total": 24}

        second = client.post("/v1/index/rebuild")
        assert second.status_code == 409
        assert second.json()["job"] == first["id"]
        assert first["id"] in second.json()["detail"]

        answer = client.post("/v1/search", files={"image": ("q", png(colour("red", 1)))}).json()
        assert answer["generation"] == 1
        assert answer["points"][0]["payload"]["source"] == "train/red/1.png"

        gate.opened.set()
        assert wait(client, first["id"])["state"] == "succeeded"
        answer = client.post("/v1/search", files={"image": ("q", png(colour("red", 1)))}).json()
        assert answer["generation"] == 2


def test_failed_rebuild_leaves_the_old_index(client: TestClient, folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.unlink()
    job = wait(client, client.post("/v1/index/rebuild").json()["id"])
    assert job["state"] == "failed"
    assert "no pictures" in job["error"]
    answer = client.post("/v1/search", files={"image": ("q", png(colour("red", 1)))}).json()
    assert answer["generation"] == 1
    assert len(answer["points"]) == 12


def test_health(engine: SearchEngine, folder: Path, tmp_path: Path) -> None:
    with TestClient(create_app(engine)) as client:
        for path in ("/livez", "/readyz", "/healthz"):
            response = client.get(path)
            assert (response.status_code, response.json()) == (200, {"status": "ok"})
    empty = SearchEngine(MeanColour(), FolderCorpus(folder), tmp_path / "other")
    with TestClient(create_app(empty)) as client:
        assert client.get("/livez").status_code == 200
        for path in ("/readyz", "/healthz"):
            response = client.get(path)
            assert response.status_code == 503
            assert response.json()["type"] == "urn:lookalike:problem:not-ready"
        search = client.post("/v1/search", files={"image": ("q.png", png((1, 2, 3)))})
        assert search.status_code == 503
        assert "index build" in search.json()["detail"]


def test_metrics(client: TestClient) -> None:
    def value(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    searches = 'lookalike_requests_total{method="POST",route="/v1/search",status="200"}'
    assert value(searches) == 0
    for _ in range(3):
        client.post("/v1/search", files={"image": ("q.png", png((1, 2, 3)))})
    client.post("/v1/search", files={"image": ("q.png", b"rubbish")})
    assert value(searches) == 3
    assert value('lookalike_requests_total{method="POST",route="/v1/search",status="415"}') == 1
    for stage in ("decode", "queue", "forward", "search", "payload"):
        assert value(f'lookalike_stage_seconds_count{{stage="{stage}"}}') == 3
    assert value("lookalike_index_pictures") == 24
    assert value("lookalike_index_generation") == 1
    assert value('lookalike_model_info{digest="sha256:mean-colour"}') == 1
    assert value("lookalike_batch_size_count") == value("lookalike_batch_size_sum") == 3
    assert value("lookalike_index_recall") == 0  # an exact index has none
    client.app.state.context.engine.sampler._values.append(0.75)  # type: ignore[attr-defined]
    assert value('lookalike_index_recall{measured="live"}') == 0.75
    done = 'lookalike_jobs_total{kind="rebuild",state="succeeded"}'
    assert value(done) == 0
    wait(client, client.post("/v1/index/rebuild").json()["id"])
    assert value(done) == 1
    assert value('lookalike_jobs_running{kind="rebuild"}') == 0
    assert value("lookalike_index_generation") == 2


def test_recall_is_shown_as_built_and_live(client: TestClient, engine: SearchEngine) -> None:
    def measured() -> dict[str, float]:
        found = re.findall(
            r'^lookalike_index_recall\{measured="(.*)"\} (.*)$',
            client.get("/metrics").text,
            re.MULTILINE,
        )
        return {name: float(value) for name, value in found}

    assert client.get("/v1/index").json()["recall"] is None
    assert measured() == {}
    job = client.post("/v1/index/compact", params={"kind": "hnsw"}).json()["id"]
    assert wait(client, job)["state"] == "succeeded"
    built = {"k": 10, "value": 1.0, "queries": 1}
    assert client.get("/v1/index").json()["recall"] == built
    (manifest,) = engine.var.glob("generations/000002/manifest.json")
    assert json.loads(manifest.read_text())["recall"] == built
    assert measured() == {"built": 1.0}
    engine.sampler._share = 1.0
    client.post("/v1/search", files={"image": ("q.png", png((1, 2, 3)))})
    end = time.monotonic() + 60
    while "live" not in measured():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert measured() == {"built": 1.0, "live": 1.0}


def test_every_answer_says_which_index_and_model_gave_it(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    def fields(schema: dict) -> set[str]:
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return set(schema.get("properties", {}))

    silent = {
        (path, method)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for status in ("200", "201")
        for content in operation["responses"].get(status, {}).get("content", {}).items()
        if content[0] == "application/json"
        and not {"model", "generation"} <= fields(content[1]["schema"])
    }
    assert silent == {
        ("/v1/search/batch", "post"),  # each of its results does
        ("/v1/models", "get"),  # calls it `serving`
        ("/v1/jobs", "get"),
        ("/v1/jobs/{job_id}", "get"),
        ("/v1/jobs/{job_id}/log", "get"),
        ("/livez", "get"),
        ("/readyz", "get"),
        ("/healthz", "get"),
    }


def test_openapi_documents_every_operation(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) == 34
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(set(ids)) == len(ids)
    for path, method, operation in operations:
        assert operation["summary"], (path, method)
        assert "Example: `curl " in operation["description"], (path, method)
        if path.startswith("/v1"):
            errors = [status for status in operation["responses"] if status >= "400"]
            assert errors, (path, method)


def test_docs_need_no_other_host(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "https://" not in page.replace("https://www.w3.org", "")
    assert client.get("/").headers["content-security-policy"].startswith("default-src 'self'")


@pytest.mark.parametrize("source", ["train/9", "other/0", "train", "train/x", "../etc"])
def test_array_corpus_has_no_such_picture(source: str) -> None:
    corpus = sample(per_class=5)
    assert isinstance(corpus, ArrayCorpus)
    with pytest.raises(ValueError, match="no picture"):
        corpus.read(source + "9999999" if source == "train/9" else source)
