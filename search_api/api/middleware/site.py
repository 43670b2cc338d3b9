"""Checks which host a request is addressed to, and which site's page sends it."""

from __future__ import annotations

import ipaddress
import re

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from search_api.api.errors import Problem, respond
from search_api.keys import LOOPBACK_HOSTS, Access
from search_api.text import shortened

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_-][a-z0-9._-]*?)\.?(?::[0-9]{1,5})?")
_MOST_SEEN = 100
_FOREIGN = ("cross-site", "same-site")
# A link on any page may lead to these: they contain no data, and no other page can read them.
_PAGES = frozenset({"/", "/docs", "/redoc"})


class SiteMiddleware:
    """Keeps web pages of other sites from using this server through a visitor's browser.

    A page whose name resolves to this machine (DNS rebinding) counts as of the same origin, so
    without keys only requests to names that no page can take are passed on: the loopback names, the
    address that the connection arrived at, and the hosts of ``access``. With keys, which no browser
    adds by itself, all hosts are, unless ``access`` names some.

    Without keys, pages of other origins can neither read nor change anything, unless the origin is
    allowed: by ``Origin``, and by ``Sec-Fetch-Site`` for requests that have none.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.origins = access.origins
        self.keyless = not access.keys
        self.any_host = not self.keyless and not access.hosts
        self.hosts = LOOPBACK_HOSTS.union(access.hosts)
        self._seen: set[bytes] = set()

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
        hosts = []
        origin = site = mode = b""
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"sec-fetch-mode":
                mode = value
        if len(hosts) > 1:
            raise Problem(
                400, "bad-request", f"the request has {len(hosts)} Host headers; send exactly one"
            )
        sent = hosts[0] if hosts else b""
        if not self.any_host and sent not in self._seen:
            self._check_host(sent, scope)
        if self.keyless and (origin or site) and scope["method"] != "OPTIONS":
            linked = mode == b"navigate" and scope["method"] == "GET" and scope["path"] in _PAGES
            host = sent.decode("latin-1").lower()
            self._check_site(origin.decode("latin-1"), host, site.decode("latin-1"), linked)

    def _check_host(self, sent: bytes, scope: Scope) -> None:
        host = sent.decode("latin-1").lower()
        found = _HOST.fullmatch(host)
        name = found[1] if found else ""
        if name in self.hosts:
            if len(self._seen) < _MOST_SEEN:
                self._seen.add(sent)
            return
        if name and name == _arrived_at(scope):
            return
        why = (
            "Without API keys only localhost, the server's own address and the allowed hosts"
            if self.keyless
            else "Only localhost, the server's own address and the allowed hosts"
        )
        raise Problem(
            421,
            "unknown-host",
            f"the request is for the host {shortened(host)!r}. {why} are answered, so that no web"
            " page can reach this server under a name of its own; to allow the host, start the"
            " server with --allowed-host or LOOKALIKE_ALLOWED_HOSTS",
        )

    def _check_site(self, origin: str, host: str, site: str, linked: bool) -> None:
        if origin in self.origins:
            return
        foreign = origin.partition("://")[2].lower() != host if origin else site in _FOREIGN
        if not foreign or (linked and not origin):
            return
        sender = shortened(origin) if origin else "another site"
        raise Problem(
            403,
            "cross-origin",
            f"a page of {sender!r} may neither read nor change anything at {shortened(host)!r};"
            " allow it with LOOKALIKE_CORS_ORIGINS, or make the proxy pass on the Host header",
        )


def _arrived_at(scope: Scope) -> str:
    """This end of the connection as a host; a name in its place, as in tests, does not count."""
    try:
        address = ipaddress.ip_address((scope.get("server") or ("",))[0])
    except ValueError:
        return ""
    if address.version == 4:
        return str(address)
    return str(address.ipv4_mapped) if address.ipv4_mapped else f"[{address}]"
