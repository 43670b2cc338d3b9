"""The limits on the size and the duration of a request's body."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient

from search_api.api.app import create_app
from search_api.service.engine import SearchEngine
from search_api.settings import Limits
from tests.search_api.api.middleware.conftest import call, post_scope
from tests.search_api.conftest import colour, png
from tests.search_api.helpers import assert_problem


def test_json_bodies_have_their_own_limit(engine: SearchEngine) -> None:
    client = TestClient(create_app(engine, Limits(max_json_bytes=1000)))
    response = client.post("/v1/recommend", json={"positive": [1] * 1000})
    assert_problem(response, 413, "1,000")
    files = {"image": ("q.png", png(colour("red", 1), (300, 300)) + bytes(1000))}
    assert client.post("/v1/search", files=files).status_code == 200


def test_too_many_form_fields(engine: SearchEngine) -> None:
    client = TestClient(create_app(engine, Limits(max_form_fields=3, max_form_field_bytes=100)))
    files = {"image": ("q.png", png((1, 2, 3)))}
    many = client.post("/v1/search", files=files, data={f"f{i}": "x" for i in range(4)})
    assert_problem(many, 400, "Too many fields")
    long = client.post("/v1/search", files=files, data={"f": "x" * 200})
    assert_problem(long, 400, "maximum size")


def test_many_more_files_than_the_limit(engine: SearchEngine) -> None:
    client = TestClient(create_app(engine, Limits(max_images=3)))
    files = [("images", (f"{i}.png", b"x")) for i in range(9)]
    assert_problem(client.post("/v1/classify", files=files), 413, "too many pictures")


@pytest.mark.parametrize("limits", [Limits(body_idle_seconds=0.05), Limits(body_seconds=0.05)])
def test_a_slow_body_is_refused(engine: SearchEngine, limits: Limits) -> None:
    part = {"type": "http.request", "body": b"--x\r\n", "more_body": True}
    start, body = call(create_app(engine, limits), post_scope("/v1/search"), [part])
    assert start["status"] == 408
    problem = json.loads(body["body"])
    assert problem["type"] == "urn:lookalike:problem:request-timeout"
    assert "after 5 bytes" in problem["detail"]
