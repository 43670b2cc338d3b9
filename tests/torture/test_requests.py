"""Requests generated from the OpenAPI document, absurd numbers, path traversal, large bodies."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error

from search_api.api.access import OPEN_PATHS, READ_ONLY_POSTS
from tests.torture.conftest import READ, WRITE, Counts, Service

Note = Callable[[str, str], None]


def test_requests_made_from_the_document(
    service: Service, counts: Counts, note: Note, red: bytes
) -> None:
    """Good and bad requests for every operation: no 5xx, and no response outside the schema."""
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    checks = schemathesis.checks.CHECKS.get_by_names(
        [
            "not_a_server_error",
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
        ]
    )
    assert not_a_server_error in checks
    statuses: Counter[int] = Counter()
    sent: Counter[str] = Counter()
    round_ = 0
    while sum(statuses.values()) < counts.cases:
        share = max(2, min(100, (counts.cases - sum(statuses.values())) // (2 * len(operations))))
        for operation in operations:
            for mode in schemathesis.GenerationMode:
                cases = operation.as_strategy(generation_mode=mode)

                @seed(round_)
                @settings(
                    max_examples=share,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=cases)
                def check(case: Any) -> None:
                    response = case.call_and_validate(checks=checks)
                    statuses[response.status_code] += 1
                    sent[case.operation.label] += 1

                # Some operations accept anything, so there is no bad request to generate.
                with contextlib.suppress(Unsatisfiable):
                    check()
        round_ += 1
    assert len(sent) == len(operations)
    summary = ", ".join(f"{status}: {n:,}" for status, n in sorted(statuses.items()))
    total = sum(statuses.values())
    note("schemathesis", f"{total:,} cases, {len(sent)} operations: {summary}")
    assert not [status for status in statuses if status >= 500]
    service.healthy(red)


@pytest.mark.parametrize("limit", [0, -1, 100_000, 2_000_000_000, 2**63, 10**40])
def test_absurd_limits(service: Service, red: bytes, limit: int) -> None:
    with service.client() as client:
        files = {"image": ("q", red)}
        for name in ("limit", "offset"):
            if (name, limit) == ("offset", 0):
                continue
            response = client.post("/v1/search", files=files, params={name: limit})
            assert response.status_code == 422, response.text
            assert str(limit) in response.json()["detail"]
            like = client.post("/v1/recommend", json={"positive": [1], name: limit})
            assert like.status_code == 422, like.text
            assert client.get("/v1/images/1/similar", params={name: limit}).status_code == 422
        assert client.get("/v1/images", params={"limit": limit}).status_code == 422
    service.healthy(red)


def test_bodies_over_the_limit(service: Service, note: Note, red: bytes) -> None:
    service.reset_peak()
    before = service.memory()
    headers = {"content-type": "multipart/form-data; boundary=x"}
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="q"\r\n\r\n'

    def chunks() -> Iterator[bytes]:
        yield head
        for _ in range(80):
            yield bytes(2**20)

    with service.client() as client:
        by_length = client.post("/v1/search", content=bytes(80 * 2**20), headers=headers)
        assert by_length.status_code == 413
        chunked = client.post("/v1/search", content=chunks(), headers=headers)
        assert "content-length" not in chunked.request.headers
        assert chunked.status_code == 413
        json = client.post(
            "/v1/recommend", content=bytes(2**21), headers={"content-type": "application/json"}
        )
        assert json.status_code == 413
    growth = service.memory("VmHWM") - before
    note("bodies over the limit", f"413 by length, chunked, JSON; memory {growth / 2**20:+.1f} MB")
    assert growth < 150 * 2**20
    service.healthy(red)


def test_paths_that_lead_out(
    service: Service, counts: Counts, note: Note, red: bytes, pictures: Path
) -> None:
    """Whatever is sent as an id or a file name, no byte of another file is returned."""
    (pictures.parent / "secret.txt").write_text("TOP-SECRET")
    rng = random.Random(0)
    steps = ["..", "%2e%2e", "%2e.", "..%2f", "..%5c", "%252e%252e", ".", "", "%00", "..;", "~"]
    ends = [
        "etc/passwd",
        "secret.txt",
        "app.py",
        "pyproject.toml",
        "catalogue.sqlite",
        "proc/1/mem",
    ]
    roots = ["/v1/images/{}", "/v1/images/{}/file", "/v1/images/{}/similar", "/v1/jobs/{}"]
    roots += ["/static/{}", "/static-offline-docs/{}", "/{}"]
    statuses: Counter[int] = Counter()
    for _ in range(counts.traversals):
        path = "/".join([*rng.choices(steps, k=rng.randint(1, 8)), rng.choice(ends)])
        if rng.random() < 0.3:
            path = quote(path, safe="")
        target = rng.choice(roots).format(path)
        status, body = raw_get(service, target)
        statuses[status] += 1
        assert status in (400, 404, 405, 422), (target, status)
        assert b"TOP-SECRET" not in body and b"root:" not in body and b"SQLite" not in body
        assert str(pictures.parent).encode() not in body
    note("path traversals", f"{counts.traversals} paths: {dict(sorted(statuses.items()))}")
    service.healthy(red)


def raw_get(service: Service, target: str) -> tuple[int, bytes]:
    """GET of a target exactly as given; clients would normalise the path."""
    with socket.create_connection(service.address, timeout=30) as connection:
        request = f"GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        connection.sendall(request.encode())
        answer = b""
        while data := connection.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def test_links_that_lead_out(tmp_path: Path, counts: Counts, red: bytes, note: Note) -> None:
    """Links out of the corpus, half of them created before the build and half after it."""
    root, outside = tmp_path / "corpus", tmp_path / "outside"
    (root / "a").mkdir(parents=True)
    outside.mkdir()
    half = counts.links // 2
    for number in range(half + 1):
        (root / "a" / f"{number:04}.png").write_bytes(red)
    (outside / "secret.png").write_bytes(red)

    def lead_out(link: Path, number: int) -> None:
        link.unlink(missing_ok=True)
        up = Path("..", "..", "outside")
        link.symlink_to(
            [
                outside / "secret.png",
                up / "secret.png",
                "/dev/zero",
                outside,
                link.name,  # to itself
                root / "a" / ".." / ".." / "outside" / "secret.png",
                "/proc/self/environ",
                "nowhere",
            ][number % 8]
        )

    for number in range(half):
        lead_out(root / "a" / f"link-{number}.png", number)
    (root / "b").symlink_to(outside)
    service = Service(
        {"LOOKALIKE_DATA": str(root), "LOOKALIKE_VAR": str(tmp_path / "var")}, tmp_path / "log"
    )
    try:
        with service.client() as client:
            points = client.get("/v1/images", params={"limit": 1000}).json()["points"]
            sources = [point["payload"]["source"] for point in points]
            assert sources == [f"a/{number:04}.png" for number in range(half + 1)]
            for number in range(half):
                lead_out(root / sources[number], number)
                gone = client.get(points[number]["image_url"])
                assert gone.status_code == 404, (number, gone.text)
                assert str(tmp_path) not in gone.text
            assert client.get(points[half]["image_url"]).status_code == 200
    finally:
        service.kill()
    note("links out of the corpus", f"{half} before, {half} after the build: none followed")


def test_no_key_on_every_route(env: dict[str, str], tmp_path: Path, note: Note) -> None:
    keys = {"LOOKALIKE_READ_KEYS": READ, "LOOKALIKE_WRITE_KEYS": WRITE}
    service = Service({**env, **keys}, tmp_path / "log")
    refused: Counter[int] = Counter()
    try:
        with service.client() as client:
            for path, methods in client.get("/openapi.json").json()["paths"].items():
                filled = re.sub(r"\{\w+\}", "1", path)
                if path in OPEN_PATHS:
                    continue
                for method in methods:
                    status = client.request(method, filled).status_code
                    assert status == 401, (method, path)
                    refused[status] += 1
                    if method != "get" and path not in READ_ONLY_POSTS:
                        headers = {"api-key": READ}
                        status = client.request(method, filled, headers=headers).status_code
                        assert status == 403, (method, path)
                        refused[status] += 1
            allowed = client.post("/v1/index/rebuild", headers={"Authorization": f"Bearer {WRITE}"})
            assert allowed.status_code == 202
    finally:
        service.kill()
    assert not [key for key in (READ, WRITE) if key in (tmp_path / "log").read_text()]
    note("no key, or one for reading", f"{dict(refused)}; keys in the log: none")


def test_two_rebuilds_at_once(service: Service, note: Note, red: bytes) -> None:
    with service.client() as client:
        first = client.post("/v1/index/rebuild", params={"reembed": True})
        others = [client.post("/v1/index/rebuild") for _ in range(5)]
        assert first.status_code == 202
        statuses = Counter(response.status_code for response in others)
        assert set(statuses) <= {202, 409}
        conflicts = [response.json() for response in others if response.status_code == 409]
        assert all(conflict["job"] for conflict in conflicts)
        assert others[0].status_code == 409
        while client.get(first.headers["location"]).json()["finished"] is None:
            assert client.post("/v1/search", files={"image": ("q", red)}).status_code == 200
        assert client.get(first.headers["location"]).json()["state"] == "succeeded"
    note("six rebuilds at once", f"202: 1, then {dict(statuses)}; searches answered meanwhile")


def test_requests_that_are_not_http(service: Service, red: bytes) -> None:
    rng = random.Random(0)
    post = b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\n"
    for line in (
        b"\0" * 100,
        b"A" * 100_000,
        rng.randbytes(5000),
        post + b"content-length: -1",
        post + b"content-length: 1\r\ncontent-length: 2",
        post + b"transfer-encoding: gzip, chunked",
    ):
        with socket.create_connection(service.address, timeout=30) as connection:
            connection.sendall(line + b"\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100).startswith((b"HTTP/1.1 4", b"HTTP/1.1 501"))
    with service.client() as client:
        assert client.request("PROPFIND", "/v1/search").status_code == 405
        unknown = client.request("BREW", "/v1/search")
        assert unknown.status_code == 400
        assert unknown.headers["content-type"] == "application/problem+json"
    service.healthy(red)


HEAD = b"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
GET = b"GET /v1/nothing HTTP/1.1\r\nhost: localhost\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
INNER = b"GET /v1/smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"
"""Follows every request below, as what a front proxy took for part of it."""
EMPTY = b"\r\n0\r\n\r\n"
TWO = b"\r\n{}"
AMBIGUOUS = {
    # Two lengths, or a coding that a proxy may not recognise or may apply.
    "length and chunked": HEAD + CHUNKED + b"content-length: 5\r\n" + EMPTY,
    "chunked and length": HEAD + b"content-length: 5\r\n" + CHUNKED + EMPTY,
    "xchunked": HEAD + b"transfer-encoding: xchunked\r\ncontent-length: 5\r\n" + EMPTY,
    "xchunked alone": HEAD + b"transfer-encoding: xchunked\r\n" + EMPTY,
    "space before the colon": HEAD
    + b"transfer-encoding : chunked\r\ncontent-length: 5\r\n"
    + EMPTY,
    "folded coding": HEAD + b"transfer-encoding:\r\n chunked\r\ncontent-length: 5\r\n" + EMPTY,
    "vertical tab": HEAD + b"transfer-encoding: \x0bchunked\r\ncontent-length: 5\r\n" + EMPTY,
    "chunked, then identity": HEAD + CHUNKED + b"transfer-encoding: identity\r\n" + EMPTY,
    "chunked, identity": HEAD + b"transfer-encoding: chunked, identity\r\n" + EMPTY,
    "chunked twice": HEAD + b"transfer-encoding: chunked, chunked\r\n" + EMPTY,
    "gzip, chunked": HEAD + b"transfer-encoding: gzip, chunked\r\n" + EMPTY,
    "chunked in HTTP/1.0": HEAD.replace(b"1.1", b"1.0") + CHUNKED + EMPTY,
    "two lengths": HEAD + b"content-length: 2\r\ncontent-length: 0\r\n" + TWO,
    "the same length twice": HEAD + b"content-length: 2\r\ncontent-length: 2\r\n" + TWO,
    "list of lengths": HEAD + b"content-length: 2, 2\r\n" + TWO,
    "length +2": HEAD + b"content-length: +2\r\n" + TWO,
    "length -2": HEAD + b"content-length: -2\r\n" + TWO,
    "length 0x2": HEAD + b"content-length: 0x2\r\n" + TWO,
    "length 2 0": HEAD + b"content-length: 2 0\r\n" + TWO,
    "no length": HEAD + b"content-length: \r\n" + TWO,
    "length over 64 bits": HEAD + b"content-length: 18446744073709551618\r\n" + TWO,
    "folded length": HEAD + b"content-length:\r\n 2\r\n" + TWO,
    "length with a space": HEAD + b"content-length : 2\r\n" + TWO,
    # Chunks.
    "extension with a line feed": HEAD + CHUNKED + b"\r\n2;\nxx\r\n{}\r\n0\r\n\r\n",
    "chunk size 2x": HEAD + CHUNKED + b"\r\n2x\r\n{}\r\n0\r\n\r\n",
    "chunk size 0x2": HEAD + CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "chunk size -2": HEAD + CHUNKED + b"\r\n-2\r\n{}\r\n0\r\n\r\n",
    "chunk size over 64 bits": HEAD + CHUNKED + b"\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "chunk size with a space": HEAD + CHUNKED + b"\r\n2 \r\n{}\r\n0\r\n\r\n",
    "chunks with bare line feeds": HEAD + CHUNKED + b"\r\n2\n{}\n0\n\n",
    "chunk without its end": HEAD + CHUNKED + b"\r\n2\r\n{}0\r\n\r\n",
    "trailer with a length": HEAD + CHUNKED + b"\r\n0\r\nhost: x\r\ncontent-length: 10\r\n\r\n",
    # Lines.
    "bare line feeds": (HEAD + b"content-length: 2\r\n").replace(b"\r\n", b"\n") + b"\n{}",
    "bare carriage return": HEAD + b"x: y\rcontent-length: 40\r\ncontent-length: 2\r\n" + TWO,
    "NUL in a value": HEAD + b"x: a\0b\r\ncontent-length: 2\r\n" + TWO,
    "NUL in a name": HEAD + b"x\0: b\r\ncontent-length: 2\r\n" + TWO,
    "no colon": HEAD + b"content-length 5\r\ncontent-length: 2\r\n" + TWO,
    "space before the first header": HEAD.replace(b"host", b" host") + b"\r\n",
    # Targets, versions, methods.
    "another host in the target": GET.replace(b"/v1", b"http://evil.example/v1") + b"\r\n",
    "another host in the header": GET.replace(b"/v1", b"http://localhost/v1").replace(
        b"host: localhost", b"host: evil.example"
    )
    + b"\r\n",
    "user in the target": GET.replace(b"/v1", b"http://localhost@evil.example/v1") + b"\r\n",
    "authority as the target": GET.replace(b"/v1/nothing", b"evil.example:80") + b"\r\n",
    "CONNECT": GET.replace(b"GET /v1/nothing", b"CONNECT evil.example:80") + b"\r\n",
    "two hosts": GET + b"host: evil.example\r\n\r\n",
    "HTTP/0.9": b"GET /v1/nothing\r\n\r\n",
    "HTTP/1.2": GET.replace(b"1.1", b"1.2") + b"\r\n",
    "HTTP/2.0": GET.replace(b"1.1", b"2.0") + b"\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown method": GET.replace(b"GET", b"BREW") + b"\r\n",
}
ONE_ANSWER = {
    "upgrade to h2c": (404, GET + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"),
    "upgrade to a web socket": (
        404,
        GET + b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    ),
    "close": (404, GET + b"connection: close\r\n\r\n"),
    "GET with a body": (404, GET + b"content-length: %d\r\n\r\n" % len(INNER)),
    "404 with its body unread": (
        404,
        HEAD.replace(b"recommend", b"nothing") + b"content-length: %d\r\n\r\n" % len(INNER),
    ),
    "413 with its body unread": (413, HEAD + b"content-length: 99999999\r\n\r\n"),
    "HTTP/1.0 without a host": (421, b"GET /v1/nothing HTTP/1.0\r\n\r\n"),
}


def exchange(service: Service, parts: list[bytes], wait: float = 30) -> list[int]:
    """The statuses of all answers until the server closes or is silent for ``wait`` seconds."""
    answer = b""
    with socket.create_connection(service.address, timeout=wait) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError, TimeoutError):
            for part in parts:
                connection.sendall(part)
            while data := connection.recv(65536):
                answer += data
    assert b"smuggled" not in answer
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def test_requests_that_a_proxy_may_read_otherwise(
    service: Service, counts: Counts, note: Note, red: bytes
) -> None:
    """One answer, a refusal, and the end of the connection: never the answer to what follows."""
    rng = random.Random(0)
    for name, request in AMBIGUOUS.items():
        whole = request + INNER
        for _ in range(counts.splits):
            at = rng.randint(1, len(whole) - 1)
            # An invalid version or method is refused before the rest arrives.
            assert exchange(service, [whole[:at], whole[at:]]) == [400], (name, at)
    for name, (status, request) in ONE_ANSWER.items():
        assert exchange(service, [request + INNER], 1.0) == [status], name
    total = len(AMBIGUOUS) * counts.splits + len(ONE_ANSWER)
    note("requests that proxies may read otherwise", f"{total}: one answer each, none smuggled")
    service.healthy(red)


def test_long_values_everywhere(service: Service, note: Note, red: bytes) -> None:
    """10 kB in every parameter and field: the answer repeats no more than its start."""
    long = "x" * 10_000
    longest = 0
    with service.client() as client:
        for path, methods in client.get("/openapi.json").json()["paths"].items():
            for method, operation in methods.items():
                for filled, params, body in with_long_values(path, operation, long):
                    answer = client.request(method, filled, params=params, **body)
                    assert answer.status_code < 500, (method, path, answer.text[:300])
                    assert "x" * 201 not in answer.text, (method, path, params, body)
                    if answer.status_code >= 400:
                        assert len(answer.content) < 6000, (method, path, params, body)
                        longest = max(longest, len(answer.content))
        unknown = client.get(f"/{long}", headers={"x-request-id": long})
        assert len(unknown.content) < 2000
    note("10 kB in every parameter", f"longest error {longest:,} bytes")
    service.healthy(red)


def with_long_values(
    path: str, operation: dict[str, Any], long: str
) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """(path, query, body) with one long value each."""
    plain = re.sub(r"\{\w+\}", "1", path)
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            yield re.sub(r"\{\w+\}", long, path), {}, {}
        else:
            yield plain, {parameter["name"]: long}, {}
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        for value in (long, {long: long}, {"positive": [long] * 50}, {"name": long}, [long] * 9):
            yield plain, {}, {"json": value}
        condition = {"key": long, "match": {"value": long}}
        for where in ({"must": [condition]}, {long: []}, {"must": [{"key": "a", long: 1}]}):
            yield plain, {}, {"json": {"positive": [1], "filter": where, "strategy": long}}
        payload = {"payload": {"label": [long]}}
        yield plain, {}, {"json": payload}
    if "multipart/form-data" in content:
        for name in ("image", "images", "positive_images"):
            files = {name: (long[:3000], b"rubbish")}
            yield plain, {}, {"files": files}
            for field in ("key", "payload", "positive", "strategy"):
                yield plain, {}, {"files": files, "data": {field: long}}
