"""Every kind of bad input: a 4xx as problem+json that names the problem, and nothing else."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from embed.pictures import PictureLimits
from index.scans import FilterScans
from search_api.api.app import create_app
from search_api.service.engine import SearchEngine
from search_api.settings import Limits
from tests.search_api.conftest import colour, id_of, png
from tests.search_api.helpers import assert_problem


@pytest.fixture(autouse=True)
def server_keeps_working(client: TestClient) -> Iterator[None]:
    """After each bad request the same server answers a good one, and its index is unchanged."""

    def index() -> dict:
        info = client.get("/v1/index").json()
        return {**info, "storage": {**info["storage"], "free_bytes": None}}

    before = index()
    yield
    response = client.post("/v1/search", files={"image": ("q.png", png(colour("red", 2)))})
    assert response.status_code == 200
    assert response.json()["points"][0]["payload"]["source"] == "train/red/2.png"
    assert index() == before


def post(client: TestClient, data: bytes, name: str = "q.png", **params: object) -> Response:
    return client.post("/v1/search", files={"image": (name, data)}, params=params)


def bomb(width: int, height: int) -> bytes:
    """A tiny PNG whose header claims a huge picture."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_not_a_picture(client: TestClient) -> None:
    assert_problem(post(client, b"hello, world"), 415, "12 bytes", "JPEG, PNG")


def test_empty(client: TestClient) -> None:
    assert_problem(post(client, b""), 422, "empty")


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_truncated(client: TestClient, format_: str) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(buffer, format_)
    data = buffer.getvalue()
    response = post(client, data[: len(data) // 2])
    assert response.status_code in (415, 422)
    assert_problem(response, response.status_code, "picture")


def test_decompression_bomb(client: TestClient) -> None:
    problem = assert_problem(post(client, bomb(60_000, 60_000)), 413, "55,000,000", "scale it down")
    assert problem["type"] == "urn:lookalike:problem:too-many-pixels"


def test_picture_over_the_byte_limit(engine: SearchEngine) -> None:
    limits = Limits(picture=PictureLimits(max_bytes=1000))
    small = TestClient(create_app(engine, limits))
    response = post(small, png((1, 2, 3)) + bytes(1000))
    assert_problem(response, 413, "1,000")


def test_body_over_the_limit_by_length(engine: SearchEngine) -> None:
    small = TestClient(create_app(engine, Limits(max_body_bytes=5000)))
    assert_problem(post(small, bytes(6000)), 413, "5,000", "smaller")


def test_body_over_the_limit_in_chunks(engine: SearchEngine) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="q"\r\n\r\n'
        for _ in range(100):
            yield bytes(1000)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    small = TestClient(create_app(engine, Limits(max_body_bytes=5000)))
    response = small.post("/v1/search", content=chunks(), headers=headers)
    assert "content-length" not in response.request.headers
    assert_problem(response, 413, "more than 5,000")


def test_wrong_field(client: TestClient) -> None:
    response = client.post("/v1/search", files={"picture": ("q.png", png((1, 2, 3)))})
    problem = assert_problem(response, 422, "'picture'", "did you mean 'image'?")
    assert [error["in"] for error in problem["errors"]] == ["body.picture"]


def test_text_instead_of_a_file(client: TestClient) -> None:
    assert_problem(client.post("/v1/search", data={"image": "cat"}), 422, "image")


def test_no_body(client: TestClient) -> None:
    problem = assert_problem(client.post("/v1/search"), 422, "image", "required", "multipart form")
    assert problem["errors"] == [{"in": "body.image", "message": "Field required"}]


@pytest.mark.parametrize("limit", [0, -1, 1001, 1_000_000, 2_000_000_000, 2**63, 10**30])
def test_limit_out_of_range(client: TestClient, limit: int) -> None:
    assert_problem(post(client, png((1, 2, 3)), limit=limit), 422, str(limit), "1 to 1000")


def test_limit_not_a_number(client: TestClient) -> None:
    assert_problem(post(client, png((1, 2, 3)), limit="many"), 422, "limit")


@pytest.mark.parametrize("offset", [-1, 10_001, 2**63])
def test_offset_out_of_range(client: TestClient, offset: int) -> None:
    assert_problem(post(client, png((1, 2, 3)), offset=offset), 422, str(offset), "0 to 10000")


@pytest.mark.parametrize("threshold", ["nan", "inf", "2", "-1.5", "high"])
def test_threshold(client: TestClient, threshold: str) -> None:
    response = post(client, png((1, 2, 3)), score_threshold=threshold)
    assert_problem(response, 422, "score_threshold")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "3",
        '"label"',
        '{"must": 1}',
        '{"should": [{}]}',
        '{"sometimes": []}',
        '{"must": [{"key": "label"}]}',
        '{"must": [{"key": "label", "match": {"value": {"a": 1}}}]}',
        '{"must": [{"key": "year", "range": {"gt": "x"}}]}',
        "[" * 8000,
        json.dumps({"must": [{"key": "label", "match": {"value": "x"}}] * 1000})[:16_000],
    ],
)
def test_malformed_filter(client: TestClient, text: str) -> None:
    assert_problem(post(client, png((1, 2, 3)), filter=text), 422)
    assert_problem(client.get("/v1/images", params={"filter": text}), 422)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"must": [{"has_id": [1]}], "must": []}', "'must' twice"),
        ("", "filter is not JSON"),
        (" ", "filter is not JSON"),
    ],
)
def test_a_filter_that_would_find_everything(client: TestClient, text: str, words: str) -> None:
    assert_problem(client.get("/v1/images", params={"filter": text}), 422, words)
    picture = {"image": ("q.png", png((1, 2, 3)))}
    assert_problem(client.post("/v1/search", files=picture, data={"filter": text}), 422, words)


