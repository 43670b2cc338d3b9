"""Request ids, the log line of each request, and the limit on concurrent requests."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient

from search_api.api.app import create_app
from search_api.keys import Access, Keys
from search_api.service.engine import SearchEngine
from search_api.settings import Limits
from tests.search_api.api.middleware.conftest import call, post_scope, request_lines
from tests.search_api.conftest import colour, png
from tests.search_api.helpers import assert_problem


def test_one_line_per_request(client: TestClient, lines: Any) -> None:
    data = png(colour("red", 1))
    response = client.post("/v1/search?limit=3", files={"image": ("secret-name.png", data)})
    (line,) = request_lines(lines)
    assert response.headers["x-request-id"] == line["request_id"]
    assert line["method"] == "POST"
    assert line["route"] == line["path"] == "/v1/search"
    assert line["status"] == 200
    assert line["level"] == "info"
    assert line["ms"] > 0
    assert line["bytes_in"] == int(response.request.headers["content-length"])
    assert line["bytes_out"] == len(response.content)
    assert line["client"] == "testclient"
    assert line["time"].endswith("Z")
    assert "secret-name" not in json.dumps(line)


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/v1/index", "/nothing", "/docs"])
def test_no_response_may_be_sniffed_as_another_type(client: TestClient, path: str) -> None:
    assert client.get(path).headers["x-content-type-options"] == "nosniff"


def test_routes_are_logged_without_ids(client: TestClient, lines: Any) -> None:
    client.get("/v1/images/1")
    client.get("/v1/nothing")
    assert [line["route"] for line in request_lines(lines)] == [
        "/v1/images/{image_id}",
        "unmatched",
    ]


def test_no_key_is_logged(engine: SearchEngine, lines: Any) -> None:
    key = "0123456789-very-secret"
    with TestClient(create_app(engine, access=Access(Keys.of([key])))) as client:
        client.get("/v1/index", headers={"api-key": key})
        client.get("/v1/index", headers={"Authorization": f"Bearer {key}x"})
    assert [line["status"] for line in request_lines(lines)] == [200, 401]
    assert "very-secret" not in json.dumps(lines())


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("order-66.a_B", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("", False),
        ("two words", False),
        ('"quoted"', False),
        ("new\tline", False),
    ],
)
def test_a_valid_request_id_is_kept(client: TestClient, lines: Any, sent: str, kept: bool) -> None:
    response = client.get("/v1/images/999999", headers={"X-Request-ID": sent})
    problem = assert_problem(response, 404)
    assert (problem["request_id"] == sent) is kept
    assert problem["request_id"] == response.headers["x-request-id"]
    assert request_lines(lines)[-1]["request_id"] == problem["request_id"]


def test_job_events(client: TestClient, lines: Any) -> None:
    job = client.post("/v1/index/rebuild").json()["id"]
    client.app.state.context.jobs._thread.join()
    events = [line for line in lines() if line.get("job") == job]
    assert [line["message"] for line in events] == ["job started", "job ended"]
    assert events[-1]["state"] == "succeeded"
    text = client.get("/metrics").text
    assert 'lookalike_jobs_total{kind="rebuild",state="succeeded"} 1.0' in text
    assert 'lookalike_jobs_running{kind="rebuild"} 0.0' in text


def test_a_client_that_disconnects_is_not_an_error(engine: SearchEngine, lines: Any) -> None:
    part = {"type": "http.request", "body": b"--x\r\n", "more_body": True}
    call(create_app(engine), post_scope("/v1/search"), [part], stall=False)
    (line,) = request_lines(lines)
    assert line["status"] in (400, 499)
    assert [line for line in lines() if line["level"] == "error"] == []


def test_too_many_concurrent_requests(engine: SearchEngine, monkeypatch: Any) -> None:
    entered, opened = threading.Event(), threading.Event()
    summary = engine.summary

    def slow() -> dict[str, Any]:
        entered.set()
        assert opened.wait(20)
        return summary()

    monkeypatch.setattr(engine, "summary", slow)
    with TestClient(create_app(engine, Limits(max_requests=1))) as client:
        first: list[int] = []
        thread = threading.Thread(target=lambda: first.append(client.get("/v1/index").status_code))
        thread.start()
        assert entered.wait(20)
        refused = client.get("/v1/images")
        assert_problem(refused, 503, "try again")
        assert refused.headers["retry-after"] == "1"
        assert client.get("/livez").status_code == 200
        opened.set()
        thread.join()
        assert first == [200]
        assert client.get("/v1/images").status_code == 200


def test_draining(client: TestClient) -> None:
    client.app.state.context.draining.set()
    ready = client.get("/readyz")
    assert_problem(ready, 503, "shutting down")
    assert client.get("/livez").status_code == 200
    answer = client.get("/v1/index")
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("proxies", "client"),
    [
        ((), "127.0.0.1"),
        (("127.0.0.1",), "203.0.113.9"),
        (("127.0.0.0/8", "::1"), "203.0.113.9"),
        (("10.0.0.0/8",), "127.0.0.1"),
        (("127.0.0.1", "203.0.113.9"), "198.51.100.7"),
    ],
)
def test_forwarded_for_is_believed_from_configured_proxies_only(
    engine: SearchEngine, lines: Any, proxies: tuple[str, ...], client: str
) -> None:
    scope = post_scope("/v1/nothing")
    scope["headers"] = [
        (b"host", b"localhost"),
        (b"x-forwarded-for", b"198.51.100.7, 203.0.113.9"),
        (b"x-forwarded-host", b"evil.example"),
    ]
    call(create_app(engine, access=Access(proxies=proxies)), scope, [])
    assert request_lines(lines)[-1]["client"] == client
