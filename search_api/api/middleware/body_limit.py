"""Limits the size of a request's body, the time that it may take, and all bodies together."""

from __future__ import annotations

import asyncio
import time

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search_api.api.errors import Problem, respond
from search_api.api.intake.content_coding import decoded
from search_api.api.intake.declared import Bodies, route_table
from search_api.settings import Limits

_OF_BODIES = (b"content-length", b"transfer-encoding")
_NO_BODY_BYTES = 4096
_RETRY = {"Retry-After": "1"}


class ByteBudget:
    """The bytes of all bodies that are being received and handled, in memory or on disk.

    Only the thread of the event loop uses it.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0

    def exceeded_by(self, size: int) -> bool:
        """Whether ``size`` further bytes are too many."""
        return self.used + size > self.most


class BodyLimitMiddleware:
    """Refuses a body that is too large (413) or too slow (408), while it is being read.

    What is too large follows from what the route declares, not from what the client claims to send:
    a form may be large where the route takes one, a picture where it takes a picture as the body. A
    declared length over the limit is refused at once; a body without one (chunked) as soon as it
    exceeds the limit, so that no request can fill the memory or the disk. The bodies of all
    requests, forms that are spooled to disk included, share a budget; beyond it, requests get 503.
    What counts is the body after its ``Content-Encoding``.
    """

    def __init__(self, app: ASGIApp, limits: Limits, budget: ByteBudget) -> None:
        self.app = app
        self.limits = limits
        self.budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        bodiless = scope["method"] in ("GET", "HEAD") and headers.keys().isdisjoint(_OF_BODIES)
        if bodiless:
            await self.app(scope, receive, send)
            return
        bodies = route_table(scope["app"]).bodies(scope["method"], scope["path"])
        most = self._most(bodies, headers.get(b"content-type", b"").lower())
        length = headers.get(b"content-length", b"0")
        declared = int(length) if length.isdigit() else 0
        problem = None
        # Several of these headers are several encodings, one within the other.
        sent = [value for name, value in scope["headers"] if name == b"content-encoding"]
        coding = b", ".join(sent).strip().lower()
        if coding not in (b"", b"identity"):
            declared = 0  # it says nothing of the body that is limited here
            try:
                receive = decoded(scope, receive, coding.decode("latin-1"))
            except Problem as unknown:
                problem = unknown
        # Where there is no such route, the app says so and reads nothing.
        if declared > most and bodies is not None:
            problem = Problem(413, "too-large", _too_large(f"{declared:,}", most))
        elif declared and bodies and self.budget.exceeded_by(declared):
            problem = Problem(503, "overloaded", self._exceeded(), headers=_RETRY)
        if problem is not None:
            await respond(Request(scope), problem)(scope, receive, send)
            return
        read = 0
        complete = False
        until = time.monotonic() + self.limits.body_seconds

        async def counted() -> Message:
            nonlocal read, complete
            if complete:
                # The caller now waits for the client to disconnect, which may take long.
                return await receive()
            patience = min(self.limits.body_idle_seconds, until - time.monotonic())
            try:
                async with asyncio.timeout(max(patience, 0)):
                    message = await receive()
            except TimeoutError:
                # The only kind of error that FastAPI's body parser lets through.
                raise HTTPException(408, self._too_slow(read)) from None
            size = len(message.get("body", b""))
            read += size
            self.budget.used += size
            complete = not message.get("more_body", False)
            if read > most:
                raise HTTPException(413, _too_large(f"more than {most:,}", most))
            if self.budget.exceeded_by(0):
                raise HTTPException(503, self._exceeded(), headers=_RETRY)
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self.budget.used -= read

    def _most(self, bodies: Bodies | None, kind: bytes) -> int:
        if bodies is None or not any(bodies):
            return _NO_BODY_BYTES
        kind = kind.partition(b";")[0].strip()
        most = self.limits.max_json_bytes
        if bodies.form and kind == b"multipart/form-data":
            most = self.limits.max_body_bytes
        elif bodies.image and kind != b"application/json":
            # Whatever it is called, as curl and many clients call it: it may be a picture.
            most = max(most, self.limits.picture.max_bytes)
        return min(most, self.budget.most)

    def _too_slow(self, read: int) -> str:
        return (
            f"the request's body stopped or was too slow after {read:,} bytes; send it within"
            f" {self.limits.body_seconds:g} seconds and without a pause of more than"
            f" {self.limits.body_idle_seconds:g} seconds"
        )

    def _exceeded(self) -> str:
        return (
            f"the requests in progress have {self.budget.used:,} bytes, and at most"
            f" {self.budget.most:,} may be in flight; try again in a second"
        )


def _too_large(size: str, most: int) -> str:
    return (
        f"the request has {size} bytes; the limit for what this path takes is {most:,}. Send less,"
        " or fewer or smaller pictures"
    )
