"""The outermost layer: request ids, security headers, counts and the log line."""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections.abc import Iterable

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search_api import logs
from search_api.api.errors import Problem, as_problem, respond
from search_api.api.metrics import Metrics
from search_api.api.middleware.headers import secured

log = logging.getLogger(__name__)

_random = random.Random(os.urandom(32))  # noqa: S311
_SENT_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET = frozenset({"/livez", "/readyz", "/healthz"})


class RequestLog:
    """Counts requests, and writes the line of each; only the event loop's thread uses it."""

    def __init__(self, metrics: Metrics, max_requests: int) -> None:
        self.metrics = metrics
        self.max_requests = max_requests
        self.running = 0

    @property
    def full(self) -> bool:
        """Whether no further request may begin."""
        return self.running >= self.max_requests

    def begin(self) -> None:
        """Count a request that is in progress from now on."""
        self.running += 1
        self.metrics.requests_running.set(self.running)

    def end(self) -> None:
        """Count it no longer."""
        self.running -= 1
        self.metrics.requests_running.set(self.running)

    def note(
        self,
        scope: Scope,
        request_id: str,
        status: int,
        seconds: float,
        bytes_in: int,
        bytes_out: int,
    ) -> None:
        """Count a response, by its ``status`` or 0 if there was none, and write its line."""
        # The template of the route, not the path: each id would become its own time series.
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.metrics.observe_request(method, route, str(status or "aborted"), seconds)
        client = scope.get("client")
        logs.event(
            log,
            "request",
            request_id=request_id,
            method=scope["method"][:16],
            route=route,
            path=scope["path"][:200],
            status=status or None,
            ms=round(1000 * seconds, 2),
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            client=client[0][:100] if client else None,
        )


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The ``X-Request-ID`` that was sent if it is valid, otherwise a new one."""
    sent = b""
    for name, value in headers:
        if name == b"x-request-id":
            sent = value
    # Not a secret, so it need not cost a call of the operating system.
    return sent.decode() if _SENT_ID.fullmatch(sent) else f"{_random.getrandbits(128):032x}"


class RequestLogMiddleware:
    """Gives a request its id, counts it, logs one line, and responds to unhandled errors.

    Every answer but those of `search_api.api.direct` passes through here and gets the security
    headers.

    The id is in the response's headers, in every problem, and in every line logged while the
    request is handled.
    """

    def __init__(self, app: ASGIApp, log: RequestLog, draining: threading.Event) -> None:
        self.app = app
        self.log = log
        self.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = request_id_of(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        token = logs.request_id.set(request_id)
        status, bytes_in, bytes_out = 0, 0, 0

        async def received() -> Message:
            nonlocal bytes_in
            message = await receive()
            bytes_in += len(message.get("body", b""))
            return message

        async def watched(message: Message) -> None:
            nonlocal status, bytes_out
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = secured(message.get("headers", ()), request_id.encode())
                if self.draining.is_set():
                    # The client opens its next connection to another server and loses no request.
                    headers = [pair for pair in headers if pair[0] != b"connection"]
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            else:
                bytes_out += len(message.get("body", b""))
            await send(message)

        full = self.log.full
        self.log.begin()
        try:
            if full and scope["path"] not in _QUIET:
                problem = Problem(
                    503,
                    "overloaded",
                    f"{self.log.running - 1:,} requests are already in progress; try again in a"
                    " second",
                    headers={"Retry-After": "1"},
                )
                await respond(Request(scope), problem)(scope, received, watched)
            else:
                await self.app(scope, received, watched)
        except ClientDisconnect:
            status = status or 499  # as nginx logs it; nobody reads a response
        except Exception as error:  # noqa: BLE001 - `as_problem` logs it
            problem = as_problem(error)
            if status == 0:
                await respond(Request(scope), problem)(scope, received, watched)
        finally:
            self.log.end()
            seconds = time.perf_counter() - started
            self.log.note(scope, request_id, status, seconds, bytes_in, bytes_out)
            logs.request_id.reset(token)
