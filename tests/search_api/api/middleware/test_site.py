"""Which hosts are answered, and which sites' pages may use a server without keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from search_api.api.app import create_app
from search_api.keys import Access, Keys
from search_api.service.engine import SearchEngine
from tests.search_api.api.middleware.conftest import call, post_scope
from tests.search_api.conftest import png
from tests.search_api.helpers import assert_problem

KEYS = Keys.of(["reader-0123456789"], ["writer-0123456789"])
WRITER = {"api-key": "writer-0123456789"}
VALUES = {"image_id": "1", "job_id": "x", "name": "monday", "digest": "sha256:0"}


def targets(app: FastAPI) -> Iterator[tuple[str, str]]:
    """(method, path) of every route of the app, with ids filled in, and of what does not exist."""
    for route in iter_route_contexts(app.routes):
        path = str(route.path)
        for name, value in VALUES.items():
            path = path.replace(f"{{{name}}}", value)
        assert "{" not in path, f"{path}: give this test a value for its parameter"
        for method in route.methods or ("GET",):
            yield method, path if route.methods else f"{path}/app.js"
    yield "GET", "/v1/nothing"
    yield "POST", "/livez"


def test_no_route_answers_to_another_host(client: TestClient) -> None:
    """As if evil.example had been made to resolve to 127.0.0.1."""
    found = list(targets(client.app))
    assert {("GET", "/metrics"), ("GET", "/static/app.js"), ("GET", "/")} <= set(found)
    for method, path in found:
        for where in (path, f"{path}/"):
            answer = client.request(method, where, headers={"host": "evil.example"})
            assert answer.status_code == 421, (method, where)
            assert "location" not in answer.headers
    problem = client.get("/v1/images/1", headers={"host": "evil.example:8000"})
    assert_problem(problem, 421, "evil.example:8000", "--allowed-host", "LOOKALIKE_ALLOWED_HOSTS")
    files = {"image": ("q.png", png((1, 2, 3)))}
    fast = client.post("/v1/search", files=files, headers={"host": "evil.example"})
    assert_problem(fast, 421)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:8000", "localhost.", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:80"],
)
def test_loopback_hosts_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/v1/index", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost.evil.example",
        "evil.example:localhost",
        "localhost:8000@evil.example",
        "user@localhost",
        "localhost:80:80",
        "localhost/",
        "localhost, evil.example",
        "127.0.0.1.evil.example",
        "127.1",
        "2130706433",
        "0.0.0.0",
        "[::]",
        "[::1",
        "::1",
        "l\u00f6calhost",
        "localhost\u00a0",
        "x" * 5000,
    ],
)
def test_what_merely_looks_like_loopback_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/v1/index", headers={"host": host.encode("latin-1")})
    assert_problem(answer, 421)
    assert len(answer.content) < 2000


@pytest.mark.parametrize("hosts", [[], ["localhost", "evil.example"], ["localhost", "localhost"]])
def test_no_host_and_two_hosts(engine: SearchEngine, hosts: list[str]) -> None:
    scope = post_scope("/v1/search")
    scope["headers"] = [(b"host", host.encode()) for host in hosts]
    start, _ = call(create_app(engine), scope, [])
    assert start["status"] == (400 if hosts else 421)


def arrived(engine: SearchEngine, server: str, host: str) -> int:
    scope = post_scope("/v1/none")
    scope |= {"server": (server, 80), "headers": [(b"host", host.encode())]}
    status: int = call(create_app(engine), scope, [])[0]["status"]
    return status


def test_the_address_that_was_connected_to_is_answered(engine: SearchEngine) -> None:
    """So that probes of an orchestrator, and people on the network, need no further option."""
    assert arrived(engine, "10.1.2.3", "10.1.2.3:8000") == 404
    assert arrived(engine, "2001:db8::1", "[2001:db8::1]:8000") == 404
    assert arrived(engine, "::ffff:10.1.2.3", "10.1.2.3") == 404
    assert arrived(engine, "10.1.2.3", "10.1.2.4") == 421
    assert arrived(engine, "evil.example", "evil.example") == 421


def test_named_hosts(engine: SearchEngine) -> None:
    access = Access(hosts=("shop.example", "[2001:db8::1]"))
    with TestClient(create_app(engine, access=access)) as client:
        for host in ("shop.example", "SHOP.example:443", "[2001:db8::1]:80", "localhost"):
            assert client.get("/v1/index", headers={"host": host}).status_code == 200
        assert_problem(client.get("/v1/index", headers={"host": "a.shop.example"}), 421)


def test_with_keys_any_host_is_answered_unless_some_are_named(engine: SearchEngine) -> None:
    evil = {"host": "evil.example", **WRITER}
    client = TestClient(create_app(engine, access=Access(KEYS)))
    assert client.get("/v1/index", headers=evil).status_code == 200
    named = TestClient(create_app(engine, access=Access(KEYS, hosts=("shop.example",))))
    assert_problem(named.get("/v1/index", headers=evil), 421)
    shop = {"host": "shop.example", **WRITER}
    assert named.get("/v1/index", headers=shop).status_code == 200


def test_without_keys_pages_of_other_origins_change_nothing(client: TestClient) -> None:
    foreign = client.post("/v1/index/rebuild", headers={"origin": "https://evil.example"})
    assert_problem(foreign, 403, "evil.example", "LOOKALIKE_CORS_ORIGINS")
    own = client.post("/v1/index/rebuild", headers={"origin": "http://localhost"})
    assert own.status_code == 202


@pytest.mark.parametrize(
    "path", ["/v1/index", "/v1/images/1", "/metrics", "/livez", "/static/app.js"]
)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ],
)
def test_without_keys_pages_of_other_sites_read_nothing(
    client: TestClient, path: str, headers: dict[str, str]
) -> None:
    assert_problem(client.get(path, headers=headers), 403, "LOOKALIKE_CORS_ORIGINS")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost"},
        {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
    ],
)
def test_the_page_itself_and_typed_addresses_are_answered(
    client: TestClient, headers: dict[str, str]
) -> None:
    assert client.get("/v1/images/1", headers=headers).status_code == 200


def test_links_lead_to_the_pages_only(client: TestClient) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    for path in ("/", "/docs", "/redoc"):
        assert client.get(path, headers=link).status_code == 200
        assert_problem(client.get(path, headers={**link, "sec-fetch-mode": "cors"}), 403)
        assert_problem(client.get(path, headers={**link, "origin": "https://evil.example"}), 403)
    assert_problem(client.post("/", headers=link), 403)


def test_allowed_origins_may_read_and_write_without_keys(engine: SearchEngine) -> None:
    access = Access(origins=("https://shop.example",))
    headers = {"origin": "https://shop.example", "sec-fetch-site": "cross-site"}
    with TestClient(create_app(engine, access=access)) as client:
        read = client.get("/v1/index", headers=headers)
        assert read.status_code == 200
        assert read.headers["access-control-allow-origin"] == "https://shop.example"
        assert client.post("/v1/index/rebuild", headers=headers).status_code == 202
        evil = {**headers, "origin": "https://evil.example"}
        assert_problem(client.get("/v1/index", headers=evil), 403)
