"""Request ids, the log, and the limits on bodies and on the number of requests."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from fastapi.testclient import TestClient

from search_api import logs
from search_api.access import Access, Keys
from search_api.app import create_app
from search_api.engine import SearchEngine
from search_api.settings import Limits
from tests.search_api.conftest import colour, png
from tests.search_api.test_bad_input import assert_problem


class Kept(logging.Handler):
    """Keeps what is logged, as it would have been written at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logs.JsonFormatter())
        self.lines: list[dict] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """What was logged so far, line by line."""
    caplog.set_level(logging.INFO)
    kept = Kept()
    logging.getLogger().addHandler(kept)
    yield lambda: kept.lines
    logging.getLogger().removeHandler(kept)


def request_lines(lines: Any) -> list[dict]:
    return [line for line in lines() if line["message"] == "request"]


def test_one_line_a_request(client: TestClient, lines: Any) -> None:
    data = png(colour("red", 1))
    response = client.post("/v1/search?limit=3", files={"image": ("secret-name.png", data)})
    (line,) = request_lines(lines)
    assert response.headers["x-request-id"] == line["request_id"]
    assert line["method"] == "POST"
    assert line["route"] == line["path"] == "/v1/search"
    assert line["status"] == 200
    assert line["level"] == "info"
    assert line["ms"] > 0
    assert line["bytes_in"] == int(response.request.headers["content-length"])
    assert line["bytes_out"] == len(response.content)
    assert line["client"] == "testclient"
    assert line["time"].endswith("Z")
    assert "secret-name" not in json.dumps(line)


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/v1/index", "/nothing", "/docs"])
def test_no_answer_may_be_taken_for_another_type(client: TestClient, path: str) -> None:
    assert client.get(path).headers["x-content-type-options"] == "nosniff"


def test_ids_make_no_route_of_their_own(client: TestClient, lines: Any) -> None:
    client.get("/v1/images/1")
    client.get("/v1/nothing")
    assert [line["route"] for line in request_lines(lines)] == [
        "/v1/images/{image_id}",
        "unmatched",
    ]


def test_no_key_is_logged(engine: SearchEngine, lines: Any) -> None:
    key = "0123456789-very-secret"
    with TestClient(create_app(engine, access=Access(Keys.of([key])))) as client:
        client.get("/v1/index", headers={"api-key": key})
        client.get("/v1/index", headers={"Authorization": f"Bearer {key}x"})
    assert [line["status"] for line in request_lines(lines)] == [200, 401]
    assert "very-secret" not in json.dumps(lines())


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("order-66.a_B", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("", False),
        ("two words", False),
        ('"quoted"', False),
        ("new\tline", False),
    ],
)
def test_a_sane_request_id_is_kept(client: TestClient, lines: Any, sent: str, kept: bool) -> None:
    response = client.get("/v1/images/999999", headers={"X-Request-ID": sent})
    problem = assert_problem(response, 404)
    assert (problem["request_id"] == sent) is kept
    assert problem["request_id"] == response.headers["x-request-id"]
    assert request_lines(lines)[-1]["request_id"] == problem["request_id"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/v1/search", 405), ("POST", "/v1/search", 422)],
)
def test_every_problem_has_the_id(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    problem = assert_problem(response, status)
    assert problem["request_id"] == response.headers["x-request-id"]
    assert len(problem["request_id"]) == 32


def test_an_unexpected_error_is_found_in_the_log_by_its_id(
    client: TestClient, engine: SearchEngine, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("the cause")

    monkeypatch.setattr(engine, "summary", fail)
    problem = assert_problem(client.get("/v1/index"), 500, "log")
    causes = [line for line in lines() if "the cause" in line.get("exception", "")]
    assert [line["request_id"] for line in causes] == [problem["request_id"]]
    assert request_lines(lines)[-1]["status"] == 500


def test_job_events(client: TestClient, lines: Any) -> None:
    job = client.post("/v1/index/rebuild").json()["id"]
    client.app.state.context.jobs._thread.join()
    events = [line for line in lines() if line.get("job") == job]
    assert [line["message"] for line in events] == ["job started", "job ended"]
    assert events[-1]["state"] == "succeeded"
    text = client.get("/metrics").text
    assert 'lookalike_jobs_total{kind="rebuild",state="succeeded"} 1.0' in text
    assert 'lookalike_jobs_running{kind="rebuild"} 0.0' in text


def test_text_log_is_one_line_whatever_comes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = logging.getLogger("test")
    logs.event(log, "a\nb", path="/x\n/y z", status=200)
    (record,) = caplog.records
    text = logs.TextFormatter().format(record)
    assert "\n" not in text
    assert text.endswith('info    a b path="/x\\n/y z" status=200')
    assert "\n" not in logs.JsonFormatter().format(record)


def test_configure_takes_all_logs(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.configure("json")
        logging.getLogger("a.library").warning("something odd")
    finally:
        root.handlers[:], root.level = before
    # A thread of another test's server may log meanwhile.
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (line,) = [line for line in lines if line["logger"] == "a.library"]
    assert line["level"] == "warning"


def test_json_bodies_have_a_limit_of_their_own(engine: SearchEngine) -> None:
    client = TestClient(create_app(engine, Limits(max_json_bytes=1000)))
    response = client.post("/v1/recommend", json={"positive": [1] * 1000})
    assert_problem(response, 413, "1,000")
    files = {"image": ("q.png", png(colour("red", 1), (300, 300)) + bytes(1000))}
    assert client.post("/v1/search", files=files).status_code == 200


def test_too_many_form_fields(engine: SearchEngine) -> None:
    client = TestClient(create_app(engine, Limits(max_form_fields=3, max_form_field_bytes=100)))
    files = {"image": ("q.png", png((1, 2, 3)))}
    many = client.post("/v1/search", files=files, data={f"f{i}": "x" for i in range(4)})
    assert_problem(many, 400, "Too many fields")
    long = client.post("/v1/search", files=files, data={"f": "x" * 200})
    assert_problem(long, 400, "maximum size")


def test_many_more_files_than_the_limit(engine: SearchEngine) -> None:
    client = TestClient(create_app(engine, Limits(max_images=3)))
    files = [("images", (f"{i}.png", b"x")) for i in range(9)]
    assert_problem(client.post("/v1/classify", files=files), 413, "too many pictures")


def call(
    app: Any, scope: dict[str, Any], messages: list[dict[str, Any]], stall: bool = True
) -> list[dict[str, Any]]:
    """What ``app`` sends to a client that sends ``messages`` and then, if ``stall``, nothing."""
    sent: list[dict[str, Any]] = []
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop(0)
        if stall:
            await anyio.sleep_forever()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))
    return sent


def post_scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", b"multipart/form-data; boundary=x"), (b"host", b"t")],
        "client": ("127.0.0.1", 1),
    }


