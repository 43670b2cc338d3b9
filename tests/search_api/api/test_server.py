"""The server process: silent connections and shutdown."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import Response

from index.contract import JobControl
from search_api import schemas
from search_api.api.middleware.headers import SECURITY
from search_api.api.server import Server
from search_api.service.engine import SearchEngine
from search_api.service.rebuild import IndexBuilder
from search_api.settings import Limits, Shutdown
from tests.search_api.conftest import colour, png
from tests.search_api.helpers import running, until

pytestmark = pytest.mark.slow


def ended(connection: socket.socket) -> bool:
    """Whether the server closes the connection within some seconds; reads until then."""
    connection.settimeout(15)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /livez HT",
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\n",
        b"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999\r\n\r\n{",
    ],
)
def test_silent_connections_are_closed(engine: SearchEngine, sent: bytes) -> None:
    with (
        running(engine, Limits(header_seconds=0.2)) as (_, address),
        socket.create_connection(address) as connection,
    ):
        connection.sendall(sent)
        assert ended(connection)


def test_a_slow_body_gets_a_response(engine: SearchEngine) -> None:
    limits = Limits(header_seconds=0.1, body_idle_seconds=1.5)
    with running(engine, limits) as (_, address), socket.create_connection(address) as connection:
        head = (
            b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: multipart/form-data; boundary=x\r\ncontent-length: 1000\r\n\r\n"
        )
        connection.sendall(head + b"--x")
        connection.settimeout(15)
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")


POST = b"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01 this is TLS\r\n\r\n",
        POST + b"content-length: -1\r\n\r\n",
        POST + b"transfer-encoding: chunked\r\n\r\nnot a length\r\n",
        b"GET /" + b"x" * 1_000_000,
    ],
)
def test_invalid_http_gets_a_problem(engine: SearchEngine, sent: bytes) -> None:
    with running(engine) as (_, address), socket.create_connection(address) as connection:
        connection.sendall(sent)
        connection.settimeout(15)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    problem = json.loads(body)
    assert problem["status"] == 400
    assert f"x-request-id: {problem['request_id']}".encode() in head
    assert all(b"\r\n" + b": ".join(pair) in head for pair in SECURITY)


def test_sigterm_drains_first(engine: SearchEngine) -> None:
    shutdown = Shutdown(drain_seconds=3.0, grace_seconds=20)
    with running(engine, shutdown=shutdown) as (server, (host, port)):
        url = f"http://{host}:{port}"
        assert httpx2.get(url + "/readyz").status_code == 200
        server.handle_exit(signal.SIGTERM, None)
        assert httpx2.get(url + "/readyz").status_code == 503
        assert httpx2.get(url + "/livez").status_code == 200
        files = {"image": ("q.png", png(colour("red", 1)))}
        answer = httpx2.post(url + "/v1/search", files=files)
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        assert not server.should_exit
        until(lambda: server.should_exit)


def test_a_second_sigterm_skips_the_drain(engine: SearchEngine) -> None:
    with running(engine, shutdown=Shutdown(60, 90)) as (server, _):
        server.handle_exit(signal.SIGTERM, None)
        assert not server.should_exit
        server.handle_exit(signal.SIGTERM, None)
        assert server.should_exit


STUBBORN = """
import socket, sys, time
from pathlib import Path
from embed.corpus import FolderCorpus
from search_api.api.app import create_app
from search_api.api.server import Server
from search_api.service.engine import SearchEngine
from search_api.settings import Limits, Shutdown
from tests.search_api.conftest import MeanColour, rebuild

