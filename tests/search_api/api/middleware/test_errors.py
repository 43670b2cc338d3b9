"""Errors: each has the request's id, is found in the log, and can be read by allowed origins."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from embed.pictures import PictureLimits
from search_api.api.app import create_app
from search_api.keys import Access, Keys
from search_api.service.engine import SearchEngine
from search_api.settings import Limits
from tests.search_api.api.middleware.conftest import request_lines
from tests.search_api.helpers import assert_problem


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/v1/search", 405), ("POST", "/v1/search", 422)],
)
def test_every_problem_has_the_id(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    problem = assert_problem(response, status)
    assert problem["request_id"] == response.headers["x-request-id"]
    assert len(problem["request_id"]) == 32


def test_an_unexpected_error_is_found_in_the_log_by_its_id(
    client: TestClient, engine: SearchEngine, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("the cause")

    monkeypatch.setattr(engine, "summary", fail)
    problem = assert_problem(client.get("/v1/index"), 500, "log")
    causes = [line for line in lines() if "the cause" in line.get("exception", "")]
    assert [line["request_id"] for line in causes] == [problem["request_id"]]
    assert request_lines(lines)[-1]["status"] == 500


def test_pages_of_allowed_origins_can_read_errors(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    origin = {"origin": "https://shop.example"}
    limits = Limits(picture=PictureLimits(max_bytes=1000))
    app = create_app(engine, limits, Access(Keys(), ("https://shop.example",)))
    with TestClient(app, raise_server_exceptions=False) as client:
        for data, status in ((b"rubbish", 415), (b"", 422), (bytes(1001), 413)):
            files = {"image": ("q.png", data)}
            answer = client.post("/v1/search", files=files, headers=origin)
            assert_problem(answer, status)
            assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        answer = client.get("/v1/images/999999", headers=origin)
        assert_problem(answer, 404)
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        monkeypatch.setattr(engine, "summary", fail)
        answer = client.get("/v1/index", headers=origin)
        assert_problem(answer, 500)
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
