"""Stored pictures over HTTP."""

from __future__ import annotations

import io
import json
from pathlib import Path

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
