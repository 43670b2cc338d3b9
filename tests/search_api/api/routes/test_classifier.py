"""The store's classifier over HTTP: described, fitted, asked for, fitted by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from embed.corpus import FolderCorpus
from search_api.api.app import create_app
from search_api.jobs.auto_compaction import AutoCompaction
from search_api.service.engine import SearchEngine
from tests.search_api.conftest import MeanColour, png, rebuild
from tests.search_api.helpers import ODD, add, assert_problem, garden, search, tint, wait

SEA = {"image": ("q.png", png(tint("sea", 3)))}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[SearchEngine]:
    engine = SearchEngine(MeanColour(), FolderCorpus(garden(tmp_path / "garden")), tmp_path / "own")
    rebuild(engine)
    yield engine
    engine.close()


@pytest.fixture
def garden_client(own: SearchEngine) -> Iterator[TestClient]:
    with TestClient(create_app(own), raise_server_exceptions=False) as client:
        yield client


def relabel(client: TestClient, of: str, to: str) -> None:
    for point in client.get("/v1/images", params={"limit": 1000}).json()["points"]:
        if point["payload"]["label"] == of:
            body = {"payload": {"label": to}}
            assert client.patch(f"/v1/images/{point['id']}", json=body).status_code == 200


def test_it_is_described(garden_client: TestClient, own: SearchEngine) -> None:
    info = garden_client.get("/v1/classifier").json()
    classifier = own.classes.current().classifier
    assert classifier is not None and classifier.novelty is not None
    assert info == {
        "source": "store",
        "digest": classifier.digest,
        "reason": None,
        "fitted": info["fitted"],
        "fitted_sequence": 2,  # batches of 50 and 10
        "classes": {"leaf": 20, "rose": 20, "sea": 20},
        "left_out": {},
        "accuracy": 1.0,
        "ece": classifier.ece,
        "temperature": classifier.temperature,
        "novelty": {
            "threshold": classifier.novelty.threshold,
            "lowest": classifier.novelty.lowest,
            "pictures": 60,
        },
        "model": "sha256:mean-colour",
        "generation": 1,
        "sequence": 2,
    }
    assert garden_client.get("/v1/index").json()["classifier"] == {
        "classes": 3,
        "pictures": 60,
        "accuracy": 1.0,
        "ece": classifier.ece,
        "fitted": info["fitted"],
    }
    metrics = garden_client.get("/metrics").text
    assert f'digest="{classifier.digest}"' in metrics
    assert 'source="store"' in metrics
    assert "\nlookalike_classifier_accuracy 1.0" in metrics


def test_why_there_is_none(client: TestClient) -> None:
    info = client.get("/v1/classifier").json()
    assert (info["source"], info["digest"], info["classes"]) == ("network", None, {})
    assert info["reason"] == "the model's own classes contain every label"
    assert "\nlookalike_classifier_accuracy NaN" in client.get("/metrics").text
    for path, files in (
        ("/v1/search", SEA),
        ("/v1/classify", {"images": SEA["image"]}),
        ("/v1/search/batch", {"images": SEA["image"]}),
    ):
        response = client.post(path, files=files, params={"classes": "store"})
        problem = assert_problem(response, 409, "no classifier of its own", "classifier fit")
        assert problem["type"] == "urn:lookalike:problem:no-classes"
        response = client.post(path, files=files, params={"classes": "shop"})
        assert_problem(response, 422, "classes", "'auto', 'store', 'network' or 'both'")


def test_which_classes_are_asked_for(garden_client: TestClient) -> None:
    def asked(classes: str) -> list[dict]:
        params = {"classes": classes}
        files = {"images": SEA["image"]}
        return [
            garden_client.post("/v1/search", files=SEA, params=params).json(),
            garden_client.post("/v1/search/batch", files=files, params=params).json()["results"][0][
                "result"
            ],
            garden_client.post("/v1/classify", files=files, params=params).json()["results"][0],
        ]

    for answer in asked("store"):
        assert answer["predictions"] is None
        assert (answer["prediction"]["class"], answer["prediction"]["source"]) == ("sea", "store")
    for answer in asked("network"):
        assert answer["prediction"]["class"] == "blue"
    for answer in asked("both"):
        both = answer["predictions"]
        assert both["store"] == answer["prediction"]
        assert (both["network"]["class"], both["network"]["source"]) == ("blue", "network")
    fast = search(garden_client, tint("sea", 3))["prediction"]
    assert fast == asked("auto")[0]["prediction"]


def test_none_of_these(garden_client: TestClient) -> None:
    odd = search(garden_client, ODD)["prediction"]
    assert odd["class"] is None
    assert odd["nearest_class"] in ("leaf", "rose", "sea")
    assert odd["confidence"] < 0.2
    files = {"images": ("q.png", png(ODD))}
    (result,) = garden_client.post("/v1/classify", files=files).json()["results"]
    assert result["error"] is None
    assert result["prediction"] == odd


def test_labels_change_and_it_is_fitted_again(garden_client: TestClient) -> None:
    relabel(garden_client, "sea", "lake")
    assert search(garden_client, tint("sea", 3))["prediction"]["class"] == "sea"
    response = garden_client.post("/v1/classifier/fit")
    assert response.status_code == 202
    job = wait(garden_client, response.json()["id"])
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["kind"], job["state"]) == ("fit", "succeeded")
    assert job["result"] == {"classes": 3, "total": 60}
    assert search(garden_client, tint("sea", 3))["prediction"]["class"] == "lake"
    for kind in ("rose", "lake"):
        relabel(garden_client, kind, "leaf")
    job = wait(garden_client, garden_client.post("/v1/classifier/fit").json()["id"])
    assert job["result"] == {"classes": 0, "total": 0}
    info = garden_client.get("/v1/classifier").json()
    assert "expected at least 2" in info["reason"]
    assert info["source"] == "network"


def test_a_server_fits_it_by_itself(own: SearchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search_api.jobs.auto_compaction._CHECK_SECONDS", 0.02)
    monkeypatch.setattr("search_api.service.labelling.classifier_fit._REST_SECONDS", 0.0)
    with TestClient(create_app(own)) as client:
        assert client.get("/v1/jobs").json()["jobs"] == []
        relabel(client, "sea", "lake")
        end = time.monotonic() + 60
        while "lake" not in (info := client.get("/v1/classifier").json())["classes"]:
            assert time.monotonic() < end, info
            time.sleep(0.02)
        (*_, job) = client.get("/v1/jobs").json()["jobs"]
        assert job["kind"] == "fit"
        assert search(client, tint("sea", 3))["prediction"]["class"] == "lake"


def test_a_compaction_fits_it_too(garden_client: TestClient) -> None:
    pictures = [png(tint("rose", n)) for n in range(6)]
    add(garden_client, *pictures, payload='{"label": "tulip"}')
    job = wait(garden_client, garden_client.post("/v1/index/compact").json()["id"])
    assert job["state"] == "succeeded"
    assert job["progress"]["stage"] == "fitting the classifier"
    assert garden_client.get("/v1/classifier").json()["classes"]["tulip"] == 6


def test_a_snapshot_brings_back_its_labels(garden_client: TestClient, own: SearchEngine) -> None:
    garden_client.post("/v1/snapshots", json={"name": "before"})
    relabel(garden_client, "sea", "lake")
    wait(garden_client, garden_client.post("/v1/classifier/fit").json()["id"])
    assert not own.fitter.due(now=True)
    restored = garden_client.post("/v1/snapshots/before/restore").json()
    assert restored["changed"] == 20
    jobs = garden_client.get("/v1/jobs").json()["jobs"]
    assert [job["kind"] for job in jobs] == ["fit", "fit"]
    wait(garden_client, jobs[0]["id"])
    assert search(garden_client, tint("sea", 3))["prediction"]["class"] == "sea"


def test_a_running_fit_is_not_started_again(
    garden_client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with garden_client.app.state.context.engine.store.lock():  # type: ignore[attr-defined]
        response = garden_client.post("/v1/classifier/fit")
        assert_problem(response, 409, "another")
        compaction: AutoCompaction = garden_client.app.state.context.compaction  # type: ignore[attr-defined]
        relabel(garden_client, "sea", "lake")
        assert compaction.check(restored=True) is None
