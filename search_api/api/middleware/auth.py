"""Checks the API key of a request."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from search_api.api.access import key_of, needed
from search_api.api.errors import Problem, respond
from search_api.keys import Access, Level
from search_api.text import shortened


class AuthMiddleware:
    """Passes a request on if its key allows it, before any of its body is read.

    Without keys anyone may do anything; `SiteMiddleware` has refused pages of other sites.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self.check(scope)
            except Problem as problem:
                await respond(Request(scope), problem)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def check(self, scope: Scope) -> None:
        """Raise the Problem of a request that is not passed on."""
        need = needed(scope["method"], scope["path"])
        if need is Level.OPEN or not self.access.keys:
            return
        key = key_of(dict(scope["headers"]))
        level = Level.OPEN if key is None else self.access.keys.level(key)
        if level >= need:
            return
        challenge = 'Bearer realm="lookalike"'
        if level is Level.OPEN:
            received = (
                "no API key" if key is None else "an API key that is not known to this server"
            )
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
            f"{scope['method']} {shortened(scope['path'])} needs a key for writing; the key of the"
            " request may only read",
            headers={"WWW-Authenticate": challenge + ', error="insufficient_scope"'},
        )
