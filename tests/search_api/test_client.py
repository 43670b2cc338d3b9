"""The Python client, sync and async, against the real server."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from search_api import schemas
from search_api.app import bare_app
from search_api.client import AsyncClient, Client, ProblemError, UnreachableError
from search_api.client.calls import Retry
from search_api.openapi import operations
from tests.search_api.conftest import colour, png

RED = png(colour("red", 1))
NEAREST = "train/red/1.png"


def test_a_method_for_every_operation() -> None:
    ids = {operation["operationId"] for _, _, operation in operations(bare_app().openapi())}
    for client in (Client, AsyncClient):
        own = {
            name
            for name, member in inspect.getmembers(client, inspect.isfunction)
            if not name.startswith("_") and name not in ("close", "aclose")
        }
        assert own == ids


def test_it_needs_neither_model_nor_index_nor_server() -> None:
    code = "import sys, search_api.client; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "search_api.client" in modules
    assert not {"torch", "faiss", "fastapi", "starlette", "PIL"} & modules


def test_sync(live_server: str, tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    file.write_bytes(RED)
    with Client(live_server + "/") as client:
        for picture in (RED, file):
            found = client.search(picture, limit=2)
            assert isinstance(found, schemas.SearchResponse)
            assert found.prediction.label == "red"
            assert len(found.points) == 2
            assert found.points[0].payload["source"] == NEAREST
        first = found.points[0].id
        blue = {"must": [{"key": "label", "match": {"value": "blue"}}]}
        assert {p.payload["label"] for p in client.search(RED, filter=blue).points} == {"blue"}
        assert client.search(RED, score_threshold=0.9999).points[-1].score >= 0.9999
        assert client.similar(first, limit=3).points[0].id != first
        assert len(client.recommend([first], [found.points[1].id], limit=4).points) == 4
        classified = client.classify([RED, b"rubbish"]).results
        assert classified[0].prediction is not None and classified[0].prediction.label == "red"
        assert classified[1].error is not None and classified[1].error.status == 415
        page = client.list_images(limit=10)
        assert page.total == 24 and len(page.points) == 10
        assert client.list_images(after=page.next_after or 0).points[0].id > page.points[-1].id
        assert client.get_image(first).payload["source"] == NEAREST
        assert client.get_image_file(first).startswith(b"\x89PNG")
        assert len(client.examples(2).points) == 6
        assert client.index_info().count == 24
        assert client.livez() == client.readyz() == client.healthz()
        assert "lookalike_requests_total" in client.metrics()
        job = client.rebuild_index(reembed=True)
        while job.finished is None:
            time.sleep(0.01)
            job = client.get_job(job.id)
        assert job.state == "succeeded"
        assert job.result is not None and job.result["embedded"] == 24


def test_async(live_server: str) -> None:
    async def ask() -> None:
        async with AsyncClient(live_server) as client:
            answers = await asyncio.gather(*(client.search(RED, limit=n) for n in range(1, 9)))
            assert [len(answer.points) for answer in answers] == list(range(1, 9))
            with pytest.raises(ProblemError) as caught:
                await client.get_image(999_999)
            assert caught.value.status == 404

    asyncio.run(ask())


def test_problems_are_raised_with_their_members(live_server: str) -> None:
    with Client(live_server) as client, pytest.raises(ProblemError) as caught:
        client.similar(999_999)
    problem = caught.value
    assert problem.status == 404
    assert problem.type == "urn:lookalike:problem:unknown-id"
    assert problem.title == "Not Found"
    assert "999999" in problem.detail
    assert problem.instance == "/v1/images/999999/similar"
    assert len(problem.request_id) == 32
    assert problem.members["ids"] == [999_999]
    assert "999999" in str(problem)


def test_nothing_there() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(UnreachableError, match="check"):
        client.index_info()
    with Client("nonsense") as client, pytest.raises(UnreachableError, match="nonsense"):
        client.index_info()


def transport(handler: Callable[[httpx2.Request], httpx2.Response]) -> httpx2.MockTransport:
    return httpx2.MockTransport(handler)


def test_what_answers_is_something_else() -> None:
    page = transport(lambda _: httpx2.Response(200, text="<html>Welcome</html>"))
    with Client("http://x", transport=page) as client, pytest.raises(UnreachableError):
        client.index_info()
    proxy = transport(lambda _: httpx2.Response(502, text="Bad gateway: upstream"))
    with Client("http://x", transport=proxy) as client, pytest.raises(ProblemError) as caught:
        client.index_info()
    assert caught.value.status == 502
    assert "upstream" in caught.value.detail


def test_a_newer_server_may_say_more() -> None:
    answer = transport(lambda _: httpx2.Response(200, json={"status": "ok", "new": 1}))
    with Client("http://x", transport=answer) as client:
        assert client.livez().status == "ok"


@pytest.mark.parametrize(
    ("status", "after", "asked"),
    [
        (429, "0", 3),
        (503, "0", 3),
        (503, None, 1),
        (503, "later", 1),
        (429, "3600", 1),
        (500, "0", 1),
        (404, "0", 1),
    ],
)
def test_only_what_was_put_off_is_asked_again(status: int, after: str | None, asked: int) -> None:
    requests: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        headers = {} if after is None else {"Retry-After": after}
        return httpx2.Response(status, json={"detail": "no"}, headers=headers)

    def check(caught: ProblemError) -> None:
        assert caught.status == status
        assert len(requests) == asked
        # The whole body each time; only the multipart boundary differs.
        assert all(RED in request.read() for request in requests)
        requests.clear()

    with (
        Client("http://x", retry=Retry(times=2), transport=transport(handle)) as client,
        pytest.raises(ProblemError) as caught,
    ):
        client.search(RED)
    check(caught.value)

    async def ask() -> None:
        retry = Retry(times=2)
        async with AsyncClient("http://x", retry=retry, transport=transport(handle)) as client:
            with pytest.raises(ProblemError) as caught:
                await client.classify([RED])
            check(caught.value)

    asyncio.run(ask())


def test_it_succeeds_once_the_server_has_room() -> None:
    answers = [
        httpx2.Response(429, json={}, headers={"Retry-After": "0"}),
        httpx2.Response(200, json={"status": "ok"}),
    ]
    with Client("http://x", transport=transport(lambda _: answers.pop(0))) as client:
        assert client.readyz().status == "ok"
    assert answers == []


def test_the_key_is_sent() -> None:
    seen: list[Any] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers.get("authorization"))
        return httpx2.Response(200, content=json.dumps({"status": "ok"}))

    for key in ("secret-0123456789", None):
        with Client("http://x", key, transport=transport(handle)) as client:
            client.livez()
    assert seen == ["Bearer secret-0123456789", None]


def test_a_job_id_cannot_lead_elsewhere() -> None:
    with Client("http://x") as client, pytest.raises(ValueError, match="not the id of a job"):
        client.get_job("../index/rebuild")
