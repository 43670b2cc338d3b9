"""HEAD answers like GET, on every route, without a body."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from search_api.api.app import create_app
from search_api.api.intake.declared import route_table
from search_api.keys import Access, Keys
from search_api.service.engine import SearchEngine
from tests.search_api.api.middleware.conftest import call, post_scope, request_lines
from tests.search_api.api.middleware.test_site import targets
from tests.search_api.helpers import assert_problem, running, wait

DIFFER = {"x-request-id", "date"}


@pytest.fixture
def paths(client: TestClient) -> Iterator[list[str]]:
    """Every path that supports GET, with ids of what exists."""
    client.post("/v1/snapshots", json={"name": "monday"})
    job = client.post("/v1/index/compact").json()["id"]
    wait(client, job)
    digest = client.get("/v1/index").json()["model"]
    found = [path for method, path in targets(client.app) if method == "GET"]
    found += [f"/v1/jobs/{job}{end}" for end in ("", "/log", "/events")]
    found += [f"/v1/models/{digest}/diff", "/v1/images?limit=3", "/v1/images/1/file?size=20"]
    found += ["/static/app.js", "/static-offline-docs/swagger-ui.css"]
    found += ["/v1/images/999", "/v1/images/x", "/v1/images?limit=0", "/v1/nothing", "/v1/search"]
    yield found


def test_every_get_route_answers_head(client: TestClient, paths: list[str]) -> None:
    assert {"/", "/livez", "/metrics", "/docs", "/openapi.json", "/v1/images/1/file"} <= set(paths)
    for path in paths:
        got, head = client.get(path), client.head(path)
        assert head.status_code == got.status_code, path
        expected = {k: v for k, v in got.headers.items() if k not in DIFFER}
        headers = {k: v for k, v in head.headers.items() if k not in DIFFER}
        # The requests themselves change the one, and the digits of `time` the others.
        if path.endswith(("/metrics", "/similar", "/examples")):
            assert int(headers.pop("content-length")) > 100
            del expected["content-length"]
        assert headers == expected, path
        assert head.content == b""


def test_no_byte_of_a_body_is_sent(client: TestClient, paths: list[str]) -> None:
    """Not even one that a server would have to leave out; a stream ends at once."""
    for path in paths:
        path, _, query = path.partition("?")
        scope = {**post_scope(path), "method": "HEAD", "query_string": query.encode()}
        sent = call(client.app, scope, [])
        assert [message["type"] for message in sent] == [
            "http.response.start",
            "http.response.body",
        ]
        assert sent[1].get("body", b"") == b""
        assert not sent[1].get("more_body", False)


def test_an_unchanged_picture(client: TestClient) -> None:
    etag = client.get("/v1/images/1/file").headers["etag"]
    head = client.head("/v1/images/1/file", headers={"if-none-match": etag})
    assert (head.status_code, head.headers["etag"]) == (304, etag)


@pytest.mark.slow
def test_over_a_connection_that_stays_open(engine: SearchEngine) -> None:
    """The next answer follows the head at once; also while a job is being followed."""
    with running(engine) as (_, address):
        with httpx2.Client(base_url=f"http://{address[0]}:{address[1]}") as client:
            job = client.post("/v1/index/compact").json()["id"]
        paths = ("/v1/index", f"/v1/jobs/{job}/events", "/static/app.js", "/v1/images/1/file")
        with socket.create_connection(address, timeout=10) as connection:
            for path in paths:
                connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                received = b""
                while not received.endswith(b"\r\n\r\n"):
                    received += connection.recv(65536)
                assert received.startswith(b"HTTP/1.1 200"), received
                assert received.count(b"HTTP/1.1") == 1


def test_keys_logs_and_metrics(engine: SearchEngine, lines: Any) -> None:
    client = TestClient(create_app(engine, access=Access(Keys.of(["r" * 24], []))))
    assert client.head("/v1/images/1").status_code == 401
    assert client.head("/livez").status_code == 200
    reader = {"api-key": "r" * 24}
    assert client.head("/v1/images/1", headers=reader).status_code == 200
    line = request_lines(lines)[-1]
    assert (line["method"], line["route"]) == ("HEAD", "/v1/images/{image_id}")
    assert (line["status"], line["bytes_out"]) == (200, 0)
    metrics = client.get("/metrics", headers=reader).text
    counted = 'lookalike_requests_total{method="HEAD",route="/v1/images/{image_id}",status="200"}'
    assert f"{counted} 1.0" in metrics


def test_a_page_of_an_allowed_origin(engine: SearchEngine) -> None:
    origin = "https://shop.example"
    client = TestClient(create_app(engine, access=Access(origins=(origin,))))
    head = client.head("/v1/index", headers={"origin": origin})
    assert head.headers["access-control-allow-origin"] == origin
    asked = {"origin": origin, "access-control-request-method": "HEAD"}
    assert client.options("/v1/index", headers=asked).status_code == 200


def test_allow_names_every_method_of_a_path(client: TestClient) -> None:
    """Also of routes that share a path, and HEAD wherever there is GET."""
    for path, allowed in {
        "/v1/images": "GET, HEAD, POST",
        "/v1/images/1": "DELETE, GET, HEAD, PATCH",
        "/v1/index": "GET, HEAD",
        "/v1/search": "POST",
        "/v1/jobs/x": "DELETE, GET, HEAD",
        "/": "GET, HEAD",
        "/openapi.json": "GET, HEAD",
        "/static/app.js": "GET, HEAD",
    }.items():
        response = client.put(path)
        assert_problem(response, 405, path, f"use {allowed}")
        assert response.headers["allow"] == allowed
    assert route_table(client.app).methods("/v1/nothing") == []
    assert client.head("/v1/search").headers["allow"] == "POST"
