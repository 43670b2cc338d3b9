"""Compressed bodies: undone within the limits, damaged and unknown ones named."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import zlib
from typing import Any

import pytest
from fastapi.testclient import TestClient

from search_api.api.app import create_app
from search_api.api.intake.content_coding import decoded
from search_api.service.engine import SearchEngine
from search_api.settings import Limits
from tests.search_api.conftest import colour, png
from tests.search_api.helpers import assert_problem

RED = png(colour("red", 3))


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


CODINGS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}


def read(data: bytes, coding: str, size: int = 7) -> list[bytes]:
    """The parts of a body that arrives in pieces of ``size`` bytes."""
    pieces = [data[i : i + size] for i in range(0, len(data), size)] or [b""]
    messages = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
        for number, piece in enumerate(pieces)
    ]

    async def run() -> list[bytes]:
        async def receive() -> Any:
            return messages.pop(0)

        scope = {
            "headers": [(b"content-encoding", b"gzip"), (b"content-length", b"1"), (b"a", b"b")]
        }
        inflated = decoded(scope, receive, coding)
        assert scope["headers"] == [(b"a", b"b")]
        parts = []
        while True:
            message = await inflated()
            parts.append(message["body"])
            if not message["more_body"]:
                return parts

    return asyncio.run(run())


@pytest.mark.parametrize("size", [1, 1000, 10**6])
def test_bodies_in_pieces(size: int) -> None:
    data = os.urandom(5000) + bytes(500_000) + b"end"
    for coding, compress in CODINGS.items():
        parts = read(compress(data), coding, size)
        assert b"".join(parts) == data
        assert max(map(len, parts)) <= 65536
    assert b"".join(read(raw_deflate(data), "deflate", size)) == data
    assert (
        b"".join(read(gzip.compress(data) + gzip.compress(b"more"), "gzip", size)) == data + b"more"
    )


@pytest.mark.parametrize("coding", CODINGS)
def test_every_kind_of_body(client: TestClient, coding: str) -> None:
    compress = CODINGS[coding]
    form = client.build_request("POST", "/v1/search?limit=3", files={"image": ("q.png", RED)})
    expected = client.post("/v1/search?limit=3", files={"image": ("q.png", RED)}).json()
    kind = form.headers["content-type"]
    for body, called in (
        (form.read(), kind),
        (RED, "image/png"),
        (RED, "application/octet-stream"),
    ):
        headers = {"content-type": called, "content-encoding": coding}
        found = client.post("/v1/search?limit=3", content=compress(body), headers=headers)
        assert found.status_code == 200, found.text
        assert {**found.json(), "time": 0} == {**expected, "time": 0}
    headers = {"content-type": "application/json", "content-encoding": coding.upper()}
    body = compress(json.dumps({"positive": [1], "limit": 2}).encode())
    found = client.post("/v1/recommend", content=body, headers=headers)
    assert len(found.json()["points"]) == 2


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "aes128gcm"])
def test_other_encodings(client: TestClient, coding: str) -> None:
    headers = {"content-type": "image/png", "content-encoding": coding}
    response = client.post("/v1/search", content=RED, headers=headers)
    problem = assert_problem(response, 415, coding, "gzip, deflate")
    assert problem["type"] == "urn:lookalike:problem:unsupported-encoding"
    assert response.headers["accept-encoding"] == "gzip, deflate"


def test_two_headers(client: TestClient) -> None:
    headers = [("content-type", "image/png"), *[("content-encoding", "gzip")] * 2]
    body = gzip.compress(gzip.compress(RED))
    response = client.post("/v1/search", content=body, headers=headers)
    assert_problem(response, 415, "gzip, gzip")


def test_no_encoding(client: TestClient) -> None:
    headers = {"content-type": "image/png", "content-encoding": "identity"}
    assert client.post("/v1/search", content=RED, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (RED, "gzip"),
        (gzip.compress(RED)[:-9], "ends too early"),
        (gzip.compress(RED) + b"x", "gzip"),
        (gzip.compress(RED)[:-6] + bytes(6), "gzip"),
    ],
    ids=["no gzip", "cut", "more", "checksum"],  # the bytes hold the time
)
def test_damaged_bodies(client: TestClient, body: bytes, why: str) -> None:
    headers = {"content-type": "image/png", "content-encoding": "gzip"}
    response = client.post("/v1/search", content=body, headers=headers)
    problem = assert_problem(response, 400, "not valid gzip", why)
    assert problem["type"] == "urn:lookalike:problem:bad-request"
    assert client.post("/v1/search", files={"image": ("q.png", RED)}).status_code == 200


def test_bombs(engine: SearchEngine) -> None:
    """What a body becomes counts, against the limit of its path and the budget of all."""
    limits = Limits(max_json_bytes=100_000, max_bytes_in_flight=10 * 2**20)
    client = TestClient(create_app(engine, limits))
    bomb = gzip.compress(bytes(50 * 2**20))
    assert len(bomb) < 60_000
    for kind, most in (("application/json", "100,000"), ("image/png", "10,485,760")):
        headers = {"content-type": kind, "content-encoding": "gzip"}
        path = "/v1/recommend" if kind.endswith("json") else "/v1/search"
        assert_problem(client.post(path, content=bomb, headers=headers), 413, f"more than {most}")
    nested = gzip.compress(bomb)
    headers = {"content-type": "image/png", "content-encoding": "gzip"}
    assert client.post("/v1/search", content=nested, headers=headers).status_code == 415
    metrics = client.get("/metrics").text
    assert "lookalike_request_bytes 0.0" in metrics
