"""What is answered without a framework gets the same answer as with it."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from search_api.api.direct import Direct, Exchange
from search_api.keys import Access, Keys
from search_api.service.engine import SearchEngine
from search_api.settings import Limits
from tests.search_api.conftest import colour, png
from tests.search_api.helpers import running, until

pytestmark = pytest.mark.slow

RED, BLUE = png(colour("red", 3)), png(colour("blue", 5))
LARGE = png(colour("red", 3), (300, 300))


def form(picture: bytes, name: str = "image") -> bytes:
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="q.png"\r\n'
    return head.encode() + b"Content-Type: image/png\r\n\r\n" + picture + b"\r\n--x--\r\n"


def request(
    body: bytes,
    query: str = "",
    *more: str,
    kind: str = "multipart/form-data; boundary=x",
    host: str = "localhost",
) -> bytes:
    lines = [f"POST /v1/search{query} HTTP/1.1", f"Host: {host}", f"Content-Type: {kind}"]
    lines += [f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def timeless(self) -> tuple[Any, ...]:
        """Without what differs from one answer to the next."""
        body = re.sub(rb'"time":\{[^}]*\}|"request_id": ?"[^"]*"', b"", self.body)
        varying = ("x-request-id", "date", "content-length")
        return self.status, [pair for pair in self.headers if pair[0] not in varying], body


class Connection:
    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=15)
        self._rest = b""

    def answer(self) -> Answer:
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        length = int(dict(headers)["content-length"])
        while len(self._rest) < length:
            self._more()
        body, self._rest = self._rest[:length], self._rest[length:]
        return Answer(int(first.split()[1]), headers, body)

    def _more(self) -> None:
        part = self.socket.recv(65536)
        assert part, "closed"
        self._rest += part

    def ask(self, sent: bytes) -> Answer:
        self.socket.sendall(sent)
        return self.answer()


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each request that came as far as `Direct.begin` was answered there."""
    found: list[bool] = []
    begin = Direct.begin

    def noted(self: Direct, *arguments: Any) -> Exchange | None:
        exchange = begin(self, *arguments)
        found.append(exchange is not None)
        return exchange

    monkeypatch.setattr(Direct, "begin", noted)
    return found


@pytest.fixture
def served(engine: SearchEngine) -> Iterator[tuple[str, int]]:
    with running(engine) as (_, address):
        yield address


def ordinary(address: tuple[str, int], sent: bytes, monkeypatch: pytest.MonkeyPatch) -> Answer:
    with monkeypatch.context() as patch:
        patch.setattr(Direct, "may_answer", lambda *_: False)
        return Connection(address).ask(sent)


@pytest.mark.parametrize(
    "sent",
    [
        request(form(RED)),
        request(form(RED), "?limit=3"),
        request(form(RED), "?limit=24"),
        request(RED, "", kind="image/png"),
        request(form(RED), "", "User-Agent: x", "Accept: */*", "X-Request-ID: mine"),
    ],
)
def test_the_answer_is_that_of_the_framework(
    served: tuple[str, int], began: list[bool], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    expected = ordinary(served, sent, monkeypatch)
    assert began == []
    found = Connection(served).ask(sent)
    assert began == [True]
    assert found.timeless == expected.timeless
    assert found.status == 200
    assert json.loads(found.body)["points"]
    assert set(json.loads(found.body)["time"]) == set(json.loads(expected.body)["time"])
    if b"X-Request-ID" in sent:
        assert dict(found.headers)["x-request-id"] == "mine"


@pytest.mark.parametrize(
    "sent",
    [
        request(form(RED), "?limit=0"),
        request(form(RED), "?limit=1&nonsense=2"),
        request(form(RED), "?offset=2"),
        request(form(b"not a picture \0")),
        request(form(RED[:60])),
        request(form(b"")),
        request(form(RED, "picture")),
        request(form(LARGE)),
        request(form(RED) + b"more"),
        request(form(RED), host="elsewhere.example"),
        request(form(RED), "", "Origin: http://elsewhere.example"),
        request(form(RED), "", "Content-Encoding: gzip"),
        request(form(RED), kind="application/json"),
    ],
)
def test_anything_else_is_left_to_the_framework(
    served: tuple[str, int], began: list[bool], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    expected = ordinary(served, sent, monkeypatch)
    found = Connection(served).ask(sent)
    assert True not in began
    assert found.timeless == expected.timeless


def test_keys_are_checked(engine: SearchEngine, began: list[bool]) -> None:
    access = Access(Keys.of(read=("reading-key-0123456789",)))
    with running(engine, access=access) as (_, address):
        assert Connection(address).ask(request(form(RED))).status == 401
        wrong = request(form(RED), "", "api-key: another")
        assert Connection(address).ask(wrong).status == 401
        right = request(form(RED), "", "Authorization: Bearer reading-key-0123456789")
        assert Connection(address).ask(right).status == 200
    assert began == [False, False, True]


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        (Limits(max_limit=5, max_batch_points=5), 422),
        (Limits(max_waiting=1, max_batch=1, max_images=1), 200),
    ],
)
def test_limits_hold(engine: SearchEngine, limits: Limits, status: int, began: list[bool]) -> None:
    with running(engine, limits) as (_, address):
        assert Connection(address).ask(request(form(RED), "?limit=6")).status == status
    assert began == [status == 200]


