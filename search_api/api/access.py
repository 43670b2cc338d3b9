"""Which level of access a request needs once API keys are set, and the key that it sends."""

from __future__ import annotations

from collections.abc import Mapping

from search_api.keys import Level

READ_ONLY_POSTS = frozenset(
    {"/v1/search", "/v1/search/batch", "/v1/classify", "/v1/recommend", "/v1/recommend/images"}
)
"""The only POST paths that change nothing and so need no write key. Any other request than GET,
HEAD or OPTIONS needs one, even on routes that do not exist yet."""

# The pages themselves contain no data and are in every copy of this project. What they show, they
# fetch with the key that the visitor enters.
OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/healthz", "/docs", "/redoc", "/openapi.json"})
OPEN_PREFIXES = ("/static/", "/static-offline-docs/")


def needed(method: str, path: str) -> Level:
    """The level that a request needs once keys are set: WRITE unless it is known only to read."""
    if method in ("GET", "HEAD", "OPTIONS"):
        if path in OPEN_PATHS or path.startswith(OPEN_PREFIXES):
            return Level.OPEN
        return Level.READ
    if method == "POST" and path in READ_ONLY_POSTS:
        return Level.READ
    return Level.WRITE


def key_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The key that a request sends: ``Authorization: Bearer KEY`` or ``api-key: KEY``."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    key = headers.get(b"api-key", b"").decode("latin-1").strip()
    return key or None
