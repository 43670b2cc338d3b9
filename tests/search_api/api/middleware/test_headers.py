"""Every answer has the security headers, and no redirect is built from the Host header."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from search_api.api.app import create_app
from search_api.api.middleware.headers import FILE_POLICY, PAGE_POLICY, SECURITY, secured
from search_api.keys import Access, Keys
from search_api.service.engine import SearchEngine
from search_api.settings import Limits
from tests.search_api.api.middleware.test_site import targets
from tests.search_api.conftest import png

NAMES = {
    "content-security-policy",
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "cross-origin-resource-policy",
    "cross-origin-opener-policy",
    "permissions-policy",
}
POLICY = dict(SECURITY)[b"content-security-policy"].decode()


def check(answer: Response, policy: str = POLICY) -> None:
    for name in NAMES:
        assert len(answer.headers.get_list(name)) == 1, (answer.request.url, name)
    assert answer.headers["content-security-policy"] == policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def policy_of(path: str, answer: Response) -> str:
    if answer.status_code == 200 and path in ("/docs", "/redoc"):
        policy: str = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy.partition("style-src")[0]
        return policy
    if answer.status_code == 200 and path in ("/", "/v1/images/1/file"):
        return PAGE_POLICY if path == "/" else FILE_POLICY
    return POLICY


def test_every_answer_has_them(client: TestClient) -> None:
    assert {name.decode() for name, _ in SECURITY} == NAMES
    for method, path in targets(client.app):
        answer = client.request(method, path)
        check(answer, policy_of(path, answer))
        check(client.request("BREW", path))


def test_fast_answers_errors_and_unchanged_files_have_them(
    client: TestClient, engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(client.post("/v1/search", files={"image": ("q.png", png((1, 2, 3)))}))
    check(client.post("/v1/search", files={"image": ("q.png", b"rubbish")}))
    check(client.get("/", headers={"host": "evil.example"}))
    picture = client.get("/v1/images/1/file")
    unchanged = client.get("/v1/images/1/file", headers={"if-none-match": picture.headers["etag"]})
    assert unchanged.status_code == 304
    check(unchanged, FILE_POLICY)
    script = client.get("/static/app.js")
    cached = client.get("/static/app.js", headers={"if-none-match": script.headers["etag"]})
    assert cached.status_code == 304
    check(cached)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(engine, "summary", fail)
    crashed = client.get("/v1/index")
    assert crashed.status_code == 500
    check(crashed)


def test_refusals_have_them(engine: SearchEngine) -> None:
    access = Access(Keys.of(["reader-0123456789"]), ("https://shop.example",))
    client = TestClient(create_app(engine, Limits(max_requests=1), access))
    check(client.get("/v1/index"))
    preflight = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    check(client.options("/v1/search", headers=preflight))


def test_headers_that_an_answer_has_itself() -> None:
    own = [(b"content-security-policy", b"sandbox"), (b"x-frame-options", b"SAMEORIGIN")]
    headers = secured([*own, (b"etag", b'"1"')], b"id")
    assert headers[:2] == [own[0], (b"etag", b'"1"')]
    assert (b"x-frame-options", b"DENY") in headers
    assert len(headers) == len(SECURITY) + 2


def test_no_redirect(client: TestClient) -> None:
    """FastAPI would send ``/v1/index/`` to ``http://<the Host header>/v1/index``."""
    for method, path in targets(client.app):
        for where in (f"{path}/", f"{path}//", f"/{path}"):
            if where == "//":
                continue
            answer = client.request(method, f"http://localhost{where}", follow_redirects=False)
            assert answer.status_code not in range(301, 309), (method, where)
            assert "localhost" not in answer.headers.get("location", "")
    assert client.get("/static", follow_redirects=False).status_code == 404
