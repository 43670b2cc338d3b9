"""Refuses what needs an index while there is none, and says how far its first build is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from search_api.api.context import Context
from search_api.api.errors import Problem, respond

_WITHOUT_INDEX = ("/v1/jobs", "/v1/index/rebuild")


class ReadyMiddleware:
    """Passes on every request once an index is loaded; until then, those that need none."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self.app = app
        self.context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.context.engine.ready and scope["type"] == "http":
            path: str = scope["path"]
            if path.startswith("/v1/") and not path.startswith(_WITHOUT_INDEX):
                problem = not_ready(self.context)
                await respond(Request(scope), problem)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def not_ready(context: Context) -> Problem:
    """The problem of a server that has no index yet."""
    job = context.jobs.running
    if job is None:
        return Problem(
            503,
            "not-ready",
            "no index is loaded yet; wait, or build one with `lookalike index build`",
            headers={"Retry-After": "2"},
        )
    far = f": {job.stage}, {job.done:,} of {job.total:,}" if job.total else ""
    return Problem(
        503,
        "not-ready",
        f"the index is being built{far}; searches are possible once the first pictures are"
        " embedded",
        headers={"Retry-After": "2"},
        job=job.id,
    )
