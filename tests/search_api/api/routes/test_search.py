"""POST /v1/search, /v1/recommend and GET /v1/images/{id}/similar: values worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.search_api.conftest import (
    CLASSES,
    SHADES,
    MeanColour,
    colour,
    id_of,
    png,
    source_of,
    unit,
)

MEMBERS = {
    "points",
    "groups",
    "next_cursor",
    "vote",
    "model",
    "generation",
    "sequence",
    "time",
}


def search(client: TestClient, rgb: tuple[int, int, int], **params: object) -> dict:
    response = client.post("/v1/search", files={"image": ("q.png", png(rgb))}, params=params)
    assert response.status_code == 200, response.text
    return response.json()


def ranking(rgb: tuple[int, int, int]) -> list[tuple[float, str]]:
    """All 24 sources with their cosine similarity to ``rgb``, best first."""
    query = unit(rgb)
    found = [
        (float(unit(colour(label, shade)) @ query), source_of(label, shade))
        for label in CLASSES
        for shade in range(SHADES)
    ]
    return sorted(found, key=lambda pair: -pair[0])


def test_whole_response(client: TestClient, encoder: MeanColour) -> None:
    rgb = colour("red", 3)
    answer = search(client, rgb, limit=3)
    assert set(answer) == {"prediction", "predictions", *MEMBERS}
    assert answer["predictions"] is None
    assert answer["groups"] is None
    assert answer["sequence"] == 1
    assert answer["model"] == encoder.digest
    assert answer["generation"] == 1
    assert set(answer["time"]) == {"decode", "queue", "forward", "search", "payload", "total"}
    stages = [answer["time"][name] for name in ("decode", "queue", "forward", "search", "payload")]
    assert all(ms > 0 for ms in stages)
    assert answer["time"]["total"] >= sum(stages) * 0.99

    # (240, 36, 0) + 1 each = 241 : 37 : 1, of 279
    prediction = answer["prediction"]
    assert prediction["class"] == "red"
    assert prediction["confidence"] == pytest.approx(241 / 279)
    assert prediction["probabilities"] == pytest.approx(
        {"red": 241 / 279, "green": 37 / 279, "blue": 1 / 279}
    )
    assert (prediction["nearest_class"], prediction["source"]) == ("red", "network")
    assert answer["vote"] == {"class": "red", "share": pytest.approx(0.8)}

    expected = ranking(rgb)[:3]
    assert [p["payload"]["source"] for p in answer["points"]] == [s for _, s in expected]
    assert [p["score"] for p in answer["points"]] == pytest.approx(
        [score for score, _ in expected], abs=1e-6
    )
    first = answer["points"][0]
    file = first["payload"].pop("file")
    assert first["payload"] == {"label": "red", "split": "train", "source": "train/red/3.png"}
    assert (file["name"], file["width"], file["height"]) == ("3.png", 32, 32)
    assert first["score"] == pytest.approx(1.0, abs=1e-6)
    assert first["image_url"] == f"/v1/images/{first['id']}/file"


@pytest.mark.parametrize("rgb", [(10, 200, 30), (90, 90, 200), (128, 128, 128)])
def test_ranking_is_brute_force(client: TestClient, rgb: tuple[int, int, int]) -> None:
    answer = search(client, rgb, limit=24)
    assert [p["score"] for p in answer["points"]] == pytest.approx(
        [score for score, _ in ranking(rgb)], abs=1e-6
    )


def test_default_limit_is_12(client: TestClient) -> None:
    assert len(search(client, (255, 0, 0))["points"]) == 12


def test_limit_beyond_the_corpus(client: TestClient) -> None:
    assert len(search(client, (255, 0, 0), limit=1000)["points"]) == 24


def test_offset_continues_the_ranking(client: TestClient) -> None:
    whole = [p["id"] for p in search(client, (20, 200, 60), limit=24)["points"]]
    pages = [
        [p["id"] for p in search(client, (20, 200, 60), limit=7, offset=start)["points"]]
        for start in range(0, 28, 7)
    ]
    assert [len(page) for page in pages] == [7, 7, 7, 3]
    assert [point for page in pages for point in page] == whole


def test_offset_does_not_change_the_vote(client: TestClient) -> None:
    assert search(client, colour("red", 3), offset=20)["vote"] == {"class": "red", "share": 0.8}


def test_score_threshold(client: TestClient) -> None:
    rgb = colour("green", 0)
    expected = [source for score, source in ranking(rgb) if score >= 0.97]
    assert 0 < len(expected) < 24
    answer = search(client, rgb, limit=24, score_threshold=0.97)
    assert [p["payload"]["source"] for p in answer["points"]] == expected


def test_filter_returns_all_that_match(client: TestClient) -> None:
    where = {"must": [{"key": "label", "match": {"value": "blue"}}]}
    answer = search(client, colour("red", 0), limit=24, filter=json.dumps(where))
    assert len(answer["points"]) == SHADES
    assert {p["payload"]["label"] for p in answer["points"]} == {"blue"}
    assert answer["vote"] == {"class": "blue", "share": 1.0}


def test_filter_must_not_and_split(client: TestClient) -> None:
    where = {
        "must": [{"key": "split", "match": {"value": "test"}}],
        "must_not": [{"key": "label", "match": {"value": "red"}}],
    }
    answer = search(client, colour("red", 0), limit=24, filter=json.dumps(where))
    found = {p["payload"]["source"] for p in answer["points"]}
    assert found == {source_of(label, shade) for label in ("green", "blue") for shade in (6, 7)}


def test_filter_that_nothing_matches(client: TestClient) -> None:
    where = {"must": [{"key": "label", "match": {"value": "purple"}}]}
    answer = search(client, colour("red", 0), filter=json.dumps(where))
    assert answer["points"] == []
    assert answer["vote"] is None


def test_any_size_is_accepted(client: TestClient) -> None:
    for size in [(1, 1), (5, 300), (640, 480)]:
        response = client.post(
            "/v1/search", files={"image": ("q.png", png(colour("blue", 2), size))}
        )
        assert response.json()["points"][0]["payload"]["source"] == "train/blue/2.png"


def test_similar_leaves_itself_out(client: TestClient) -> None:
    one = id_of(client, "red", 3)
    answer = client.get(f"/v1/images/{one}/similar", params={"limit": 24}).json()
    assert set(answer) == MEMBERS
    assert answer["next_cursor"] is None
    expected = [pair for pair in ranking(colour("red", 3)) if pair[1] != "train/red/3.png"]
    assert len(answer["points"]) == 23
    assert [p["score"] for p in answer["points"]] == pytest.approx(
        [score for score, _ in expected], abs=1e-6
    )


def test_similar_accepts_filter_and_threshold(client: TestClient) -> None:
    one = id_of(client, "red", 0)
    where = json.dumps({"must": [{"key": "split", "match": {"value": "test"}}]})
    answer = client.get(
        f"/v1/images/{one}/similar", params={"filter": where, "score_threshold": 0.5}
    ).json()
    assert [p["payload"]["source"] for p in answer["points"]] == [
        "test/red/6.png",
        "test/red/7.png",
    ]


def recommend(client: TestClient, **request: object) -> dict:
    response = client.post("/v1/recommend", json=request)
    assert response.status_code == 200, response.text
    return response.json()


def test_recommend_average_vector(client: TestClient) -> None:
    positive = [id_of(client, "red", 0), id_of(client, "red", 1)]
    negative = [id_of(client, "green", 0)]
    mean = (unit(colour("red", 0)) + unit(colour("red", 1))) / 2
    query = 2 * mean - unit(colour("green", 0))
    query /= np.linalg.norm(query)
    expected = sorted(
        (
            (float(unit(colour(label, shade)) @ query), source_of(label, shade))
            for label in CLASSES
            for shade in range(SHADES)
            if (label, shade) not in {("red", 0), ("red", 1), ("green", 0)}
        ),
        reverse=True,
    )
    answer = recommend(client, positive=positive, negative=negative, limit=24)
    assert [p["payload"]["source"] for p in answer["points"]] == [s for _, s in expected]
    assert [p["score"] for p in answer["points"]] == pytest.approx(
        [score for score, _ in expected], abs=1e-5
    )


def test_recommend_best_score_ranks_near_negatives_last(client: TestClient) -> None:
    answer = recommend(
        client,
        positive=[id_of(client, "red", 0), id_of(client, "blue", 0)],
        negative=[id_of(client, "green", 0)],
        strategy="best_score",
        limit=24,
    )
    labels = [p["payload"]["label"] for p in answer["points"]]
    assert len(labels) == 21
    assert set(labels[:14]) == {"red", "blue"}
    assert set(labels[14:]) == {"green"}
    assert all(p["score"] < 0 for p in answer["points"][14:])


def test_recommend_pages(client: TestClient) -> None:
    positive = [id_of(client, "red", 0)]
    whole = recommend(client, positive=positive, limit=6)["points"]
    second = recommend(client, positive=positive, limit=3, offset=3)["points"]
    assert [p["id"] for p in second] == [p["id"] for p in whole[3:]]


def test_classify_one_bad_picture_does_not_affect_the_others(client: TestClient) -> None:
    files = [
        ("images", ("a.png", png((200, 10, 10)))),
        ("images", ("b.txt", b"this is no picture")),
        ("images", ("c.png", png((10, 10, 200)))),
        ("images", ("d.png", b"")),
    ]
    response = client.post("/v1/classify", files=files)
    assert response.status_code == 200
    results = response.json()["results"]
    assert [r["filename"] for r in results] == ["a.png", "b.txt", "c.png", "d.png"]
    assert results[0]["prediction"]["class"] == "red"
    assert results[0]["prediction"]["confidence"] == pytest.approx(201 / 223)
    assert results[0]["error"] is None
    assert results[1]["prediction"] is None
    assert results[1]["error"]["status"] == 415
    assert "not a picture" in results[1]["error"]["detail"]
    assert results[2]["prediction"]["class"] == "blue"
    assert results[3]["error"]["status"] == 422
    assert "empty" in results[3]["error"]["detail"]


def test_a_threshold_of_one_finds_every_copy(client: TestClient) -> None:
    for label in ("red", "green", "blue"):
        for shade in range(8):
            files = {"image": ("q.png", png(colour(label, shade)))}
            params = {"score_threshold": 1}
            (point,) = client.post("/v1/search", files=files, params=params).json()["points"]
            assert (point["id"], point["score"]) == (id_of(client, label, shade), 1)
            groups = client.post(
                "/v1/search", files=files, params={**params, "group_by": "label"}
            ).json()["groups"]
            assert [group["value"] for group in groups] == [label]
