"""Limits the size of a request's body and the time that it may take."""

from __future__ import annotations

import asyncio
import time

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search_api.api.errors import Problem, respond
from search_api.settings import Limits

_OF_BODIES = (b"content-length", b"transfer-encoding")


class BodyLimitMiddleware:
    """Refuses a body that is too large (413) or too slow (408), while it is being read.

    A declared length over the limit is refused at once; a body without one (chunked) as soon as it
    exceeds the limit, so that no request can fill the memory or the disk. Only pictures, and forms,
    which contain pictures and are spooled to disk, may be large.
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
                # The caller now waits for the client to disconnect, which may take long.
                return await receive()
            patience = min(self.limits.body_idle_seconds, until - time.monotonic())
            try:
                async with asyncio.timeout(max(patience, 0)):
                    message = await receive()
            except TimeoutError:
                # The only kind of error that FastAPI's body parser lets through.
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
            f"the request's body stopped or was too slow after {read:,} bytes; send it within"
            f" {self.limits.body_seconds:g} seconds and without a pause of more than"
            f" {self.limits.body_idle_seconds:g} seconds"
        )


def _too_large(size: str, most: int) -> str:
    return f"the request has {size} bytes; the limit is {most:,}. Send fewer or smaller pictures"
