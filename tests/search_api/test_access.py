"""Keys: what they open, how they are sent, and that no route that writes is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from search_api.access import (
    OPEN_PATHS,
    READ_ONLY_POSTS,
    Access,
    KeyFormatError,
    Keys,
    Level,
    is_loopback,
    key_of,
    needed,
    read_keys,
)
from search_api.app import create_app
from search_api.engine import SearchEngine
from tests.search_api.conftest import png
from tests.search_api.test_bad_input import assert_problem

READ, WRITE = "reader-0123456789", "writer-0123456789"
KEYS = Keys.of([READ], [WRITE])
VALUES = {"image_id": "1", "job_id": "x", "name": "monday", "digest": "sha256:0"}
"""For the parameters in paths."""


@pytest.fixture
def guarded(engine: SearchEngine) -> Iterator[TestClient]:
    with TestClient(create_app(engine, access=Access(KEYS))) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def operations(app: FastAPI) -> list[tuple[str, str]]:
    """(method, path) of everything that the app routes, with ids filled in."""
    found = []
    for path, methods in app.openapi()["paths"].items():
        filled = path
        for name, value in VALUES.items():
            filled = filled.replace(f"{{{name}}}", value)
        assert "{" not in filled, f"{path}: give this test a value for its parameter"
        found += [(method.upper(), filled) for method in methods]
    return found


def test_levels() -> None:
    assert KEYS.level(READ) is Level.READ
    assert KEYS.level(WRITE) is Level.WRITE
    for wrong in ("", READ[:-1], READ + "0", READ.upper(), "ключ", "\x00"):
        assert KEYS.level(wrong) is Level.OPEN
    both = Keys.of([READ], [READ])
    assert both.level(READ) is Level.WRITE
    assert not Keys()
    assert READ not in repr(KEYS)


def test_all_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(b)
        return a == b

    monkeypatch.setattr("search_api.access.hmac.compare_digest", compare)
    keys = Keys.of([READ, "another-key-to-read"], [WRITE, "another-key-to-write"])
    assert keys.level(READ) is Level.READ
    assert set(compared) == keys.read | keys.write


@pytest.mark.parametrize(
    ("method", "path", "level"),
    [
        ("GET", "/", Level.OPEN),
        ("GET", "/livez", Level.OPEN),
        ("GET", "/static/app.js", Level.OPEN),
        ("GET", "/metrics", Level.READ),
        ("GET", "/v1/images/1/file", Level.READ),
        ("GET", "/static", Level.READ),
        ("GET", "//livez", Level.READ),
        ("POST", "/v1/search", Level.READ),
        ("POST", "/v1/search/", Level.WRITE),
        ("PUT", "/v1/search", Level.WRITE),
        ("POST", "/livez", Level.WRITE),
        ("POST", "/v1/index/rebuild", Level.WRITE),
        ("DELETE", "/v1/images/1", Level.WRITE),
        ("POST", "/v1/what/is/not/there/yet", Level.WRITE),
        ("BREW", "/v1/coffee", Level.WRITE),
    ],
)
def test_needed(method: str, path: str, level: Level) -> None:
    assert needed(method, path) is level


def test_every_operation_refuses_without_a_key(guarded: TestClient) -> None:
    asked = operations(guarded.app)
    assert ("POST", "/v1/index/rebuild") in asked
    for method, path in asked:
        if path in OPEN_PATHS:
            assert guarded.request(method, path).status_code == 200
            continue
        problem = guarded.request(method, path)
        assert_problem(problem, 401, "no API key", "Authorization: Bearer")
        assert problem.headers["www-authenticate"] == 'Bearer realm="lookalike"'
        unknown = guarded.request(method, path, headers=bearer("not-a-key-of-this-server"))
        assert_problem(unknown, 401, "not known")


def test_every_route_that_writes_needs_a_key_for_writing(guarded: TestClient) -> None:
    writing = [
        (method, path)
        for method, path in operations(guarded.app)
        if method != "GET" and path not in READ_ONLY_POSTS
    ]
    assert writing
    for method, path in writing:
        refused = guarded.request(method, path, headers=bearer(READ))
        assert_problem(refused, 403, method, path, "only read")


def test_read_only_posts_exist_and_only_read(guarded: TestClient) -> None:
    asked = operations(guarded.app)
    for path in READ_ONLY_POSTS:
        assert ("POST", path) in asked
        assert guarded.post(path, headers=bearer(READ)).status_code == 422


def test_both_headers_are_taken(guarded: TestClient) -> None:
    files = {"image": ("q.png", png((1, 2, 3)))}
    for key in (READ, WRITE):
        for headers in (bearer(key), {"api-key": key}, {"authorization": f"bEaReR {key}"}):
            assert guarded.post("/v1/search", files=files, headers=headers).status_code == 200
    started = guarded.post("/v1/index/rebuild", headers={"api-key": WRITE})
    assert started.status_code == 202


def test_a_body_is_not_read_before_its_key_is_known(guarded: TestClient) -> None:
    # Over every limit, so that 413 would be the answer of whoever reads it.
    headers = {"content-length": str(10**12), "content-type": "multipart/form-data; boundary=x"}
    assert guarded.post("/v1/search", content=b"", headers=headers).status_code == 401


def test_the_page_itself_is_open_and_holds_no_data(guarded: TestClient) -> None:
    assert guarded.get("/").status_code == 200
    assert guarded.get("/static/app.js").status_code == 200
    assert guarded.get("/docs").status_code == 200
    assert guarded.get("/static/../../pyproject.toml").status_code in (401, 404)
    assert guarded.get("/metrics").status_code == 401


def test_without_keys_pages_of_other_origins_change_nothing(client: TestClient) -> None:
    foreign = client.post("/v1/index/rebuild", headers={"origin": "https://evil.example"})
    assert_problem(foreign, 403, "evil.example", "LOOKALIKE_CORS_ORIGINS")
    own = client.post("/v1/index/rebuild", headers={"origin": "http://testserver"})
    assert own.status_code == 202


def test_cors_is_off_by_default(client: TestClient) -> None:
    headers = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    assert client.options("/v1/search", headers=headers).status_code == 405
    answer = client.get("/v1/index", headers=headers)
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_cors_for_named_origins(engine: SearchEngine) -> None:
    access = Access(KEYS, ("https://shop.example",))
    with TestClient(create_app(engine, access=access)) as client:
        asked = {
            "origin": "https://shop.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "api-key",
        }
        preflight = client.options("/v1/search", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
        refused = client.get("/v1/index", headers={"origin": "https://shop.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://shop.example"
        other = client.options("/v1/search", headers={**asked, "origin": "https://evil.example"})
        assert other.status_code == 400
        assert "access-control-allow-origin" not in other.headers


def test_pages_of_named_origins_may_read_what_went_wrong(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    origin = {"origin": "https://shop.example"}
    app = create_app(engine, access=Access(Keys(), ("https://shop.example",)))
    with TestClient(app, raise_server_exceptions=False) as client:
        for data, status in ((b"rubbish", 415), (b"", 422), (bytes(21 * 2**20), 413)):
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


def test_keys_from_the_environment_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# for the shop\nread {READ}\n\nwrite  {WRITE}\n")
    keys = read_keys("first-key-to-read, second-key-to-read", "", file)
    assert keys.level("second-key-to-read") is Level.READ
    assert keys.level(READ) is Level.READ
    assert keys.level(WRITE) is Level.WRITE
    assert not read_keys("", " , ", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no keys"),
        ("# only words\n", "no keys"),
        ("admin 0123456789abcdef", "line 1"),
        ("read 0123456789abcdef\nwrite", "line 2"),
        ("write short", "5 characters"),
        ("write 0123456789abcdefé", "ASCII"),
    ],
)
def test_bad_key_files(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(KeyFormatError, match=words) as caught:
        read_keys("", "", file)
    assert "0123456789abcdef" not in str(caught.value)


def test_missing_key_file(tmp_path: Path) -> None:
    with pytest.raises(KeyFormatError, match="cannot be read"):
        read_keys("", "", tmp_path / "none")


def test_key_of() -> None:
    assert key_of({}) is None
    assert key_of({b"authorization": b"Basic abc"}) is None
    assert key_of({b"authorization": b"Bearer "}) is None
    assert key_of({b"authorization": b"Basic abc", b"api-key": b"k"}) == "k"
    assert key_of({b"authorization": b"Bearer  t ", b"api-key": b"k"}) == "t"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("example.com", False),
        ("", False),
    ],
)
def test_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
