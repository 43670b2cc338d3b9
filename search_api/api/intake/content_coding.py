"""Bodies that were compressed on the way: gzip and deflate are undone, others refused."""

from __future__ import annotations

import asyncio
import zlib

from starlette.types import Message, Receive, Scope

from search_api.api.errors import Problem
from search_api.text import shortened

ACCEPTED = "gzip, deflate"
_GZIP, _RAW = 16 + zlib.MAX_WBITS, -zlib.MAX_WBITS
_STEP = 64 * 2**10
"""Bytes that a message has at most, whatever the compressed ones amount to."""


def decoded(scope: Scope, receive: Receive, coding: str) -> Receive:
    """A ``receive`` whose messages have the body as it was before its ``Content-Encoding``.

    The headers of ``scope`` no longer mention it. How large the body may be is for the caller to
    check, message by message; no message has more than ``_STEP`` bytes.

    Raises:
        Problem: 415 for an encoding that is not known here; from ``receive``, 400 for a body that
            is damaged or not in the encoding.
    """
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Problem(
            415,
            "unsupported-encoding",
            f"the body's Content-Encoding is {shortened(coding, 50)!r}; send it as it is, or as one"
            f" of {ACCEPTED}",
            headers={"Accept-Encoding": ACCEPTED},
        )
    dropped = (b"content-encoding", b"content-length")
    scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in dropped]
    return _Inflater(receive, coding).receive


class _Inflater:
    """Undoes gzip or deflate, a step at a time."""

    def __init__(self, receive: Receive, coding: str) -> None:
        self._receive = receive
        self._coding = coding
        self._stream: zlib._Decompress | None = None
        self._input = b""
        self._full = False  # the last step gave all that it may, so there may be more
        self._received = False
        self._done = False

    async def receive(self) -> Message:
        """The next part of the body."""
        if self._done:
            return await self._receive()
        while True:
            if self._input or self._full:
                part = self._step()
                if part:
                    await asyncio.sleep(0)  # other requests are served meanwhile
                    return {"type": "http.request", "body": part, "more_body": True}
            elif self._received:
                return self._end()
            else:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                self._input = message.get("body", b"")
                self._received = not message.get("more_body", False)

    def _step(self) -> bytes:
        if self._stream is None:
            if self._coding == "deflate":
                # The standard means zlib's format; some clients send what is inside of it.
                zlibs = self._input[0] & 15 == 8
                self._stream = zlib.decompressobj(zlib.MAX_WBITS if zlibs else _RAW)
            else:
                self._stream = zlib.decompressobj(_GZIP)
        try:
            part = self._stream.decompress(self._input, _STEP)
        except zlib.error as error:
            raise self._damaged(str(error)) from error
        self._input = self._stream.unconsumed_tail
        self._full = len(part) == _STEP
        if self._stream.eof:
            self._input, self._full = self._stream.unused_data, False
            if self._input and self._coding == "deflate":
                raise self._damaged("something follows its end")
            self._stream = None  # gzip may have several parts
        return part

    def _end(self) -> Message:
        if self._stream is not None:
            raise self._damaged("it ends too early")
        self._done = True
        return {"type": "http.request", "body": b"", "more_body": False}

    def _damaged(self, why: str) -> Problem:
        return Problem(
            400,
            "bad-request",
            f"the body is not valid {self._coding}, as its Content-Encoding says ({why}); send it"
            " again, or as it is",
        )
