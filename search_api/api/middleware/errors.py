"""Turns errors into responses inside CORS, so that pages of other origins can read them."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search_api.api.errors import as_problem, respond


class ErrorMiddleware:
    """Responds to exceptions inside the layer that adds CORS headers.

    `RequestLogMiddleware` does so for every app, but outside that layer: without the headers, a
    page of another origin could not read the error.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ClientDisconnect:
            raise
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            await respond(Request(scope), as_problem(error))(scope, receive, send)
