"""Stored pictures over HTTP."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from search_api.api.app import create_app
from search_api.service.engine import SearchEngine
from search_api.settings import Limits
from tests.search_api.conftest import colour, id_of, png, rebuild, source_of
from tests.search_api.helpers import assert_problem


def test_metadata(client: TestClient) -> None:
    one = id_of(client, "green", 6)
    size = len(client.get(f"/v1/images/{one}/file").content)
    file = {"name": "6.png", "bytes": size, "format": "PNG", "width": 32, "height": 32}
    assert client.get(f"/v1/images/{one}").json() == {
        "id": one,
        "payload": {"label": "green", "split": "test", "source": "test/green/6.png", "file": file},
        "image_url": f"/v1/images/{one}/file",
        "model": "sha256:mean-colour",
        "generation": 1,
        "sequence": 1,
    }


def test_file_is_the_picture(client: TestClient) -> None:
    one = id_of(client, "blue", 4)
    response = client.get(f"/v1/images/{one}/file")
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-content-type-options"] == "nosniff"
    pixels = np.asarray(Image.open(io.BytesIO(response.content)))
    assert pixels.shape == (32, 32, 3)
    assert (pixels == colour("blue", 4)).all()


def test_file_is_cacheable(client: TestClient) -> None:
    one, other = id_of(client, "red", 0), id_of(client, "red", 1)
    etag = client.get(f"/v1/images/{one}/file").headers["etag"]
    again = client.get(f"/v1/images/{one}/file", headers={"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == etag
    different = client.get(f"/v1/images/{other}/file", headers={"if-none-match": etag})
    assert different.status_code == 200


def test_large_file_is_scaled_on_request(
    client: TestClient, engine: SearchEngine, folder: Path
) -> None:
    (folder / "train" / "red" / "large.png").write_bytes(png((200, 0, 0), (600, 300)))
    rebuild(engine)
    points = client.get("/v1/images", params={"limit": 100}).json()["points"]
    one = next(p["id"] for p in points if p["payload"]["source"] == "train/red/large.png")
    whole = client.get(f"/v1/images/{one}/file")
    assert whole.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(whole.content)).size == (600, 300)
    small = client.get(f"/v1/images/{one}/file", params={"size": 100})
    assert small.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(small.content)).size == (100, 50)


def test_file_gone(client: TestClient, folder: Path) -> None:
    one = id_of(client, "red", 5)
    (folder / source_of("red", 5)).unlink()
    response = client.get(f"/v1/images/{one}/file")
    assert response.status_code == 404
    assert response.json()["type"] == "urn:lookalike:problem:file-gone"
    assert "rebuild" in response.json()["detail"]


def test_file_replaced_by_a_link_out_of_the_corpus(
    client: TestClient, folder: Path, tmp_path: Path
) -> None:
    one = id_of(client, "red", 5)
    secret = tmp_path / "secret.png"
    secret.write_bytes(png((1, 2, 3)))
    (folder / source_of("red", 5)).unlink()
    (folder / source_of("red", 5)).symlink_to(secret)
    assert client.get(f"/v1/images/{one}/file").status_code == 404


def test_pages_cover_everything_once(client: TestClient) -> None:
    seen: list[int] = []
    after: int | None = -1
    while after is not None:
        page = client.get("/v1/images", params={"limit": 7, "after": after}).json()
        assert page["total"] == 24
        seen += [point["id"] for point in page["points"]]
        after = page["next_after"]
    assert len(seen) == len(set(seen)) == 24
    assert seen == sorted(seen)


def test_list_with_a_filter(client: TestClient) -> None:
    where = '{"must": [{"key": "split", "match": {"value": "test"}}]}'
    page = client.get("/v1/images", params={"filter": where}).json()
    assert page["total"] == 6
    assert page["next_after"] is None
    assert {p["payload"]["source"] for p in page["points"]} == {
        source_of(label, shade) for label in ("red", "green", "blue") for shade in (6, 7)
    }


def test_filters_in_every_request(client: TestClient) -> None:
    """What is missing, dates and words: listed, searched, recommended and deleted alike."""
    payloads = {
        3: {"label": None},
        5: {
            "label": None,
            "exif": {"taken": "2024-05-31T23:30:00-02:00"},
            "title": "Good CHEAP Hat",
        },
        7: {"exif": {"taken": "2024-05-31"}, "title": "a cheap hat"},
    }
    for id_, payload in payloads.items():
        assert client.patch(f"/v1/images/{id_}", json={"payload": payload}).is_success
    june = {"key": "exif.taken", "range": {"gte": "2024-06-01"}}
    for condition, expected in (
        ({"is_null": {"key": "label"}}, [3, 5]),
        (june, [5]),
        ({"key": "title", "match": {"text": "hat cheap"}}, [5, 7]),
    ):
        where = {"must": [condition]}
        params = {"filter": json.dumps(where)}
        for response in (
            client.get("/v1/images", params=params),
            client.post("/v1/search", files={"image": png(colour("red", 1))}, params=params),
            client.get("/v1/images/9/similar", params=params),
            client.post("/v1/recommend", json={"positive": [9], "filter": where}),
        ):
            assert response.status_code == 200, response.text
            assert sorted(point["id"] for point in response.json()["points"]) == expected
    params = {"filter": '{"must": [{"is_nul": {"key": "label"}}]}'}
    assert_problem(client.get("/v1/images", params=params), 422, "expected 'is_null' perhaps")
    where = {"must": [{"is_null": {"key": "label"}}], "must_not": [june]}
    assert client.post("/v1/images/delete", json={"filter": where}).json()["deleted"] == 1
    assert client.get("/v1/images/3").status_code == 404


def listed(client: TestClient, limit: int = 7, **params: str) -> list[dict[str, Any]]:
    """All pages of a sorted listing."""
    points: list[dict[str, Any]] = []
    page: dict[str, Any] = {"next_cursor": None}
    while not points or page["next_cursor"]:
        if page["next_cursor"]:
            params["cursor"] = page["next_cursor"]
        response = client.get("/v1/images", params={"limit": limit, **params})
        assert response.status_code == 200, response.text
        page = response.json()
        assert page["next_after"] is None
        points += page["points"]
    assert len(points) == page["total"]
    return points


def test_sorted_by_a_field(client: TestClient) -> None:
    taken = {
        3: "2024-05-31T23:30:00-02:00",
        5: "2024-06-01T01:00:00Z",
        7: "2024-06-01",
        9: "1999-12-31T23:59:59.5Z",
        11: None,
        13: "someday",
    }
    for id_, date in taken.items():
        assert client.patch(f"/v1/images/{id_}", json={"payload": {"taken": date}}).is_success
    rest = [i for i in range(1, 25) if i not in taken or i == 11]
    ids = [point["id"] for point in listed(client, order_by="taken")]
    assert ids == [9, 7, 5, 3, 13, *rest]
    ids = [point["id"] for point in listed(client, order_by="taken", direction="desc")]
    assert ids == [13, 3, 5, 7, 9, *rest]
    where = json.dumps({"must_not": [{"is_empty": {"key": "taken"}}]})
    ids = [point["id"] for point in listed(client, 2, order_by="taken", filter=where)]
    assert ids == [9, 7, 5, 3, 13]
    labels = [p["payload"]["label"] for p in listed(client, order_by="label", direction="desc")]
    assert labels == ["red"] * 8 + ["green"] * 8 + ["blue"] * 8
    ids = [point["id"] for point in listed(client, order_by="id", direction="desc")]
    assert ids == list(range(24, 0, -1))


def test_a_sorted_listing_that_cannot_be(client: TestClient) -> None:
    def refused(words: str, **params: object) -> None:
        assert_problem(client.get("/v1/images", params=params), 422, words)

    cursor = client.get("/v1/images?order_by=source&limit=3").json()["next_cursor"]
    refused("order_by is 'a..b'; expected names", order_by="a..b")
    refused("after is 3 with order_by; continue with `cursor`", order_by="source", after=3)
    refused("direction is 'desc' without order_by", direction="desc")
    refused("without order_by; send both or neither", cursor=cursor)
    refused("direction", order_by="source", direction="down")
    refused("belongs to another listing", order_by="label", cursor=cursor)
    refused("belongs to another listing", order_by="source", direction="desc", cursor=cursor)
    where = '{"must": [{"key": "split", "match": {"value": "test"}}]}'
    refused("belongs to another listing", order_by="source", filter=where, cursor=cursor)
    refused("cursor of 4 characters cannot be read", order_by="source", cursor="abcd")
    refused("cursor has 16,385 characters", order_by="source", cursor="a" * 16_385)


def test_examples_are_one_of_each_class_from_the_test_split(client: TestClient) -> None:
    points = client.get("/v1/images/examples").json()["points"]
    assert [p["payload"]["label"] for p in points] == ["blue", "green", "red"]
    assert {p["payload"]["split"] for p in points} == {"test"}
    more = client.get("/v1/images/examples", params={"per_class": 2}).json()["points"]
    assert len({p["id"] for p in more}) == 6


def test_limits_are_settings(engine: SearchEngine) -> None:
    limits = Limits(max_per_class=2, max_side=100, max_filter_depth=1, max_filter_conditions=2)
    client = TestClient(create_app(engine, limits), raise_server_exceptions=False)
    assert_problem(client.get("/v1/images/examples?per_class=3"), 422, "per_class is 3")
    assert len(client.get("/v1/images/examples?per_class=2").json()["points"]) == 6
    assert_problem(client.get("/v1/images/1/file?size=101"), 422, "size is 101")
    assert client.get("/v1/images/1/file?size=100").status_code == 200
    red = {"key": "label", "match": {"value": "red"}}
    for where, words in (
        ({"must": [{"must": [red]}]}, "nested too deep"),
        ({"must": [red] * 3}, "one too many"),
    ):
        refused = client.get("/v1/images", params={"filter": json.dumps(where)})
        assert_problem(refused, 422, words)
        response = client.post("/v1/recommend", json={"positive": [1], "filter": where})
        assert_problem(response, 422, words)
