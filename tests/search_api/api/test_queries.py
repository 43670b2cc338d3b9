"""A full queue, clients that disconnect, failures in a batch: what each request gets."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from fastapi.testclient import TestClient

from search_api.api.app import create_app
from search_api.service.engine import SearchEngine
from search_api.service.results import SearchResult
from search_api.service.search import PictureQuery
from search_api.settings import Limits
from tests.search_api.conftest import colour, png
from tests.search_api.helpers import assert_problem, until

RED, GREEN = png(colour("red", 1)), png(colour("green", 1))


class Held:
    """The engine's search, held until released; fails on a batch with the ``bad`` picture."""

    def __init__(self, engine: SearchEngine) -> None:
        self.search = engine.search_batch
        self.batches: list[int] = []
        self.bad: bytes | None = None
        self.entered = threading.Semaphore(0)
        self.released = threading.Event()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.released.set()

    def __call__(self, queries: Sequence[PictureQuery]) -> list[SearchResult]:
        self.batches.append(len(queries))
        self.entered.release()
        assert self.released.wait(30)
        if any(query.picture.tobytes() == self.bad for query in queries):
            raise ZeroDivisionError
        return self.search(queries)


@pytest.fixture
def held(engine: SearchEngine, monkeypatch: pytest.MonkeyPatch) -> Held:
    held = Held(engine)
    monkeypatch.setattr(engine, "search_batch", held)
    return held


@pytest.fixture
def client(engine: SearchEngine, held: Held) -> Iterator[TestClient]:
    with TestClient(
        create_app(engine, Limits(max_waiting=2)), raise_server_exceptions=False
    ) as client:
        yield client


def post(client: TestClient, data: bytes) -> Any:
    return client.post("/v1/search", files={"image": ("q.png", data)})


def waiting(client: TestClient) -> int:
    found: int = client.app.state.context.batcher.waiting  # type: ignore[attr-defined]
    return found


def test_a_full_queue_is_refused_at_once(client: TestClient, held: Held) -> None:
    with ThreadPoolExecutor(3) as pool, held:
        sent = [pool.submit(post, client, RED)]
        assert held.entered.acquire(timeout=30)
        sent += [pool.submit(post, client, RED) for _ in range(2)]
        until(lambda: waiting(client) == 2)
        metrics = client.get("/metrics").text.splitlines()
        assert "lookalike_queue_depth 2.0" in metrics
        several = {"images": ("q.png", RED)}
        for refused in (
            post(client, RED),
            client.post("/v1/search/batch", files=several),
            client.post("/v1/classify", files=several),
        ):
            problem = assert_problem(refused, 429, "2 pictures are waiting, the limit is 2")
            assert problem["type"] == "urn:lookalike:problem:queue-full"
            assert refused.headers["retry-after"] == "1"
        assert "lookalike_queue_refused_total 3.0" in client.get("/metrics").text.splitlines()
        held.released.set()
        assert [future.result().status_code for future in sent] == [200, 200, 200]
    assert held.batches == [1, 2]


def test_a_failure_does_not_affect_the_rest_of_the_batch(client: TestClient, held: Held) -> None:
    held.bad = client.app.state.context.engine.read(GREEN).tobytes()  # type: ignore[attr-defined]
    with ThreadPoolExecutor(3) as pool, held:
        first = pool.submit(post, client, RED)
        assert held.entered.acquire(timeout=30)
        good, bad = pool.submit(post, client, RED), pool.submit(post, client, GREEN)
        until(lambda: waiting(client) == 2)
        held.released.set()
        assert [first.result().status_code, good.result().status_code] == [200, 200]
        assert_problem(bad.result(), 500, "log")
    assert held.batches[:2] == [1, 2]


@pytest.mark.parametrize("query", [b"", b"offset=1"])
def test_pictures_of_disconnected_clients_are_dropped(
    engine: SearchEngine, held: Held, query: bytes
) -> None:
    """On the fast path and on the route: their pictures are never embedded."""
    app = create_app(engine)
    statuses: list[int] = []

    async def search(gone: anyio.Event | None) -> None:
        body = [{"type": "http.request", "body": RED, "more_body": False}]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/search",
            "query_string": query,
            "headers": [
                (b"content-type", b"image/png"),
                (b"content-length", b"%d" % len(RED)),
                (b"host", b"localhost"),
            ],
            "client": ("127.0.0.1", 1),
        }

        async def receive() -> dict[str, Any]:
            if body:
                return body.pop()
            await (gone.wait() if gone else anyio.sleep_forever())
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            else:
                json.loads(message["body"])

        await app(scope, receive, send)

    async def all_three() -> None:
        batcher, gone = app.state.context.batcher, anyio.Event()
        stays = asyncio.create_task(search(None))
        assert await asyncio.to_thread(held.entered.acquire, timeout=30)
        leaves, last = asyncio.create_task(search(gone)), asyncio.create_task(search(None))
        while batcher.waiting < 2:
            await asyncio.sleep(0.01)
        gone.set()
        await leaves
        held.released.set()
        await asyncio.gather(stays, last)

    asyncio.run(asyncio.wait_for(all_three(), 30))
    app.state.context.batcher.close()
    assert statuses[-2:] == [200, 200]
    assert 200 not in statuses[:-2]
    assert sum(held.batches) == 2
