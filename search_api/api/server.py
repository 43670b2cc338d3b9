"""The server process: how it closes connections, and how it shuts down."""

from __future__ import annotations

import fcntl
import gc
import json
import logging
import os
import re
import resource
import signal
import socket
import sys
import termios
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from search_api.api.context import Context
from search_api.api.direct import Direct, Exchange
from search_api.api.metrics import Metrics
from search_api.api.middleware.headers import secured
from search_api.logs import event
from search_api.settings import Limits, Shutdown

log = logging.getLogger(__name__)

_KEEP_ALIVE_SECONDS = 5
_COLLECT_AFTER = (10_000, 20, 50)
_LINGER_SECONDS = 2
_MAX_HEAD_BYTES = 64 * 2**10
_VANISHED_MS = 60_000
_AUTHORITY = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)


class _SlowReaders:
    """Closes connections whose clients do not read what they are sent.

    Such an answer stays in the memory of the server, and `Transport.close` waits for its end.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._most = limits.max_unread_bytes
        self._seconds = limits.send_seconds
        self._metrics = metrics
        # The oldest first: since when each has waited, and the bytes that it keeps in memory.
        self._waiting: dict[_Protocol, tuple[float, int]] = {}
        metrics.unread_bytes.set_function(lambda: self.unread)

    @property
    def unread(self) -> int:
        """Bytes of answers that clients have not read."""
        return sum(size for _, size in list(self._waiting.values()))

    def watch(self, connection: _Protocol) -> None:
        """Note that ``connection`` has unread bytes, and keep the sum of all within the limit."""
        # An answer stays in memory as a whole, whatever its client has read of it.
        since, size = self._waiting.get(connection, (time.monotonic(), 0))
        self._waiting[connection] = since, max(size, connection.unread())
        unread = self.unread
        while unread > self._most:
            oldest, (_, size) = next(iter(self._waiting.items()))
            unread -= size
            self._close(oldest)

    def forget(self, connection: _Protocol) -> None:
        """Note that ``connection`` has no unread bytes, or is closed."""
        self._waiting.pop(connection, None)

    def check(self, connections: Iterable[_Protocol]) -> None:
        """Close those that have had unread bytes, if not the same ones, for too long."""
        now = time.monotonic()
        for connection in connections:
            if not connection.writing:
                self.forget(connection)
                continue
            if connection not in self._waiting:
                self.watch(connection)
            elif now - self._waiting[connection][0] > self._seconds:
                self._close(connection)

    def _close(self, connection: _Protocol) -> None:
        self.forget(connection)
        self._metrics.slow_readers.inc()
        connection.transport.abort()


class _Protocol(HttpToolsProtocol):
    """Uvicorn's protocol over llhttp, with a limit on the head, and problems for invalid HTTP.

    After such a problem, what the client still sends is read and discarded: closing at once would
    reset the connection, and the client would never see the response.
    """

    _lingering = False
    _feeding = False
    _deferred: RequestResponseCycle | None = None
    _exchange: Exchange | None = None
    _in_head = False
    _head_bytes = 0

    def __init__(
        self,
        *args: Any,
        slow_readers: _SlowReaders,
        max_connections: int,
        direct: Direct,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._direct = direct
        self._slow_readers = slow_readers
        self._max_connections = max_connections

    @property
    def writing(self) -> bool:
        """Whether part of an answer waits until the client has read what was sent before."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def unread(self) -> int:
        """Bytes of answers in this process, and in the kernel until the client confirms them."""
        connection = self.transport.get_extra_info("socket")
        queue = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        return self.transport.get_write_buffer_size() + int.from_bytes(queue, sys.byteorder)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self._max_connections:
            transport.abort()
            return
        connection = transport.get_extra_info("socket")
        if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux's
            # A client that has vanished, without closing, is noticed after this time.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _VANISHED_MS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._slow_readers.forget(self)
        super().connection_lost(exc)
        if self._exchange is not None:
            self._exchange.cancel()
            self._exchange = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._slow_readers.watch(self)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        self._feeding = True
        super().data_received(data)
        self._feeding = False
        deferred, self._deferred = self._deferred, None
        if deferred is not None:
            self._begin(deferred)
        if self._in_head and self.parser is not None:
            # llhttp itself accepts a head of any length.
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES and not self._lingering:
                self.send_400_response("")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Of a request whose head has just been read; its body may follow in the same bytes.
        if self._feeding and self._direct.may_answer(cycle):
            self._deferred = cycle
        else:
            super()._start_asgi_task(cycle, app)

    def _begin(self, cycle: RequestResponseCycle) -> None:
        """Answer a usual search, or start the task that answers any request."""
        ordinary = partial(super()._start_asgi_task, cycle, self.app)
        self._exchange = None
        if not (self._lingering or cycle.more_body):
            self._exchange = self._direct.begin(cycle, ordinary)
        if self._exchange is None:
            ordinary()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: the request is served, and its line is logged, as without the upgrade."""

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer comes after the body; the middleware has not checked it.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if sum(len(name) + len(value) for name, value in self.headers) > _MAX_HEAD_BYTES:
            raise ValueError("the head is too long")  # makes llhttp stop, and the response a 400
        self._check_framing()
        super().on_headers_complete()
        if self.parser.should_upgrade():
            # llhttp takes what follows for another protocol and would never respond to it.
            self.cycle.keep_alive = False

    def _check_framing(self) -> None:
        """Refuse what a proxy in front might read otherwise; llhttp refuses most of it."""
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise ValueError("not HTTP/1.1")
        hosts = [value.lower() for name, value in self.headers if name == b"host"]
        if len(hosts) > 1:
            raise ValueError("several Host headers")
        for name, value in self.headers:
            if name == b"transfer-encoding" and (
                value.strip().lower() != b"chunked" or self.parser.get_http_version() == "1.0"
            ):
                raise ValueError("a transfer coding other than chunked")
        if not self.url.startswith(b"/") and self.url != b"*":
            # The absolute form, as sent to proxies: its host counts, not the header's (RFC 9112).
            authority = _AUTHORITY.match(self.url)
            if authority is None or [authority[1].lower()] != hosts:
                raise ValueError("the target has another host than the Host header")

    def send_400_response(self, msg: str) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or self.pipeline:
                # A response is under way: cutting it off is the only way to report the error.
                self.transport.close()
                return
            # Tell the reader of the body that no more of it will come.
            cycle.disconnected = True
            cycle.message_event.set()
        request_id = uuid.uuid4().hex
        event(log, "request", status=400, request_id=request_id, client=(self.client or [""])[0])
        members = {
            "type": "urn:lookalike:problem:bad-request",
            "title": "Bad Request",
            "status": 400,
            "detail": "the request is not valid HTTP/1.1, or its head is longer than"
            f" {_MAX_HEAD_BYTES:,} bytes; check the request line and the headers",
            "instance": "",
            "request_id": request_id,
        }
        body = json.dumps(members).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n"
        ).encode()
        for name, value in secured([], request_id.encode()):
            head += name + b": " + value + b"\r\n"
        self.transport.write(head + b"\r\n" + body)
        self._lingering = True
        self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)


class Server(uvicorn.Server):
    """Uvicorn, with a drain before it stops and a limit on silent connections.

    On SIGTERM, /readyz reports 503 at once and a running job is told to stop, while requests, also
    on new connections, are served for another ``drain_seconds``. Then the listener closes, requests
    in flight are completed, and the process exits, after ``grace_seconds`` at the latest. A second
    signal, or Ctrl-C, skips the drain.
    """

    def __init__(
        self,
        app: FastAPI,
        limits: Limits,
        shutdown: Shutdown,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        """A server of ``app``; ``on_ready`` is called once it accepts requests."""
        self.context: Context = app.state.context
        self._slow_readers = _SlowReaders(limits, self.context.metrics)
        # The others are for the store, and for forms that are spooled to disk.
        open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        http = partial(
            _Protocol,
            slow_readers=self._slow_readers,
            direct=app.state.direct,
            max_connections=min(limits.max_connections, open_files // 2),
        )
        super().__init__(
            uvicorn.Config(
                app,
                http=http,  # type: ignore[arg-type]
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                # The app does it, for the configured proxies only.
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(
                    1, int(shutdown.grace_seconds - shutdown.drain_seconds)
                ),
            )
        )
        self.limits = limits
        self.shutdown_settings = shutdown
        self._on_ready = on_ready
        self._drained: float | None = None
        self._announced = False
        self._timer: threading.Timer | None = None
        self._idle: dict[Any, tuple[Any, float]] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept requests, then call ``on_ready``."""
        await super().startup(sockets)
        # What exists now is permanent: the garbage collector need not traverse it every time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECT_AFTER)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal, no more: this runs between two instructions of the main thread."""
        self.context.draining.set()
        if sig == signal.SIGTERM and self._drained is None:
            # Not passed on to uvicorn, which would raise the signal again at the end: an orderly
            # shutdown has exit code 0.
            self._drained = time.monotonic() + self.shutdown_settings.drain_seconds
        elif sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second, check whether to stop; once a second, close silent connections."""
        if counter % 10 == 0:
            self._slow_readers.check(self._connections())
            self._close_silent_connections()
        if self.context.draining.is_set() and not self._announced:
            self._announced = True
            event(log, "draining", seconds=self.shutdown_settings.drain_seconds)
            threading.Thread(target=self.context.jobs.stop, name="stop", daemon=True).start()
            self._watch()
        if self._drained is not None and time.monotonic() >= self._drained:
            self.should_exit = True
        return await super().on_tick(counter)

    def _watch(self) -> None:
        """Exit when the grace period is over, whatever a thread is still doing.

        Nothing is lost: acknowledged writes are on disk, and a job continues when started again.
        """

        def exit_now() -> None:
            event(log, "the grace period is over", logging.ERROR)
            os._exit(1)

        self._timer = threading.Timer(self.shutdown_settings.grace_seconds, exit_now)
        self._timer.daemon = True
        self._timer.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: close the listener, complete the requests in flight, shut down the app."""
        await super().shutdown(sockets)
        if self._timer is not None:
            self._timer.cancel()

    def _connections(self) -> list[_Protocol]:
        return cast("list[_Protocol]", list(self.server_state.connections))

    def _close_silent_connections(self) -> None:
        """Close connections without a request in progress that have not sent the next in time.

        Uvicorn waits without limit for the head of a first request, and for the rest of a body
        that was refused.
        """
        now = time.monotonic()
        idle: dict[Any, tuple[Any, float]] = {}
        for connection in self._connections():
            cycle = getattr(connection, "cycle", None)
            if (cycle is not None and not cycle.response_complete) or connection.writing:
                continue
            last, since = self._idle.get(connection, (cycle, now))
            if last is not cycle:
                since = now
            idle[connection] = (cycle, since)
            transport = connection.transport
            if now - since > self.limits.header_seconds and transport is not None:
                transport.close()
        self._idle = idle
