"""What stands around every request: the body limit and the request metrics."""

from __future__ import annotations

import time

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search_api.errors import Problem, respond
from search_api.metrics import Metrics


class BodyLimit:
    """Refuses a request body over ``max_bytes`` with 413, while it is being read.

    A declared length over the limit is refused at once; a body without one (chunked) as soon as
    it passes the limit, so that no request can fill the memory or the disk.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_bytes:
            problem = Problem(413, "too-large", self._refusal(f"{int(declared):,}"))
            await respond(Request(scope), problem)(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.max_bytes:
                # FastAPI lets this kind, and only this kind, through its body parser.
                raise HTTPException(413, self._refusal(f"more than {self.max_bytes:,}"))
            return message

        await self.app(scope, counted, send)

    def _refusal(self, size: str) -> str:
        return (
            f"the request has {size} bytes, the limit is {self.max_bytes:,};"
            " send fewer or smaller pictures"
        )


class RequestMetrics:
    """Counts requests and their time by route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            # The route's template, not the path: ids would make a series each.
            route = getattr(scope.get("route"), "path", "unmatched")
            labels = (scope["method"], route)
            self.metrics.requests.labels(*labels, str(status)).inc()
            self.metrics.request_seconds.labels(*labels).observe(time.perf_counter() - started)
