"""The limits on the size and the duration of a request's body."""

from __future__ import annotations

import asyncio
import gc
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from embed.pictures import PictureLimits
from search_api.api import openapi
from search_api.api.app import create_app
from search_api.api.middleware.body_limit import BodyLimitMiddleware, ByteBudget
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
    limits = Limits(max_images=1, max_form_fields=3, max_form_field_bytes=100)
    client = TestClient(create_app(engine, limits))
    files = {"image": ("q.png", png((1, 2, 3)))}
    many = client.post("/v1/search", files=files, data={f"f{i}": "x" for i in range(8)})
    assert_problem(many, 400, "Too many fields")
    few = client.post("/v1/search", files=files, data={f"f{i}": "x" for i in range(7)})
    assert_problem(few, 422, "unknown field 'f0'")
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


KINDS = {
    "form": "multipart/form-data; boundary=x",
    "json": "application/json",
    "image": "image/png",
    "curl": "application/x-www-form-urlencoded",
}
MOST = Limits(max_body_bytes=300_000, max_json_bytes=100_000, picture=PictureLimits(200_000))


def most_of(operation: dict[str, Any], kind: str) -> int:
    """The limit that follows from the OpenAPI document."""
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return 4096
    if kind == "form" and "multipart/form-data" in content:
        return MOST.max_body_bytes
    if kind in ("image", "curl") and "image/*" in content:
        return MOST.picture.max_bytes
    return MOST.max_json_bytes


def test_the_limit_follows_from_the_route_not_from_the_claim(engine: SearchEngine) -> None:
    client = TestClient(create_app(engine, MOST), raise_server_exceptions=False)
    seen: Counter[int] = Counter()
    for path, method, operation in openapi.operations(client.app.openapi()):
        if (method, path) == ("GET", "/v1/jobs/{job_id}/events"):
            continue
        filled = re.sub(r"\{\w+\}", "1", path)
        for kind, name in KINDS.items():
            most = most_of(operation, kind)
            seen[most] += 1
            for size in (most, most + 1):
                headers = {"content-type": name, "content-length": str(size)}
                answer = client.request(method, filled, headers=headers, content=b"")
                assert (answer.status_code == 413) == (size > most), (method, path, kind, size)
            assert_problem(answer, 413, f"{most:,}")
    assert set(seen) == {4096, 100_000, 200_000, 300_000}
    assert seen[200_000] == 8


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/v1/nothing", 404), ("POST", "/livez", 405)]
)
def test_routes_that_do_not_exist_read_nothing(
    engine: SearchEngine, method: str, path: str, status: int
) -> None:
    scope = {**post_scope(path), "method": method}
    scope["headers"].append((b"content-length", b"60000000"))
    part = {"type": "http.request", "body": bytes(65536), "more_body": True}
    messages = [dict(part) for _ in range(100)]
    kept = list(messages)
    start, _ = call(create_app(engine), scope, messages)
    assert start["status"] == status
    assert messages == kept


def test_a_body_without_a_length_is_cut_at_the_limit_of_the_route(engine: SearchEngine) -> None:
    part = {"type": "http.request", "body": bytes(65536), "more_body": True}
    scope = post_scope("/v1/recommend")
    start, body = call(create_app(engine), scope, [dict(part) for _ in range(100)])
    assert start["status"] == 413
    assert "1,048,576" in json.loads(body["body"])["detail"]


def form(size: int) -> list[dict[str, Any]]:
    """The messages of a form with a file of ``size`` zeros."""
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="q"\r\n\r\n'
    parts = [head, *[bytes(65536)] * (size // 65536), b"\r\n--x--\r\n"]
    return [
        {"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts
    ]


def open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_budget_for_all_bodies_together(engine: SearchEngine) -> None:
    """Twelve requests of 2 MB at once against a budget of 8: some get 503, and all bytes return."""
    app = create_app(engine, Limits(max_bytes_in_flight=8_000_000))
    files = open_files()
    starts: list[dict[str, Any]] = []
    peak = 0.0

    def in_flight() -> float:
        found = app.state.context.metrics.registry.get_sample_value("lookalike_request_bytes")
        assert found is not None
        return found

    async def one(number: int) -> None:
        left = form(2 * 2**20)
        left = left[:20] if number % 4 == 0 else left  # a client that disconnects

        async def receive() -> dict[str, Any]:
            nonlocal peak
            await asyncio.sleep(0)
            peak = max(peak, in_flight())
            return left.pop(0) if left else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                starts.append(message)

        await app(post_scope("/v1/search"), receive, send)

    async def storm() -> None:
        await asyncio.gather(*(one(number) for number in range(12)))

    for _ in range(3):
        asyncio.run(storm())
        assert in_flight() == 0
    statuses = Counter(start["status"] for start in starts)
    assert statuses[503] >= 3
    assert statuses[415] >= 3  # zeros are no picture
    refused = [dict(start["headers"]) for start in starts if start["status"] == 503]
    assert all(headers[b"retry-after"] == b"1" for headers in refused)
    assert 4_000_000 < peak < 8_000_000 + 2 * 65536
    assert open_files() == files


def test_a_declared_length_over_what_is_left_is_refused_at_once(engine: SearchEngine) -> None:
    budget = ByteBudget(1000)
    budget.used = 900
    middleware = BodyLimitMiddleware(create_app(engine), Limits(), budget)
    scope = {**post_scope("/v1/search"), "app": create_app(engine)}
    scope["headers"].append((b"content-length", b"101"))
    start, body = call(middleware, scope, [])
    assert start["status"] == 503
    assert "900" in json.loads(body["body"])["detail"]
    assert budget.used == 900


@pytest.mark.parametrize("limits", [Limits(body_idle_seconds=0.05), Limits(max_json_bytes=5)])
def test_bytes_return_after_errors(engine: SearchEngine, limits: Limits) -> None:
    app = create_app(engine, limits)
    part = {"type": "http.request", "body": b"123456", "more_body": True}
    start, _ = call(app, post_scope("/v1/recommend"), [part])
    assert start["status"] in (408, 413)
    assert app.state.context.metrics.registry.get_sample_value("lookalike_request_bytes") == 0