@pytest.mark.parametrize("limits", [Limits(body_idle_seconds=0.05), Limits(body_seconds=0.05)])
def test_a_slow_body_is_given_up(engine: SearchEngine, limits: Limits) -> None:
    part = {"type": "http.request", "body": b"--x\r\n", "more_body": True}
    start, body = call(create_app(engine, limits), post_scope("/v1/search"), [part])
    assert start["status"] == 408
    problem = json.loads(body["body"])
    assert problem["type"] == "urn:lookalike:problem:request-timeout"
    assert "after 5 bytes" in problem["detail"]


def test_a_client_that_goes_away_is_no_error(engine: SearchEngine, lines: Any) -> None:
    part = {"type": "http.request", "body": b"--x\r\n", "more_body": True}
    call(create_app(engine), post_scope("/v1/search"), [part], stall=False)
    (line,) = request_lines(lines)
    assert line["status"] in (400, 499)
    assert [line for line in lines() if line["level"] == "error"] == []


def test_too_many_requests_at_a_time(engine: SearchEngine, monkeypatch: Any) -> None:
    entered, opened = threading.Event(), threading.Event()
    summary = engine.summary

    def slow() -> dict[str, Any]:
        entered.set()
        assert opened.wait(20)
        return summary()

    monkeypatch.setattr(engine, "summary", slow)
    with TestClient(create_app(engine, Limits(max_requests=1))) as client:
        first: list[int] = []
        thread = threading.Thread(target=lambda: first.append(client.get("/v1/index").status_code))
        thread.start()
        assert entered.wait(20)
        refused = client.get("/v1/images")
        assert_problem(refused, 503, "try again")
        assert refused.headers["retry-after"] == "1"
        assert client.get("/livez").status_code == 200
        opened.set()
        thread.join()
        assert first == [200]
        assert client.get("/v1/images").status_code == 200


def test_draining(client: TestClient) -> None:
    client.app.state.context.draining.set()
    ready = client.get("/readyz")
    assert_problem(ready, 503, "about to end")
    assert client.get("/livez").status_code == 200
    answer = client.get("/v1/index")
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"
