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

from search_api import examples, schemas, schemas_writes
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
    heavy = {"torch", "faiss", "numpy", "fastapi", "starlette", "PIL", "embed", "index"}
    assert not heavy & modules


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
        job = finished(client, client.rebuild_index(reembed=True))
        assert job.state == "succeeded"
        assert job.result is not None and job.result["embedded"] == 24


def finished(client: Client, job: schemas.Job) -> schemas.Job:
    while job.finished is None:
        time.sleep(0.01)
        job = client.get_job(job.id)
    return job


def test_writes(live_server: str, tmp_path: Path) -> None:
    file = tmp_path / "new.png"
    file.write_bytes(png((200, 100, 220)))
    with Client(live_server) as client:
        added = client.add_images(
            [file, RED, b"rubbish"], keys=["a", "b", "c"], payloads=[{"label": "pink", "price": 3}]
        )
        assert isinstance(added, schemas_writes.AddResponse)
        assert [result.filename for result in added.results] == ["new.png", "picture", "picture"]
        assert added.results[2].error is not None and added.results[2].error.status == 415
        pink, red = added.results[0].id, added.results[1].id
        assert pink is not None and red is not None
        assert client.search(file, limit=1).points[0].id == pink
        assert client.index_info().pending.added == 2

        changed = client.change_image(pink, {"price": None, "seen": True, "split": "test"})
        assert (changed.payload["split"], changed.payload["seen"]) == ("test", True)
        replaced = client.change_image(pink, {"x": 1}, replace=True).payload
        assert replaced == {"x": 1, "label": "pink", "split": "test", "source": "key:a"}

        kept = client.create_snapshot("monday")
        assert (kept.name, kept.count, kept.problem) == ("monday", 26, None)
        assert len(client.create_snapshot().name) > 6
        assert client.delete_image(red).deleted == 1
        assert client.delete_images([pink, 999_999]).deleted == 1
        blue = {"must": [{"key": "label", "match": {"value": "blue"}}]}
        assert client.delete_images(filter=blue).deleted == 8
        assert client.index_info().count == 16
        back = client.restore_snapshot("monday")
        assert (back.snapshot, back.changed, back.deleted) == ("monday", 10, 0)
        assert client.index_info().count == 26
        assert "monday" in [snapshot.name for snapshot in client.list_snapshots().snapshots]
        client.delete_snapshot("monday")
        assert "monday" not in [snapshot.name for snapshot in client.list_snapshots().snapshots]

        job = finished(client, client.compact_index(kind="exact"))
        assert (job.kind, job.state) == ("compact", "succeeded")
        assert client.index_info().pending.added == 0
        with pytest.raises(ProblemError) as caught:
            client.cancel_job(job.id)
        assert caught.value.type == "urn:lookalike:problem:job-finished"


def test_models(live_server: str) -> None:
    with Client(live_server) as client:
        models = client.list_models()
        assert models.serving == "sha256:mean-colour"
        (serving,) = models.models
        assert (serving.embedded, serving.total) == (24, 24)
        for ask in (client.embed_with_model, client.switch_model):
            with pytest.raises(ProblemError) as caught:
                ask("sha256:none")
            assert caught.value.type == "urn:lookalike:problem:unknown-model"
            with pytest.raises(ProblemError) as caught:
                ask(models.serving)
            assert caught.value.type == "urn:lookalike:problem:model-serves"


def test_a_difference_is_typed() -> None:
    asked: list[httpx2.URL] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url)
        return httpx2.Response(200, json=examples.SCHEMAS["ModelDifference"])

    with Client("http://x", transport=transport(handle)) as client:
        difference = client.model_difference("sha256:8c4e", queries=7, k=3)
    assert difference.overlap == 0.81
    assert asked[0].path == "/v1/models/sha256:8c4e/diff"
    assert dict(asked[0].params) == {"queries": "7", "k": "3"}


def test_async(live_server: str) -> None:
    async def ask() -> None:
        async with AsyncClient(live_server) as client:
            answers = await asyncio.gather(*(client.search(RED, limit=n) for n in range(1, 9)))
            assert [len(answer.points) for answer in answers] == list(range(1, 9))
            with pytest.raises(ProblemError) as caught:
                await client.get_image(999_999)
            assert caught.value.status == 404
            added = (await client.add_images([png((200, 100, 220))])).results[0].id
            assert added is not None
            assert (await client.change_image(added, {"label": "pink"})).payload["label"] == "pink"
            await client.create_snapshot("async")
            assert (await client.delete_images([added])).deleted == 1
            assert (await client.restore_snapshot("async")).changed == 1
            assert (await client.delete_image(added)).deleted == 1
            await client.delete_snapshot("async")
            assert (await client.list_snapshots()).snapshots == []
            assert (await client.list_models()).serving == "sha256:mean-colour"
            job = await client.compact_index()
            assert job.kind == "compact"

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


@pytest.mark.parametrize("name", ["../index", "..", "", "a/b", "a?b", "a%2e", "é"])
def test_a_name_cannot_lead_elsewhere(name: str) -> None:
    with Client("http://x") as client:
        for ask, words in (
            (client.get_job, "not the id of a job"),
            (client.cancel_job, "not the id of a job"),
            (client.restore_snapshot, "not the name of a snapshot"),
            (client.delete_snapshot, "not the name of a snapshot"),
            (client.embed_with_model, "not the digest of a model"),
            (client.model_difference, "not the digest of a model"),
            (client.switch_model, "not the digest of a model"),
        ):
            with pytest.raises(ValueError, match=words):
                ask(name)