def test_filter_too_long(client: TestClient) -> None:
    assert_problem(client.get("/v1/images", params={"filter": " " * 20_000}), 422, "filter")


@pytest.mark.parametrize("path", ["/v1/images/{}", "/v1/images/{}/file", "/v1/images/{}/similar"])
def test_unknown_id(client: TestClient, path: str) -> None:
    problem = assert_problem(client.get(path.format(999_999)), 404, "999999")
    assert problem["ids"] == [999_999]
    assert problem["instance"] == path.format(999_999)
    for bad in ("-1", "2.5", "cat", str(2**63), "..%2f..%2fetc%2fpasswd"):
        response = client.get(path.format(bad))
        assert response.status_code in (404, 422)
        assert_problem(response, response.status_code)


def test_recommend(client: TestClient) -> None:
    one = id_of(client, "red", 0)

    def recommend(**request: object) -> Response:
        return client.post("/v1/recommend", json=request)

    assert_problem(recommend(), 422, "positive")
    assert_problem(recommend(positive=[]), 422, "positive")
    assert_problem(recommend(positive=[one, 777_777]), 404, "777777")
    assert_problem(recommend(positive=[one], negative=[888_888]), 404, "888888")
    assert_problem(recommend(positive=[one], strategy="worst"), 422, "average_vector")
    assert_problem(recommend(positive=[one], limit=0), 422, "limit")
    assert_problem(recommend(positive=[one], limit=1001), 422, "1 to 1000")
    assert_problem(recommend(positive=[one], filter={"must": 3}), 422, "must")
    assert_problem(recommend(positive=["a"]), 422, "positive")
    assert_problem(recommend(positive=[2**63]), 422, "positive")
    assert_problem(recommend(positive=[one], limits=3), 422, "limits")
    headers = {"content-type": "application/json"}
    assert_problem(client.post("/v1/recommend", content=b"{", headers=headers), 422, "JSON")


def test_classify_without_pictures(client: TestClient) -> None:
    assert_problem(client.post("/v1/classify"), 422, "images")


def test_classify_too_many(engine: SearchEngine) -> None:
    files = [("images", (f"{i}.png", png((1, 2, 3)))) for i in range(4)]
    small = TestClient(create_app(engine, Limits(max_images=3)))
    assert_problem(small.post("/v1/classify", files=files), 413, "4 pictures", "at most 3")


def test_unknown_path_and_method(client: TestClient) -> None:
    assert_problem(client.get("/v2/search"), 404, "/v2/search", "/docs")
    assert_problem(client.get("/v1/search"), 405, "GET", "POST")
    assert_problem(client.delete("/v1/index"), 405, "DELETE", "GET")
    assert_problem(client.get("/static/../app.py"), 404)
    assert_problem(client.get("/static/%2e%2e/app.py"), 404)


def test_unknown_job(client: TestClient) -> None:
    assert_problem(client.get("/v1/jobs/abc"), 404, "abc")


def test_broken_multipart(client: TestClient) -> None:
    response = client.post(
        "/v1/search", content=b"--x\r\nrubbish", headers={"content-type": "multipart/form-data"}
    )
    assert response.status_code in (400, 422)
    assert_problem(response, response.status_code)


def test_unexpected_error_is_a_problem_without_details(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    with monkeypatch.context() as patched:
        patched.setattr(engine, "search_batch", fail)
        client = TestClient(create_app(engine), raise_server_exceptions=False)
        response = post(client, png((1, 2, 3)))
    assert_problem(response, 500, "log")
    assert "secret" not in response.text


def test_a_filter_that_takes_too_long(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On every route that reads by a filter; a delete then deletes nothing."""
    monkeypatch.setattr("index.local.database._OPERATIONS", 1)
    where = {"should": [{"key": f"a.b.{i}", "match": {"value": 1}} for i in range(60)]}
    text = json.dumps(where)
    limits = Limits(filter_seconds=1e-9, max_filter_scans=1)
    client = TestClient(create_app(engine, limits))
    picture = ("q.png", png(colour("red", 1)))

    def requests() -> list[Response]:
        return [
            client.post("/v1/search", files={"image": picture}, params={"filter": text}),
            client.post("/v1/search/batch", files={"images": picture}, params={"filter": text}),
            client.get("/v1/images", params={"filter": text}),
            client.get("/v1/images/1/similar", params={"filter": text}),
            client.post("/v1/recommend", json={"positive": [1], "filter": where}),
            client.post("/v1/recommend", json={"positive": [1], "group_by": "a.b"}),
            client.post("/v1/images/delete", json={"filter": where}),
        ]

    for response in requests():
        problem = assert_problem(response, 422, "the filter took longer than 1e-09 seconds")
        assert problem["type"] == "urn:lookalike:problem:filter-timeout"
    engine.catalogue.scans = FilterScans(0.01, 1)
    with engine.catalogue.scans.one():
        for response in requests():
            problem = assert_problem(response, 503, "1 other filters have been running")
            assert problem["type"] == "urn:lookalike:problem:filters-busy"
            assert response.headers["retry-after"] == "2"
        assert client.post("/v1/search", files={"image": picture}).status_code == 200
        assert client.get("/v1/images").json()["total"] == 24
