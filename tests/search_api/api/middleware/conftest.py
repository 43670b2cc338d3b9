"""Shared by the tests of the middleware: the log, and calling an app without a server."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from search_api import logs


class Kept(logging.Handler):
    """Keeps log lines as they would have been written at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logs.JsonFormatter())
        self.lines: list[dict] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """A function that returns the log lines so far."""
    caplog.set_level(logging.INFO)
    kept = Kept()
    logging.getLogger().addHandler(kept)
    yield lambda: kept.lines
    logging.getLogger().removeHandler(kept)


def request_lines(lines: Any) -> list[dict]:
    return [line for line in lines() if line["message"] == "request"]


def call(
    app: Any, scope: dict[str, Any], messages: list[dict[str, Any]], stall: bool = True
) -> list[dict[str, Any]]:
    """What ``app`` sends to a client that sends ``messages`` and then stalls or disconnects."""
    sent: list[dict[str, Any]] = []
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop(0)
        if stall:
            await anyio.sleep_forever()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))
    return sent


def post_scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", b"multipart/form-data; boundary=x"), (b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
    }
