"""HEAD on every route that answers GET."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search_api.api.middleware.errors import ErrorMiddleware


class _HeadSent(BaseException):
    """Ends a stream whose first part was produced: nobody receives the rest."""


class HeadMiddleware:
    """Answers HEAD as the app answers GET: the same status and headers, and no body (RFC 9110).

    The request log and the metrics, outside of it, see the HEAD.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._reported = ErrorMiddleware(app)  # so that problems pass through here, too

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        inner = {**scope, "method": "GET"}
        done = False

        async def without_body(message: Message) -> None:
            nonlocal done
            if message["type"] != "http.response.body":
                await send(message)
                return
            if not done:
                done = True
                await send({"type": "http.response.body", "body": b""})
            if message.get("more_body", False):
                raise _HeadSent

        try:
            await self._reported(inner, receive, without_body)
        except _HeadSent:
            pass
        finally:
            if "route" in inner:
                scope["route"] = inner["route"]  # for the request log
