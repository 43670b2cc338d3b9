"""Diversity, groups and cursors over HTTP: against brute force, and while the index changes."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from search_api.api.app import create_app
from search_api.service.engine import SearchEngine
from search_api.settings import Limits
from tests.search_api.conftest import CLASSES, SHADES, colour, id_of, png, source_of, unit
from tests.search_api.helpers import assert_problem

QUERY = (120, 200, 60)


def post(client: TestClient, rgb: tuple[int, int, int] = QUERY, **params: Any) -> Any:
    return client.post("/v1/search", files={"image": ("q.png", png(rgb))}, params=params)


def search(client: TestClient, **params: Any) -> dict[str, Any]:
    response = post(client, **params)
    assert response.status_code == 200, response.text
    return response.json()


def sources(points: list[dict[str, Any]]) -> list[str]:
    return [point["payload"]["source"] for point in points]


def ids(answer: dict[str, Any]) -> list[int]:
    return [point["id"] for point in answer["points"]]


def corpus() -> dict[str, np.ndarray]:
    return {
        source_of(label, shade): unit(colour(label, shade))
        for label in CLASSES
        for shade in range(SHADES)
    }


def mmr_of(query: np.ndarray, xb: dict[str, np.ndarray], diversity: float, pool: int) -> list[str]:
    left = sorted(xb, key=lambda source: -float(xb[source] @ query))[:pool]
    chosen = [left.pop(0)]
    while left:
        best = max(
            left,
            key=lambda s: (
                (1 - diversity) * float(xb[s] @ query)
                - diversity * max(float(xb[s] @ xb[c]) for c in chosen)
            ),
        )
        left.remove(best)
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("pool", [10, 24])
@pytest.mark.parametrize("diversity", [0.0, 0.4, 0.8])
def test_diversity_is_mmr_of_the_candidates(
    client: TestClient, diversity: float, pool: int
) -> None:
    expected = mmr_of(unit(QUERY), corpus(), diversity, pool)
    answer = search(client, limit=8, diversity=diversity, candidates=pool)
    assert sources(answer["points"]) == expected[:8]
    assert answer["next_cursor"] is None
    by_source = {s: float(v @ unit(QUERY)) for s, v in corpus().items()}
    assert [p["score"] for p in answer["points"]] == pytest.approx(
        [by_source[s] for s in expected[:8]], abs=1e-6
    )
    second = search(client, limit=2, offset=8, diversity=diversity, candidates=pool)
    assert sources(second["points"]) == expected[8:10]
    assert answer["vote"] == search(client)["vote"]


def test_diversity_after_threshold_and_filter(client: TestClient) -> None:
    where = json.dumps({"must": [{"key": "label", "match": {"any": ["red", "green"]}}]})
    params = {"filter": where, "score_threshold": 0.85, "limit": 24}
    plain = search(client, **params)["points"]
    varied = search(client, **params, diversity=0.7)["points"]
    assert 3 < len(plain) < 16
    assert sorted(sources(varied)) == sorted(sources(plain))
    assert sources(varied) != sources(plain)


def test_groups_are_those_of_brute_force(client: TestClient) -> None:
    ranked = sorted(corpus(), key=lambda s: -float(corpus()[s] @ unit(QUERY)))
    labels = list(dict.fromkeys(s.split("/")[1] for s in ranked))
    answer = search(client, group_by="label", group_size=3, limit=5)
    assert answer["points"] == []
    assert [g["value"] for g in answer["groups"]] == labels
    for group in answer["groups"]:
        mine = [s for s in ranked if s.split("/")[1] == group["value"]]
        assert sources(group["points"]) == mine[:3]
    assert answer["next_cursor"] is None
    assert answer["vote"] == search(client)["vote"]
    second = search(client, group_by="label", limit=1, offset=1)["groups"]
    assert [g["value"] for g in second] == labels[1:2]


def test_groups_under_threshold_filter_and_payload(client: TestClient) -> None:
    one, two = id_of(client, "red", 0), id_of(client, "green", 1)
    for image, payload in ((one, {"kind": ["a", 7]}), (two, {"kind": "a"})):
        client.patch(f"/v1/images/{image}", json={"payload": payload})
    groups = search(client, group_by="kind")["groups"]
    near = sorted((one, two), key=lambda i: ids(search(client, limit=24)).index(i))
    assert [(g["value"], [p["id"] for p in g["points"]]) for g in groups] == [
        ("a", near),
        (7, [one]),
    ]
    where = json.dumps({"must_not": [{"has_id": [two]}]})
    groups = search(client, group_by="kind", filter=where)["groups"]
    assert [(g["value"], len(g["points"])) for g in groups] == [(7, 1), ("a", 1)]
    assert search(client, group_by="nothing")["groups"] == []
    red = search(client, group_by="label", score_threshold=0.9)["groups"]
    assert all(p["score"] >= 0.9 for g in red for p in g["points"])
    assert len(red) < 3


def test_similar_and_recommend_accept_them_too(client: TestClient) -> None:
    one = id_of(client, "red", 3)
    url = f"/v1/images/{one}/similar"
    groups = client.get(url, params={"group_by": "label", "group_size": 8}).json()["groups"]
    assert [(g["value"], len(g["points"])) for g in groups] == [
        ("red", 7),
        ("blue", 8),
        ("green", 8),
    ]
    expected = mmr_of(
        unit(colour("red", 3)),
        {s: v for s, v in corpus().items() if s != source_of("red", 3)},
        0.6,
        23,
    )
    varied = client.get(url, params={"diversity": 0.6, "limit": 9}).json()["points"]
    assert sources(varied) == expected[:9]
    body = {"positive": [one], "diversity": 0.6, "limit": 9}
    assert sources(client.post("/v1/recommend", json=body).json()["points"]) == expected[:9]
    for strategy in ("average_vector", "best_score"):
        body = {"positive": [one], "group_by": "split", "strategy": strategy}
        groups = client.post("/v1/recommend", json=body).json()["groups"]
        assert [g["value"] for g in groups] == ["train", "test"]


def pages(client: TestClient, **params: Any) -> list[dict[str, Any]]:
    found = [search(client, **params)]
    while found[-1]["next_cursor"] is not None:
        found.append(search(client, **params, cursor=found[-1]["next_cursor"]))
    return found


@pytest.mark.parametrize("limit", [1, 5, 12, 24])
def test_cursors_walk_through_the_ranking(client: TestClient, limit: int) -> None:
    whole = search(client, limit=100)
    found = pages(client, limit=limit)
    assert [i for page in found for i in ids(page)] == ids(whole)
    assert len(found) == -(-24 // limit)
    assert all(page["vote"] == whole["vote"] for page in found)


def test_cursors_end_at_the_threshold_and_keep_the_filter(client: TestClient) -> None:
    where = json.dumps({"must": [{"key": "split", "match": {"value": "train"}}]})
    params = {"filter": where, "score_threshold": 0.8}
    whole = ids(search(client, **params, limit=24))
    assert 2 < len(whole) < 18
    assert [i for page in pages(client, **params, limit=2) for i in ids(page)] == whole


def test_pages_neither_repeat_nor_skip_while_the_index_changes(client: TestClient) -> None:
    before = ids(search(client, limit=24))
    first = search(client, limit=6)
    # Deleted: two that were returned, including the last one, and one that was not.
    for gone in (before[2], before[5], before[9]):
        assert client.delete(f"/v1/images/{gone}").status_code == 200
    # Added: one that comes first, and one that comes last.
    new = client.post(
        "/v1/images",
        files=[("images", ("a.png", png(QUERY))), ("images", ("b.png", png((0, 0, 255))))],
    ).json()
    near, far = (result["id"] for result in new["results"])
    second = search(client, limit=6, cursor=first["next_cursor"])
    assert second["sequence"] > first["sequence"]
    assert ids(first) + ids(second) == [*before[:9], *before[10:13]]
    client.delete(f"/v1/images/{before[20]}")
    rest = search(client, limit=24, cursor=second["next_cursor"])
    assert ids(rest) == [*before[13:20], *before[21:], far]
    assert rest["next_cursor"] is None
    # An offset counts from the current top, and the sequence shows the change.
    assert ids(search(client, limit=1)) == [near]
    # After compaction the cursor still works.
    job = client.post("/v1/index/compact").json()
    while client.get(f"/v1/jobs/{job['id']}").json()["finished"] is None:
        pass
    again = search(client, limit=24, cursor=second["next_cursor"])
    assert again["generation"] == 2
    assert ids(again) == ids(rest)


def test_groups_neither_repeat_nor_skip_while_the_index_changes(client: TestClient) -> None:
    first = search(client, group_by="label", limit=1)
    shown = first["groups"][0]
    others = [g["value"] for g in search(client, group_by="label", limit=3)["groups"][1:]]
    # The best of the returned group are deleted, so that it would come last; another is first now.
    for point in search(client, group_by="label", group_size=7, limit=1)["groups"][0]["points"]:
        client.delete(f"/v1/images/{point['id']}")
    data = {"payload": json.dumps({"label": others[1]})}
    client.post("/v1/images", files=[("images", ("a.png", png(QUERY)))], data=data)
    rest = pages_of_groups(client, first["next_cursor"])
    assert sorted(rest) == sorted(others)
    assert shown["value"] not in rest


def pages_of_groups(client: TestClient, cursor: str | None) -> list[Any]:
    values = []
    while cursor is not None:
        page = search(client, group_by="label", limit=1, cursor=cursor)
        values += [group["value"] for group in page["groups"]]
        cursor = page["next_cursor"]
    return values


def test_cursors_of_similar_and_recommend(client: TestClient) -> None:
    one = id_of(client, "red", 3)
    url = f"/v1/images/{one}/similar"
    whole = ids(client.get(url, params={"limit": 24}).json())
    first = client.get(url, params={"limit": 10}).json()
    params = {"limit": 24, "cursor": first["next_cursor"]}
    assert ids(first) + ids(client.get(url, params=params).json()) == whole
    body = {"positive": [one], "negative": [whole[-1]], "strategy": "best_score", "limit": 10}
    first = client.post("/v1/recommend", json=body).json()
    second = client.post("/v1/recommend", json={**body, "cursor": first["next_cursor"]}).json()
    whole = ids(client.post("/v1/recommend", json={**body, "limit": 20}).json())
    assert ids(first) + ids(second) == whole
    other = {**body, "positive": [whole[0]], "cursor": first["next_cursor"]}
    assert_problem(client.post("/v1/recommend", json=other), 422, "another request")


def test_a_cursor_of_another_request_is_refused(client: TestClient) -> None:
    cursor = search(client, limit=3)["next_cursor"]
    assert_problem(post(client, (0, 0, 255), cursor=cursor), 422, "another request")
    where = json.dumps({"must": [{"key": "label", "match": {"value": "red"}}]})
    assert_problem(post(client, cursor=cursor, filter=where), 422, "another request")
    assert_problem(post(client, cursor=cursor, group_by="label"), 422, "another request")
    one = id_of(client, "red", 3)
    refused = client.get(f"/v1/images/{one}/similar", params={"cursor": cursor})
    assert_problem(refused, 422, "another request")


def test_a_cursor_of_another_model_is_refused(client: TestClient) -> None:
    cursor = search(client, limit=3)["next_cursor"]
    head, _, body = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).partition(b"\n")
    data = json.dumps({**json.loads(head), "model": "sha256:old"}).encode() + b"\n" + body
    other = base64.urlsafe_b64encode(data).decode()
    assert_problem(post(client, cursor=other), 409, "sha256:old", "sha256:mean-colour")


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"score": None},
        {"score": float("nan")},
        {"score": 1e300},
        {"id": -1},
        {"id": True},
        {"seen": 2**64},
        {"shape": [9, 9]},
        {"shape": [-1, 3]},
        {"groups": 5},
        {"groups": [None]},
        {"model": 3},
    ],
)
def test_a_damaged_cursor_is_refused(client: TestClient, change: dict[str, Any]) -> None:
    cursor = search(client, limit=3)["next_cursor"]
    head, _, body = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).partition(b"\n")
    data = json.dumps({**json.loads(head), **change}).encode() + b"\n" + body
    text = base64.urlsafe_b64encode(data).decode()
    assert_problem(post(client, cursor=text), 422, "cannot be read")


@pytest.mark.parametrize("text", ["x", "", "ä", "e30", "W10", "bnVsbA", "A" * 101, "[" * 400])
def test_garbage_as_a_cursor_is_refused(client: TestClient, text: str) -> None:
    assert_problem(post(client, cursor=text), 422, "cursor")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"diversity": 1.5}, ["diversity"]),
        ({"diversity": "nan"}, ["diversity"]),
        ({"diversity": 0.5, "candidates": 0}, ["candidates is 0", "1 to 2000"]),
        ({"diversity": 0.5, "candidates": 2001}, ["2001", "1 to 2000"]),
        ({"diversity": 0.5, "candidates": 5, "limit": 6}, ["is 6", "5 candidates"]),
        ({"diversity": 0.5, "limit": 201}, ["200 candidates"]),
        ({"candidates": 10}, ["without diversity"]),
        ({"diversity": 0.5, "group_by": "label"}, ["cannot be combined"]),
        ({"group_size": 2}, ["without group_by"]),
        ({"group_by": "label", "group_size": 0}, ["group_size is 0"]),
        ({"group_by": "label", "group_size": 100, "limit": 11}, ["at most 1000 points"]),
        ({"group_by": "a..b"}, ["group_by", "names with dots"]),
        ({"group_by": ".".join("abcdefghi")}, ["at most 8 names"]),
    ],
)
def test_invalid_parameters(client: TestClient, params: dict[str, Any], words: list[str]) -> None:
    assert_problem(post(client, **params), 422, *words)
    one = id_of(client, "red", 0)
    assert_problem(client.get(f"/v1/images/{one}/similar", params=params), 422, *words)


def test_invalid_combinations_with_a_cursor(client: TestClient, engine: SearchEngine) -> None:
    cursor = search(client, limit=3)["next_cursor"]
    assert_problem(post(client, cursor=cursor, offset=3), 422, "offset is 3")
    assert_problem(post(client, cursor=cursor, diversity=0.5), 422, "cannot be combined")
    small = TestClient(create_app(engine, Limits(max_cursor_chars=50)))
    assert_problem(post(small, cursor=cursor), 422, "at most 50")
    assert search(small, limit=3)["next_cursor"] is None
