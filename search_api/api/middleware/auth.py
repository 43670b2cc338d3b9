"""Checks the API key of a request."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from search_api.api.access import key_of, needed
from search_api.api.errors import Problem, respond
from search_api.keys import Access, Level


class AuthMiddleware:
    """Passes a request on if its key allows it, before any of its body is read.

    Without keys anyone may do anything, except that a web page of another origin cannot make its
    visitor's browser change something.
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
            f"{scope['method']} {scope['path'][:200]} needs a key for writing; the key of the"
            " request may only read",
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
            f"a page of {origin[:200]!r} may not change anything at {host[:200]!r}; allow it with"
            " LOOKALIKE_CORS_ORIGINS, or make the proxy pass on the Host header",
        )
