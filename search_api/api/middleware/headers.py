"""The security headers that every answer has, whoever gives it."""

from __future__ import annotations

from collections.abc import Iterable

Header = tuple[bytes, bytes]

PAGE_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
"""The page loads its own files, and shows pictures that its visitor has chosen."""
FILE_POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'"
"""A picture that was uploaded runs nothing, whatever a browser takes it for."""

_POLICY = b"content-security-policy"
_NOTHING = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_FIXED: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    # Pages of allowed origins read by CORS, to which this does not apply.
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (
        b"permissions-policy",
        b"camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
)
SECURITY: tuple[Header, ...] = ((_POLICY, _NOTHING), *_FIXED)
_NAMES = frozenset(name for name, _ in _FIXED) | {b"x-request-id"}


def secured(headers: Iterable[Header], request_id: bytes) -> list[Header]:
    """Headers of an answer with the security headers and the request's id.

    An answer may have a ``Content-Security-Policy`` of its own; otherwise it may load nothing.
    """
    kept, ours = [], SECURITY
    for pair in headers:
        if pair[0] not in _NAMES:
            kept.append(pair)
        if pair[0] == _POLICY:
            ours = _FIXED
    kept += ours
    kept.append((b"x-request-id", request_id))
    return kept