engine = SearchEngine(MeanColour(), FolderCorpus(Path(sys.argv[1])), Path(sys.argv[2]))
rebuild(engine)
app = create_app(engine)
app.state.context.jobs.start("count", lambda control: time.sleep(1000))
shutdown = Shutdown(drain_seconds=0.1, grace_seconds=1.0)
server = Server(app, Limits(), shutdown, lambda: print("ready", flush=True))
server.run(sockets=[socket.create_server(("127.0.0.1", 0))])
"""


def test_shutdown_ends_within_the_grace_period(folder: Path, tmp_path: Path) -> None:
    """Even if a thread does not check whether to stop, here for a thousand seconds."""
    command = [sys.executable, "-c", STUBBORN, str(folder), str(tmp_path / "store")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
    finally:
        process.kill()
        process.communicate()


def test_a_rebuild_is_told_to_stop(engine: SearchEngine, monkeypatch: Any) -> None:
    stopped = threading.Event()

    def rebuild(builder: Any, encoder: Any, corpus: Any, control: JobControl, **_: Any) -> Any:
        until(control.cancelled)
        stopped.set()
        raise RuntimeError("stopped after 1 of 2 pictures")

    monkeypatch.setattr(IndexBuilder, "rebuild", rebuild)
    with running(engine, shutdown=Shutdown(30, 60)) as (server, (host, port)):
        job = httpx2.post(f"http://{host}:{port}/v1/index/rebuild").json()["id"]
        server.handle_exit(signal.SIGTERM, None)
        # During the drain, not only once all connections have been closed.
        assert stopped.wait(15)
        until(lambda: server.context.jobs.get(job).finished is not None)
        answer = httpx2.get(f"http://{host}:{port}/v1/jobs/{job}").json()
        assert answer["state"] == "failed"
        assert "stopped after 1" in json.dumps(answer)


def metric(server: Server, name: str) -> float | None:
    return server.context.metrics.registry.get_sample_value(f"lookalike_{name}")


BIG = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: localhost\r\n\r\n"
LISTS = b"GET /v1/images?limit=24 HTTP/1.1\r\nhost: localhost\r\n\r\n"


def unreading(address: tuple[str, int]) -> socket.socket:
    """A client with a small window that reads nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(address)
    return connection


def test_who_does_not_read_is_disconnected(engine: SearchEngine) -> None:
    with running(engine, Limits(send_seconds=0.5)) as (server, address), unreading(address) as slow:
        slow.sendall(LISTS * 2000)  # about 14 MB
        until(lambda: metric(server, "slow_readers_total") == 1)
        until(lambda: server.context.metrics.requests_running._value.get() == 0)
        assert metric(server, "unread_bytes") == 0
        assert not server.server_state.connections


def test_unread_answers_together_are_bounded(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that has waited longest makes room."""
    monkeypatch.setattr(engine, "summary", lambda: {"kind": "x" * 16_000_000, "corpus": ""})
    monkeypatch.setattr(schemas, "IndexInfo", lambda **values: Response(values["kind"]))
    get = b"GET /v1/index HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with running(engine, Limits(max_unread_bytes=30_000_000)) as (server, address):
        slow = [unreading(address) for _ in range(4)]
        for number, connection in enumerate(slow, 1):
            connection.sendall(get)
            # All of the answer counts: what is in the kernel, too.
            until(lambda: 15_000_000 < (metric(server, "unread_bytes") or 0) <= 30_000_000)
            until(lambda number=number: metric(server, "slow_readers_total") == number - 1)
        for connection in slow:
            connection.close()
        until(lambda: metric(server, "unread_bytes") == 0)


def test_a_slow_but_steady_reader_gets_everything(engine: SearchEngine) -> None:
    limits = Limits(send_seconds=20, header_seconds=0.2)
    with running(engine, limits) as (_, address), unreading(address) as connection:
        connection.sendall(BIG.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        time.sleep(2.5)  # longer than a silent connection may be
        answer = b""
        while data := connection.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head


def test_vanished_clients_are_noticed(engine: SearchEngine) -> None:
    with running(engine) as (server, address), socket.create_connection(address):
        until(lambda: bool(server.server_state.connections))
        (connection,) = server.server_state.connections
        there = connection.transport.get_extra_info("socket")
        assert there.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


def test_connections_are_limited(engine: SearchEngine) -> None:
    get = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with running(engine, Limits(max_connections=3)) as (server, address):
        kept = [socket.create_connection(address) for _ in range(3)]
        until(lambda: len(server.server_state.connections) == 3)
        with socket.create_connection(address) as another:
            assert ended(another)
        for connection in kept:
            connection.sendall(get)
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        kept.pop().close()
        until(lambda: len(server.server_state.connections) == 2)
        with socket.create_connection(address) as later:
            later.sendall(get)
            assert later.recv(100).startswith(b"HTTP/1.1 200 ")
        for connection in kept:
            connection.close()