def test_a_body_in_two_parts_is_left_to_the_framework(
    served: tuple[str, int], began: list[bool]
) -> None:
    connection = Connection(served)
    sent = request(form(RED))
    connection.socket.sendall(sent[:-100])
    until(lambda: began == [] and connection.socket.fileno() > 0)
    threading.Event().wait(0.05)
    assert connection.ask(sent[-100:]).status == 200
    assert began == []


def test_requests_that_follow_at_once_are_answered_in_order(
    served: tuple[str, int], began: list[bool]
) -> None:
    connection = Connection(served)
    connection.socket.sendall(
        request(form(RED), "?limit=1") + request(form(BLUE), "?limit=2") + request(form(RED))
    )
    counts = [len(json.loads(connection.answer().body)["points"]) for _ in range(3)]
    assert counts == [1, 2, 12]
    assert began == [True]


class _Held:
    """Holds every batch until it is released, and keeps their sizes."""

    def __init__(self, engine: SearchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.release = threading.Event()
        self.sizes: list[int] = []
        search = engine.search_batch

        def held(queries: Sequence[Any]) -> Any:
            self.sizes.append(len(queries))
            assert self.release.wait(15)
            return search(queries)

        monkeypatch.setattr(engine, "search_batch", held)


def test_what_arrives_together_is_searched_together_and_each_gets_its_own(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = _Held(engine, monkeypatch)
    shades = range(1, 7)
    with running(engine) as (server, address):
        first = Connection(address)
        first.socket.sendall(request(form(RED)))
        until(lambda: held.sizes == [1])
        others = [Connection(address) for _ in shades]
        for shade, connection in zip(shades, others, strict=True):
            picture = png(colour("green", shade))
            connection.socket.sendall(request(form(picture), f"?limit={shade}"))
        until(lambda: server.context.batcher.waiting == len(shades))
        held.release.set()
        assert first.answer().status == 200
        for shade, connection in zip(shades, others, strict=True):
            points = json.loads(connection.answer().body)["points"]
            assert len(points) == shade
            assert points[0]["payload"]["source"].endswith(f"green/{shade}.png")
            assert points[0]["score"] == pytest.approx(1, abs=1e-6)
    assert held.sizes == [1, len(shades)]


def test_a_client_that_leaves_is_noted_and_its_picture_dropped(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    held = _Held(engine, monkeypatch)
    with running(engine) as (server, address):
        first = Connection(address)
        first.socket.sendall(request(form(RED)))
        until(lambda: held.sizes == [1])
        leaving = Connection(address)
        leaving.socket.sendall(request(form(BLUE), "", "X-Request-ID: leaving"))
        until(lambda: server.context.batcher.waiting == 1)
        leaving.socket.close()
        until(lambda: "leaving" in statuses(caplog))
        held.release.set()
        assert first.answer().status == 200
        until(lambda: server.context.batcher.waiting == 0)
        budget = server.config.loaded_app.state.direct.budget
        assert budget.used == 0
    assert statuses(caplog)["leaving"] == 499
    assert held.sizes == [1]


def statuses(caplog: pytest.LogCaptureFixture) -> dict[str, int]:
    fields: list[Any] = [getattr(record, "fields", {}) for record in caplog.records]
    return {f["request_id"]: f["status"] for f in fields if "status" in f}


def test_an_error_of_the_batch_is_reported_by_the_framework(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def broken(queries: Sequence[Any]) -> Any:
        calls.append(len(queries))
        raise RuntimeError("the network is gone")

    monkeypatch.setattr(engine, "search_batch", broken)
    with running(engine) as (_, address):
        found = Connection(address).ask(request(form(RED)))
    assert found.status == 500
    assert calls == [1, 1]


def test_metrics_and_log_line_are_written(
    engine: SearchEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    body = form(RED)
    with running(engine) as (server, address):
        answer = Connection(address).ask(request(body, "", "X-Request-ID: one"))
        until(lambda: "one" in statuses(caplog))
        text = server.context.metrics.render().decode()
    line = next(
        fields
        for record in caplog.records
        if (fields := getattr(record, "fields", {})).get("request_id") == "one"
    )
    assert line["route"] == line["path"] == "/v1/search"
    assert (line["status"], line["method"], line["client"]) == (200, "POST", "127.0.0.1")
    assert (line["bytes_in"], line["bytes_out"]) == (len(body), len(answer.body))
    labels = 'method="POST",route="/v1/search"'
    assert f'lookalike_requests_total{{{labels},status="200"}} 1.0' in text
    assert f"lookalike_request_seconds_count{{{labels}}} 1.0" in text
    for stage in ("decode", "queue", "forward", "search", "payload"):
        assert f'lookalike_stage_seconds_count{{stage="{stage}"}} 1.0' in text
    assert "lookalike_requests_running 0.0" in text


def test_a_draining_server_closes_the_connection(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = _Held(engine, monkeypatch)
    with running(engine) as (server, address):
        connection = Connection(address)
        connection.socket.sendall(request(form(RED)))
        until(lambda: held.sizes == [1])
        server.context.draining.set()
        held.release.set()
        answer = connection.answer()
        assert (answer.status, dict(answer.headers)["connection"]) == (200, "close")
        assert connection.socket.recv(10) == b""
