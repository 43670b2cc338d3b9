"""What stands around every request: its record, the gate, the limits of its body."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
import uuid

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search_api import logs
from search_api.access import Access, Level, key_of, needed
from search_api.errors import Problem, as_problem, respond
from search_api.metrics import Metrics
from search_api.settings import Limits

log = logging.getLogger(__name__)

_SENT_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_OURS = (b"x-request-id", b"x-content-type-options")
_OF_BODIES = (b"content-length", b"transfer-encoding")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET = frozenset({"/livez", "/readyz", "/healthz"})


class RequestRecord:
    """The outermost layer: gives a request its id, counts it, logs one line, answers what failed.

    The id is the ``X-Request-ID`` that was sent, where it is sane, else a new one. It goes into the
    answer's header, every problem, and every line that is logged meanwhile.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, draining: threading.Event, max_requests: int
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.draining = draining
        self.max_requests = max_requests
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        sent = b""
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                sent = value
        request_id = sent.decode() if _SENT_ID.fullmatch(sent) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        token = logs.request_id.set(request_id)
        status, bytes_in, bytes_out = 0, 0, 0

        async def received() -> Message:
            nonlocal bytes_in
            message = await receive()
            bytes_in += len(message.get("body", b""))
            return message

        async def noted(message: Message) -> None:
            nonlocal status, bytes_out
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [pair for pair in message.get("headers", ()) if pair[0] not in _OURS]
                headers += [(b"x-request-id", request_id.encode()), _NOSNIFF]
                if self.draining.is_set():
                    # The client opens its next connection elsewhere, and loses no request.
                    headers = [pair for pair in headers if pair[0] != b"connection"]
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            else:
                bytes_out += len(message.get("body", b""))
            await send(message)

        self.running += 1
        self.metrics.requests_running.set(self.running)
        try:
            if self.running > self.max_requests and scope["path"] not in _QUIET:
                problem = Problem(
                    503,
                    "overloaded",
                    f"{self.running - 1:,} requests are being answered already; try again in a"
                    " second",
                    headers={"Retry-After": "1"},
                )
                await respond(Request(scope), problem)(scope, received, noted)
            else:
                await self.app(scope, received, noted)
        except ClientDisconnect:
            status = status or 499  # as nginx calls it; nobody reads an answer
        except Exception as error:  # noqa: BLE001 - `as_problem` logs it
            problem = as_problem(error)
            if status == 0:
                await respond(Request(scope), problem)(scope, received, noted)
        finally:
            self.running -= 1
            self.metrics.requests_running.set(self.running)
            seconds = time.perf_counter() - started
            # The route's template, not the path: ids would make a series each.
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
                client=client[0] if client else None,
            )
            logs.request_id.reset(token)


class Failures:
    """Answers what was raised already here: inside of what adds headers to answers.

    `RequestRecord` does so for every app, but stands outside, where CORS adds nothing any more, and
    a page of another origin could not read what went wrong.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except ClientDisconnect:
            raise
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            await respond(Request(scope), as_problem(error))(scope, receive, send)


class Gate:
    """Lets through what the request's key opens; before anything of its body is read.

    Without keys everybody may do everything, except that a web page of another origin may not make
    its visitor's browser change something.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope)
            except Problem as problem:
                await respond(Request(scope), problem)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        need = needed(scope["method"], scope["path"])
        if need is Level.OPEN:
            return
        headers = dict(scope["headers"])
        if not self.access.keys:
            if need is Level.WRITE:
                self._check_origin(headers)
            return
        key = key_of(headers)
        level = Level.OPEN if key is None else self.access.keys.level(key)
        if level >= need:
            return
        challenge = 'Bearer realm="lookalike"'
        if level is Level.OPEN:
            received = "no API key" if key is None else "an API key that is not known here"
            raise Problem(
                401,
                "no-key" if key is None else "unknown-key",
                f"the request has {received}; send one as `Authorization: Bearer KEY` or as"
                " `api-key: KEY`",
                headers={
                    "WWW-Authenticate": challenge
                    + ("" if key is None else ', error="invalid_token"')
                },
            )
        raise Problem(
            403,
            "read-only-key",
            f"{scope['method']} {scope['path'][:200]} changes something and the request's key may"
            " only read; send a key for writing",
            headers={"WWW-Authenticate": challenge + ', error="insufficient_scope"'},
        )

    def _check_origin(self, headers: dict[bytes, bytes]) -> None:
        origin = headers.get(b"origin", b"").decode("latin-1")
        host = headers.get(b"host", b"").decode("latin-1")
        if not origin or origin in self.access.origins or origin.partition("://")[2] == host:
            return
        raise Problem(
            403,
            "cross-origin",
            f"a page of {origin[:200]!r} may not change anything at {host[:200]!r}; allow it by"
            " LOOKALIKE_CORS_ORIGINS, or let the proxy pass the Host header on",
        )


class BodyLimit:
    """Refuses a body that is too large (413) or too slow (408), while it is being read.

    A declared length over the limit is refused at once; a body without one (chunked) as soon as
    it passes the limit, so that no request can fill the memory or the disk. Only forms, which hold
    pictures and are spooled, and pictures themselves may be large.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        most = self._most(headers.get(b"content-type", b"").lower())
        bodiless = scope["method"] in ("GET", "HEAD") and headers.keys().isdisjoint(_OF_BODIES)
        if bodiless:
            await self.app(scope, receive, send)
            return
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > most:
            problem = Problem(413, "too-large", _too_large(f"{int(declared):,}", most))
            await respond(Request(scope), problem)(scope, receive, send)
            return
        read = 0
        complete = False
        until = time.monotonic() + self.limits.body_seconds

        async def counted() -> Message:
            nonlocal read, complete
            if complete:
                # What is waited for now is the client's going away, and that may take long.
                return await receive()
            patience = min(self.limits.body_idle_seconds, until - time.monotonic())
            try:
                async with asyncio.timeout(max(patience, 0)):
                    message = await receive()
            except TimeoutError:
                # FastAPI lets this kind of error, and only this kind, through its body parser.
                raise HTTPException(408, self._too_slow(read)) from None
            read += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if read > most:
                raise HTTPException(413, _too_large(f"more than {most:,}", most))
            return message

        await self.app(scope, counted, send)

    def _most(self, kind: bytes) -> int:
        if kind.startswith(b"multipart/form-data"):
            return self.limits.max_body_bytes
        if kind.startswith(b"image/"):
            return self.limits.picture.max_bytes
        return self.limits.max_json_bytes

    def _too_slow(self, read: int) -> str:
        return (
            f"the request's body stopped or is too slow after {read:,} bytes; send it within"
            f" {self.limits.body_seconds:g} seconds, without a pause of more than"
            f" {self.limits.body_idle_seconds:g}"
        )


def _too_large(size: str, most: int) -> str:
    return f"the request has {size} bytes, the limit is {most:,}; send fewer or smaller pictures"
