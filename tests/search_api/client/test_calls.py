"""What the clients send, when they send it again, and how they read the response."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from search_api import schemas
from search_api.api import openapi_examples as examples
from search_api.client import AsyncClient, Client, ProblemError, Retry
from search_api.client.calls import PageOptions
from tests.search_api.client.helpers import transport
from tests.search_api.conftest import colour, png

RED = png(colour("red", 1))


def test_page_options_are_the_page_parameters_and_a_filter() -> None:
    assert set(PageOptions.__annotations__) == {*schemas.PageParams.model_fields, "filter"}


def test_a_difference_is_typed() -> None:
    urls: list[httpx2.URL] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        urls.append(request.url)
        return httpx2.Response(200, json=examples.SCHEMAS["ModelDifference"])

    with Client("http://x", transport=transport(handle)) as client:
        difference = client.model_difference("sha256:8c4e", queries=7, k=3)
    assert difference.overlap == 0.81
    assert urls[0].path == "/v1/models/sha256:8c4e/diff"
    assert dict(urls[0].params) == {"queries": "7", "k": "3"}


def test_a_newer_server_may_send_more() -> None:
    answer = transport(lambda _: httpx2.Response(200, json={"status": "ok", "new": 1}))
    with Client("http://x", transport=answer) as client:
        assert client.livez().status == "ok"


@pytest.mark.parametrize(
    ("status", "after", "sent"),
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
def test_only_rejected_requests_are_sent_again(status: int, after: str | None, sent: int) -> None:
    requests: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        headers = {} if after is None else {"Retry-After": after}
        return httpx2.Response(status, json={"detail": "no"}, headers=headers)

    def check(caught: ProblemError) -> None:
        assert caught.status == status
        assert len(requests) == sent
        # The whole body each time; only the multipart boundary differs.
        assert all(RED in request.read() for request in requests)
        requests.clear()

    with (
        Client("http://x", retry=Retry(times=2), transport=transport(handle)) as client,
        pytest.raises(ProblemError) as caught,
    ):
        client.search(RED)
    check(caught.value)

    async def use() -> None:
        retry = Retry(times=2)
        async with AsyncClient("http://x", retry=retry, transport=transport(handle)) as client:
            with pytest.raises(ProblemError) as caught:
                await client.classify([RED])
            check(caught.value)

    asyncio.run(use())


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
def test_a_name_cannot_lead_to_another_route(name: str) -> None:
    with Client("http://x") as client:
        for method, words in (
            (client.get_job, "not the id of a job"),
            (client.cancel_job, "not the id of a job"),
            (client.restore_snapshot, "not the name of a snapshot"),
            (client.delete_snapshot, "not the name of a snapshot"),
            (client.embed_with_model, "not the digest of a model"),
            (client.model_difference, "not the digest of a model"),
            (client.switch_model, "not the digest of a model"),
        ):
            with pytest.raises(ValueError, match=words):
                method(name)
