"""API keys over HTTP: every route checks them, and none that writes is forgotten; CORS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from search_api.api.access import OPEN_PATHS, READ_ONLY_POSTS
from search_api.api.app import create_app
from search_api.keys import Access, Keys
from search_api.service.engine import SearchEngine
from tests.search_api.conftest import png
from tests.search_api.helpers import assert_problem

READ, WRITE = "reader-0123456789", "writer-0123456789"
KEYS = Keys.of([READ], [WRITE])
VALUES = {"image_id": "1", "job_id": "x", "name": "monday", "digest": "sha256:0"}
"""For the parameters in paths."""


@pytest.fixture
def guarded(engine: SearchEngine) -> Iterator[TestClient]:
    with TestClient(create_app(engine, access=Access(KEYS))) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def operations(app: FastAPI) -> list[tuple[str, str]]:
    """(method, path) of every operation of the app, with ids filled in."""
    found = []
    for path, methods in app.openapi()["paths"].items():
        filled = path
        for name, value in VALUES.items():
            filled = filled.replace(f"{{{name}}}", value)
        assert "{" not in filled, f"{path}: give this test a value for its parameter"
        found += [(method.upper(), filled) for method in methods]
    return found


def test_every_operation_is_refused_without_a_key(guarded: TestClient) -> None:
    found = operations(guarded.app)
    assert ("POST", "/v1/index/rebuild") in found
    for method, path in found:
        if path in OPEN_PATHS:
            assert guarded.request(method, path).status_code == 200
            continue
        problem = guarded.request(method, path)
        assert_problem(problem, 401, "no API key", "Authorization: Bearer")
        assert problem.headers["www-authenticate"] == 'Bearer realm="lookalike"'
        unknown = guarded.request(method, path, headers=bearer("not-a-key-of-this-server"))
        assert_problem(unknown, 401, "not known")


def test_every_route_that_writes_needs_a_key_for_writing(guarded: TestClient) -> None:
    writing = [
        (method, path)
        for method, path in operations(guarded.app)
        if method != "GET" and path not in READ_ONLY_POSTS
    ]
    assert writing
    for method, path in writing:
        refused = guarded.request(method, path, headers=bearer(READ))
        assert_problem(refused, 403, method, path, "only read")


def test_read_only_posts_exist_and_only_read(guarded: TestClient) -> None:
    found = operations(guarded.app)
    for path in READ_ONLY_POSTS:
        assert ("POST", path) in found
        assert guarded.post(path, headers=bearer(READ)).status_code == 422


def test_both_headers_are_accepted(guarded: TestClient) -> None:
    files = {"image": ("q.png", png((1, 2, 3)))}
    for key in (READ, WRITE):
        for headers in (bearer(key), {"api-key": key}, {"authorization": f"bEaReR {key}"}):
            assert guarded.post("/v1/search", files=files, headers=headers).status_code == 200
    started = guarded.post("/v1/index/rebuild", headers={"api-key": WRITE})
    assert started.status_code == 202


def test_a_body_is_not_read_before_its_key_is_known(guarded: TestClient) -> None:
    # Over every limit: reading it would give 413.
    headers = {"content-length": str(10**12), "content-type": "multipart/form-data; boundary=x"}
    assert guarded.post("/v1/search", content=b"", headers=headers).status_code == 401


def test_the_page_itself_is_open_and_contains_no_data(guarded: TestClient) -> None:
    assert guarded.get("/").status_code == 200
    assert guarded.get("/static/app.js").status_code == 200
    assert guarded.get("/docs").status_code == 200
    assert guarded.get("/static/../../pyproject.toml").status_code in (401, 404)
    assert guarded.get("/metrics").status_code == 401


def test_cors_is_off_by_default(client: TestClient) -> None:
    headers = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    assert client.options("/v1/search", headers=headers).status_code == 405
    refused = client.get("/v1/index", headers=headers)
    assert_problem(refused, 403, "https://shop.example")
    assert not [name for name in refused.headers if name.startswith("access-control")]


def test_cors_for_named_origins(engine: SearchEngine) -> None:
    access = Access(KEYS, ("https://shop.example",))
    with TestClient(create_app(engine, access=access)) as client:
        headers = {
            "origin": "https://shop.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "api-key",
        }
        preflight = client.options("/v1/search", headers=headers)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
        refused = client.get("/v1/index", headers={"origin": "https://shop.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://shop.example"
        other = client.options("/v1/search", headers={**headers, "origin": "https://evil.example"})
        assert other.status_code == 400
        assert "access-control-allow-origin" not in other.headers
