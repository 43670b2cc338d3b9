"""A transport that answers without a network."""

from __future__ import annotations

from collections.abc import Callable

import httpx2


def transport(handler: Callable[[httpx2.Request], httpx2.Response]) -> httpx2.MockTransport:
    return httpx2.MockTransport(handler)
