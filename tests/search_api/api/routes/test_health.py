"""Health and metrics over HTTP."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from fastapi.testclient import TestClient

from embed.corpus import FolderCorpus
from search_api.api.app import create_app
from search_api.service.engine import SearchEngine
from tests.search_api.conftest import MeanColour, png
from tests.search_api.helpers import wait


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
