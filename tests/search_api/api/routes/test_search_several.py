"""POST /v1/search/batch and /v1/recommend/images: several uploaded pictures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient

from index.contract import ModelChangedError
from search_api.api.app import create_app
from search_api.client import AsyncClient, Client
from search_api.service.engine import SearchEngine
from search_api.service.search import SearchService
from search_api.settings import Limits
from tests.search_api.conftest import MeanColour, colour, id_of, png
from tests.search_api.helpers import assert_problem

QUERIES = [(200, 30, 10), (20, 60, 220), (90, 200, 60)]


def search(client: TestClient, rgb: tuple[int, int, int], **params: Any) -> dict[str, Any]:
    files = {"image": ("q.png", png(rgb))}
    return client.post("/v1/search", files=files, params=params).json()


def batch(client: TestClient, *pictures: bytes, **params: Any) -> Any:
    files = [("images", (f"{i}.png", picture)) for i, picture in enumerate(pictures)]
    return client.post("/v1/search/batch", files=files, params=params)


def recommend(
    client: TestClient,
    like: Sequence[bytes] = (),
    unlike: Sequence[bytes] = (),
    params: dict[str, Any] | None = None,
    **data: Any,
) -> Any:
    files = [("positive_images", (f"like{i}.png", p)) for i, p in enumerate(like)]
    files += [("negative_images", (f"unlike{i}.png", p)) for i, p in enumerate(unlike)]
    return client.post("/v1/recommend/images", files=files, data=data, params=params)


def ranking(answer: dict[str, Any]) -> list[tuple[int, float]]:
    return [(point["id"], pytest.approx(point["score"], abs=1e-6)) for point in answer["points"]]


RED = json.dumps({"must": [{"key": "label", "match": {"value": "red"}}]})


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 5},
        {"limit": 4, "offset": 3, "score_threshold": 0.7},
        {"limit": 4, "filter": RED},
        {"limit": 6, "diversity": 0.5},
    ],
)
def test_a_batch_equals_its_searches(client: TestClient, params: dict[str, Any]) -> None:
    results = batch(client, *map(png, QUERIES), **params).json()["results"]
    assert [result["filename"] for result in results] == ["0.png", "1.png", "2.png"]
    for rgb, result in zip(QUERIES, results, strict=True):
        alone = search(client, rgb, **params)
        found = result["result"]
        assert result["error"] is None
        assert [(p["id"], p["score"]) for p in found["points"]] == ranking(alone)
        for member in ("prediction", "vote", "model", "generation", "sequence"):
            assert found[member] == alone[member]


def test_a_batch_in_groups(client: TestClient) -> None:
    results = batch(client, *map(png, QUERIES), group_by="label", limit=2).json()["results"]
    for rgb, result in zip(QUERIES, results, strict=True):
        alone = search(client, rgb, group_by="label", limit=2)
        assert result["result"]["groups"] == alone["groups"]


def test_a_bad_picture_does_not_affect_the_others(client: TestClient, encoder: MeanColour) -> None:
    encoder.encoded = 0
    response = batch(client, png(QUERIES[0]), b"this is no picture", b"", png(QUERIES[1]), limit=1)
    assert response.status_code == 200
    results = response.json()["results"]
    assert [r["error"] and r["error"]["status"] for r in results] == [None, 415, 422, None]
    assert [r["result"] is None for r in results] == [False, True, True, False]
    assert results[3]["result"]["prediction"]["class"] == "blue"
    assert encoder.encoded == 2
    nothing = batch(client, b"no").json()["results"]
    assert (nothing[0]["result"], nothing[0]["error"]["status"]) == (None, 415)


def test_the_next_page_of_one_of_a_batch(client: TestClient) -> None:
    result = batch(client, *map(png, QUERIES), limit=5).json()["results"][1]["result"]
    rest = search(client, QUERIES[1], limit=24, cursor=result["next_cursor"])
    whole = search(client, QUERIES[1], limit=24)
    assert [p["id"] for p in (*result["points"], *rest["points"])] == [
        p["id"] for p in whole["points"]
    ]


def test_a_batch_within_limits(client: TestClient, engine: SearchEngine) -> None:
    small = TestClient(create_app(engine, Limits(max_images=2, max_batch_points=10)))
    pictures = [png(rgb) for rgb in QUERIES]
    assert_problem(batch(small, *pictures), 413, "3 pictures", "at most 2")
    assert_problem(batch(small, *pictures[:2], limit=6), 422, "2 pictures", "6 points", "10")
    grouped = batch(small, *pictures[:2], limit=2, group_by="label")
    assert_problem(grouped, 422, "6 points each")
    assert batch(small, *pictures[:2], limit=5).status_code == 200
    assert_problem(client.post("/v1/search/batch"), 422, "images")
    assert_problem(batch(client, *pictures, limit=0), 422, "limit is 0")
    cursor = search(client, QUERIES[0], limit=1)["next_cursor"]
    assert_problem(batch(client, *pictures, cursor=cursor), 422, "/v1/search")


@pytest.mark.parametrize("strategy", ["average_vector", "best_score"])
def test_uploaded_examples_rank_as_the_same_stored_ones(client: TestClient, strategy: str) -> None:
    shades = {"like": [("red", 2), ("blue", 5)], "unlike": [("green", 1)]}
    like, unlike = ([id_of(client, *one) for one in shades[name]] for name in ("like", "unlike"))
    body = {"positive": like, "negative": unlike, "strategy": strategy, "limit": 24}
    stored = client.post("/v1/recommend", json=body).json()
    pictures = {name: [png(colour(*one)) for one in ones] for name, ones in shades.items()}
    answer = recommend(client, **pictures, params={"limit": 24}, strategy=strategy).json()
    # Only stored examples are left out.
    assert len(answer["points"]) == 24
    rest = [p for p in answer["points"] if p["id"] not in (*like, *unlike)]
    assert [(p["id"], p["score"]) for p in rest] == ranking(stored)
    mixed = recommend(
        client,
        pictures["like"][:1],
        params={"limit": 24},
        positive=[like[1]],
        negative=unlike,
        strategy=strategy,
    ).json()
    mixed_rest = [p for p in mixed["points"] if p["id"] != like[0]]
    assert len(mixed["points"]) == 22
    assert [(p["id"], p["score"]) for p in mixed_rest] == ranking(stored)
    assert set(mixed["time"]) == {"decode", "queue", "forward", "search", "payload", "total"}


def test_stored_examples_alone(client: TestClient) -> None:
    one = id_of(client, "red", 3)
    answer = recommend(client, positive=[one], params={"limit": 24}).json()
    similar = client.get(f"/v1/images/{one}/similar", params={"limit": 24}).json()
    assert [(p["id"], p["score"]) for p in answer["points"]] == ranking(similar)


@pytest.mark.parametrize("strategy", ["average_vector", "best_score"])
def test_filter_threshold_groups_diversity_and_cursor(client: TestClient, strategy: str) -> None:
    like, unlike = [png((200, 60, 90)), png((180, 20, 20))], [png((10, 250, 10))]

    def post(**params: Any) -> dict[str, Any]:
        response = recommend(client, like, unlike, params, strategy=strategy)
        assert response.status_code == 200, response.text
        return response.json()

    whole = post(limit=24)["points"]
    assert post(limit=24, filter=RED)["points"] == [
        p for p in whole if p["payload"]["label"] == "red"
    ]
    least = whole[4]["score"]
    assert post(limit=24, score_threshold=0.5)["points"] == [p for p in whole if p["score"] >= 0.5]
    assert least > post(limit=3, offset=6)["points"][0]["score"]
    groups = post(group_by="label", group_size=8)["groups"]
    assert [p for g in groups for p in g["points"] if g["value"] == "red"] == [
        p for p in whole if p["payload"]["label"] == "red"
    ]
    varied = post(limit=24, diversity=0.5)["points"]
    assert varied[0] == whole[0] and varied != whole
    first = post(limit=9)
    client.delete(f"/v1/images/{whole[8]['id']}")
    client.delete(f"/v1/images/{whole[10]['id']}")
    second = post(limit=24, cursor=first["next_cursor"])
    assert first["points"] + second["points"] == [*whole[:10], *whole[11:]]
    swapped = recommend(
        client, like[::-1], unlike, {"cursor": first["next_cursor"]}, strategy=strategy
    )
    assert_problem(swapped, 422, "another request")


def test_bad_examples(client: TestClient, engine: SearchEngine) -> None:
    good = png(QUERIES[0])
    assert_problem(recommend(client), 422, "no positive example")
    assert_problem(recommend(client, [], [good]), 422, "no positive example")
    assert_problem(recommend(client, [good, b"rubbish"]), 415, "like1.png", "not a picture")
    assert_problem(recommend(client, [good], positive=[999_999]), 404, "999999")
    assert_problem(recommend(client, [good], negative=[-1]), 422, "negative")
    assert_problem(recommend(client, [good], positive=["x"]), 422, "positive")
    assert_problem(recommend(client, [good], strategy="worst"), 422, "average_vector")
    small = TestClient(create_app(engine, Limits(max_images=3, max_examples=2)))
    assert_problem(recommend(small, [good] * 4), 413, "4 pictures")
    assert_problem(recommend(small, [good] * 2, positive=[1]), 422, "positive has 3", "at most 2")
    body = {"positive": [1], "negative": [2, 3, 4]}
    assert_problem(client_post(small, body), 422, "negative has 3", "at most 2")


def client_post(client: TestClient, body: dict[str, Any]) -> Any:
    return client.post("/v1/recommend", json=body)


def test_a_switch_of_models_meanwhile_is_followed(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, refused = SearchService.search, []

    def changed(self: SearchService, *args: Any) -> Any:
        if not refused:
            refused.append(1)
            raise ModelChangedError("another model answers now")
        return answer(self, *args)

    monkeypatch.setattr(SearchService, "search", changed)
    assert recommend(client, [png(QUERIES[0])]).status_code == 200
    assert refused


def test_both_clients(live_server: str) -> None:
    pictures = [png(rgb) for rgb in QUERIES]
    with Client(live_server) as client:
        results = client.search_batch([*pictures, b"rubbish"], limit=2).results
        assert [r.result is None for r in results] == [False, False, False, True]
        assert results[3].error is not None and results[3].error.status == 415
        found = client.recommend_images(
            pictures[:1], pictures[1:2], negative=[1], strategy="best_score", limit=3
        )
        assert len(found.points) == 3
        assert len(client.recommend_images(positive=[1, 2]).points) == 12
        grouped = client.search(pictures[0], group_by="label", group_size=2).groups
        assert grouped is not None and [len(g.points) for g in grouped] == [2, 2, 2]
        page = client.similar(1, limit=20)
        rest = client.similar(1, limit=20, cursor=page.next_cursor)
        assert len({p.id for p in (*page.points, *rest.points)}) == 23
        assert len(client.recommend([1], diversity=0.4, candidates=15, limit=9).points) == 9

    async def run() -> None:
        async with AsyncClient(live_server) as client:
            again = await client.search_batch(pictures, limit=2)
            for one, other in zip(again.results, results[:3], strict=True):
                assert one.result is not None and other.result is not None
                assert one.result.points == other.result.points
            like = await client.recommend_images(
                pictures[:1], pictures[1:2], negative=[1], strategy="best_score", limit=3
            )
            assert like.points == found.points

    asyncio.run(run())
