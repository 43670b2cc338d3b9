"""The two routes that are asked most, answered without the framework's machinery around them.

FastAPI's own handling of one upload costs about as much time as the network. What is asked in the
usual form is answered here, by the same functions and in the same bytes; all else, and whatever
cannot be read here, goes on to the route unchanged and is answered or refused there.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search_api.asking import answers_to, query_of, stored
from search_api.context import Context, stamp_of
from search_api.results import Page
from search_api.stages import Stages

MOST_BYTES = 2**20
"""Larger bodies go to the route, which spools them to the disk."""

_LIMIT = re.compile(rb"limit=([0-9]{1,5})")
_MULTIPART = re.compile(rb'multipart/form-data; ?boundary="?([A-Za-z0-9\'()+_,./:=?-]{1,70})"?')
_IMAGE = re.compile(rb"image/[a-z0-9.+-]+", re.IGNORECASE)
_HEAD = re.compile(
    rb'Content-Disposition: form-data; name="image"; filename="[^"\\\r\n]+"'
    rb"(?:\r\nContent-(?:Type|Length): [^\r\n]+)*",
    re.IGNORECASE,
)
_IMAGES = "/v1/images/"
_LONGEST_ID = 18


class _Named(NamedTuple):
    """A route's template, as the record of requests looks for it."""

    path: str


_SEARCH, _IMAGE_ROUTE = _Named("/v1/search"), _Named("/v1/images/{image_id}")


class Shortcuts:
    """Answers ``POST /v1/search`` and ``GET /v1/images/{id}``; passes on the rest."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self.app = app
        self.context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path == _SEARCH.path and scope["method"] == "POST":
                await self._search(scope, receive, send)
                return
            if path.startswith(_IMAGES) and scope["method"] == "GET":
                number = path[len(_IMAGES) :]
                if len(number) <= _LONGEST_ID and number.isascii() and number.isdecimal():
                    scope["route"] = _IMAGE_ROUTE
                    await _answer(await self._image(int(number)), send)
                    return
        await self.app(scope, receive, send)

    async def _image(self, image_id: int) -> bytes:
        engine = self.context.engine
        entry, state = engine.entries.known(image_id), engine.served.at_hand()
        if entry is None or state is None:
            return await run_in_threadpool(stored, self.context, image_id)
        return self.context.writer.stored(entry, stamp_of(state))

    async def _search(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = simple_page(scope["query_string"], self.context.limits.max_limit)
        length = kind = b""
        for name, value in scope["headers"]:
            if name == b"content-length":
                length = value
            elif name == b"content-type":
                kind = value
        form = _MULTIPART.fullmatch(kind)
        known = form is not None or _IMAGE.fullmatch(kind) is not None
        small = length.isdigit() and int(length) <= MOST_BYTES
        if page is None or not known or not small:
            await self.app(scope, receive, send)
            return
        stages = Stages()
        body = await _whole(receive)
        data = body if form is None else picture_in(body, form[1])
        if data is None or len(data) > self.context.limits.picture.max_bytes:
            await self.app(scope, _again(body, receive), send)
            return
        scope["route"] = _SEARCH
        query = await query_of(self.context, data, page, stages)
        (result,) = await answers_to(receive, self.context, [query])
        await _answer(self.context.writer.search(result), send)


def simple_page(query: bytes, max_limit: int) -> Page | None:
    """The page that a query string asks for by nothing or a good ``limit`` alone, else None."""
    limit = Page.limit
    if query:
        found = _LIMIT.fullmatch(query)
        if found is None:
            return None
        limit = int(found[1])
    return Page(limit) if 1 <= limit <= max_limit else None


def picture_in(body: bytes, boundary: bytes) -> bytes | None:
    """The file in a form of the one field ``image``; None for any other body.

    A form as curl, browsers and clients in Python write it; RFC 7578.
    """
    start = b"--" + boundary + b"\r\n"
    end = b"\r\n--" + boundary + b"--"
    if not body.startswith(start):
        return None
    head = body.find(b"\r\n\r\n", len(start))
    stop = body.find(b"\r\n--" + boundary, head)
    if head < 0 or stop < head + 4 or body[stop:].removesuffix(b"\r\n") != end:
        return None
    if _HEAD.fullmatch(body, len(start), head) is None:
        return None
    return body[head + 4 : stop]


async def _whole(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """``receive`` as if ``body`` had not been read yet."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return left.pop() if left else await receive()

    return received


async def _answer(body: bytes, send: Send) -> None:
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
