"""The fast path gives the same responses as the routes."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from search_api.api.fast_path import MOST_BYTES, picture_in, simple_page
from search_api.service.page import Page
from tests.search_api.conftest import colour, id_of, png
from tests.search_api.helpers import assert_problem

RED = png(colour("red", 3))


def timeless(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "time"}


@pytest.fixture
def by_route(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Posts a form with the fast path disabled."""

    def post(path: str, **options: Any) -> dict[str, Any]:
        with monkeypatch.context() as patch:
            patch.setattr("search_api.api.fast_path.simple_page", lambda *_: None)
            response = client.post(path, **options)
        assert response.status_code == 200, response.text
        return response.json()

    return post


@pytest.mark.parametrize("query", ["", "?limit=3", "?limit=24"])
def test_a_search_gives_the_response_of_the_route(
    client: TestClient, by_route: Any, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, files = f"/v1/search{query}", {"image": ("q.png", RED)}
    expected = by_route(path, files=files)
    monkeypatch.setattr(
        "search_api.api.routes.search.read_upload", None
    )  # fails if the route is called
    response = client.post(path, files=files)
    assert timeless(response.json()) == timeless(expected)
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()["time"]) == set(expected["time"])
    raw = client.post(path, content=RED, headers={"content-type": "image/png"})
    assert timeless(raw.json()) == timeless(expected)


@pytest.mark.parametrize("extra", ["?offset=1", "?limit=4&filter=%7B%7D", "?diversity=0.5"])
def test_a_picture_as_the_body_with_any_parameters(
    client: TestClient, by_route: Any, extra: str
) -> None:
    expected = by_route(f"/v1/search{extra}", files={"image": ("q.png", RED)})
    raw = client.post(
        f"/v1/search{extra}", content=RED, headers={"content-type": "image/x-anything"}
    )
    assert timeless(raw.json()) == timeless(expected)


def test_other_requests_go_to_the_route(client: TestClient) -> None:
    expected = timeless(client.post("/v1/search", files={"image": ("q.png", RED)}).json())
    fields = {"image": ("q.png", RED)}
    more = client.post("/v1/search", files=fields, data={"limit": "12"})
    assert timeless(more.json()) == expected
    large = png(colour("red", 3), (700, 700))
    large += bytes(MOST_BYTES)
    assert client.post("/v1/search", files={"image": ("q.png", large)}).status_code == 200


@pytest.mark.parametrize(
    ("options", "status", "word"),
    [
        ({}, 422, "multipart form"),
        ({"files": {"other": ("q.png", RED)}}, 422, "did you mean 'image'?"),
        ({"data": {"image": "text"}}, 422, "image"),
        ({"content": b"", "headers": {"content-type": "image/png"}}, 422, "empty"),
        ({"content": b"no", "headers": {"content-type": "image/png"}}, 415, "not a picture"),
        ({"content": RED[:60], "headers": {"content-type": "image/png"}}, 422, "truncated"),
        ({"files": {"image": ("q.png", b"")}}, 422, "empty"),
        ({"files": {"image": ("q.png", RED)}, "params": {"limit": 0}}, 422, "limit is 0"),
        ({"files": {"image": ("q.png", RED)}, "params": {"limit": 1001}}, 422, "limit is 1001"),
        ({"files": {"image": ("q.png", RED)}, "params": {"limit": "x"}}, 422, "limit"),
    ],
)
def test_problems_of_a_search(
    client: TestClient, options: dict[str, Any], status: int, word: str
) -> None:
    assert_problem(client.post("/v1/search", **options), status, word)


def test_metadata_is_that_of_the_route(client: TestClient) -> None:
    image_id = id_of(client, "red", 3)
    listed = client.get("/v1/images", params={"limit": 100}).json()
    (expected,) = [point for point in listed["points"] if point["id"] == image_id]
    stamp = {name: listed[name] for name in ("model", "generation", "sequence")}
    for path in (f"/v1/images/{image_id}", f"/v1/images/0{image_id}"):
        assert client.get(path).json() == {**expected, **stamp}
    client.patch(f"/v1/images/{image_id}", json={"payload": {"name": "Zoë 🐈", "n": [1, None]}})
    changed = client.get(f"/v1/images/{image_id}").json()["payload"]
    assert changed == {**expected["payload"], "name": "Zoë 🐈", "n": [1, None]}
    client.delete(f"/v1/images/{image_id}")
    assert_problem(client.get(f"/v1/images/{image_id}"), 404, str(image_id))


@pytest.mark.parametrize("path", ["-1", "1.5", "x", str(2**63), "٣"])
def test_invalid_ids(client: TestClient, path: str) -> None:
    assert_problem(client.get(f"/v1/images/{path}"), 422)


@pytest.mark.parametrize(
    ("query", "limit"),
    [
        (b"", 12),
        (b"limit=7", 7),
        (b"limit=07", 7),
        (b"limit=20", 20),
        (b"limit=21", None),
        (b"limit=0", None),
        (b"limit=7&limit=8", None),
        (b"limit=7&", None),
        (b"offset=1", None),
        (b"limit=%37", None),
        (b"limit=999999999999", None),
    ],
)
def test_simple_pages(query: bytes, limit: int | None) -> None:
    assert simple_page(query, 20) == (None if limit is None else Page(limit))


HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="q.png"\r\n'


@pytest.mark.parametrize(
    ("body", "picture"),
    [
        (HEAD + b"Content-Type: image/png\r\n\r\nPIC\r\n--b--\r\n", b"PIC"),
        (HEAD + b"\r\nPIC\r\n--b--", b"PIC"),
        (HEAD.lower() + b"content-length: 3\r\n\r\nPIC\r\n--b--", b"PIC"),
        (HEAD + b"\r\n\r\n--b--\r\n", b""),
        (HEAD + b"\r\nP\r\nI\r\n\r\nC\r\n--b--\r\n", b"P\r\nI\r\n\r\nC"),
        (HEAD + b"\r\nPIC\r\n--b--\r\nmore", None),
        (HEAD + b"\r\nPIC\r\n--b\r\n", None),
        (HEAD + b"\r\nPIC", None),
        (HEAD + b"X-Other: 1\r\n\r\nPIC\r\n--b--\r\n", None),
        (HEAD.replace(b"image", b"Image") + b"\r\nPIC\r\n--b--\r\n", None),
        (HEAD.replace(b"image", b"other") + b"\r\nPIC\r\n--b--\r\n", None),
        (HEAD.replace(b'; filename="q.png"', b"") + b"\r\nPIC\r\n--b--\r\n", None),
        (HEAD + b"\r\nPIC\r\n" + HEAD + b"\r\nTWO\r\n--b--\r\n", None),
        (b"\r\n" + HEAD + b"\r\nPIC\r\n--b--\r\n", None),
        (HEAD[:-2], None),
        (b"", None),
    ],
)
def test_forms_of_one_picture(body: bytes, picture: bytes | None) -> None:
    assert picture_in(body, b"b") == picture
