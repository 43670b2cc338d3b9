"""Searches in their usual form, answered without a framework.

Where the whole request has arrived at once, asks for nothing unusual and carries a small picture,
no task, middleware or ASGI message is needed between the parser of HTTP and the batcher. The checks
are those of the middleware, called as functions. Whatever they refuse, and whatever else is not
usual, goes the ordinary way: the request's cycle has kept its body, so nothing is lost by trying.
The answer is the same, to the byte, but for its times.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from embed.pictures import DecodersBusyError, PictureError
from search_api.api.context import Context
from search_api.api.errors import Problem
from search_api.api.fast_path import SEARCH, picture_of, simple_page
from search_api.api.middleware.auth import AuthMiddleware
from search_api.api.middleware.body_limit import ByteBudget
from search_api.api.middleware.headers import SECURITY
from search_api.api.middleware.request_log import RequestLog, request_id_of
from search_api.api.middleware.site import SiteMiddleware
from search_api.api.queries import INLINE_BYTES, small_picture
from search_api.keys import Access
from search_api.service.batching import QueueFullError
from search_api.service.results import SearchResult
from search_api.service.search import PictureQuery
from search_api.timings import Timings

_HEAD = b"HTTP/1.1 200 OK\r\n"
_SECURITY = b"content-type: application/json\r\n" + b"".join(
    b"%b: %b\r\n" % header for header in SECURITY
)
_UNUSUAL = frozenset(
    (b"content-encoding", b"transfer-encoding", b"expect", b"upgrade", b"forwarded")
)
_MOST_BYTES = INLINE_BYTES + 2**10


class Direct:
    """Answers ``POST /v1/search`` of small pictures; only the thread of the event loop uses it."""

    def __init__(
        self,
        context: Context,
        access: Access,
        log: RequestLog,
        budget: ByteBudget,
    ) -> None:
        self.context = context
        self.log = log
        self.budget = budget
        self._site = SiteMiddleware(_unused, access).check
        self._auth = AuthMiddleware(_unused, access).check
        self._cross_origin = bool(access.origins)
        self._proxied = bool(access.proxies)
        self._done: deque[tuple[Exchange, SearchResult | BaseException]] = deque()
        self._notified = False

    def may_answer(self, cycle: RequestResponseCycle) -> bool:
        """Whether the head of a request is that of a usual search."""
        scope = cycle.scope
        if scope["path"] != SEARCH.path or scope["method"] != "POST":
            return False
        if not cycle.keep_alive or cycle.flow.write_paused or self.context.draining.is_set():
            return False
        for name, _ in scope["headers"]:
            if name in _UNUSUAL:
                return False
            if name == b"origin" and self._cross_origin:
                return False
            if self._proxied and name.startswith(b"x-forwarded-"):
                return False
        return True

    def begin(self, cycle: RequestResponseCycle, resume: Callable[[], None]) -> Exchange | None:
        """Begin to answer a request whose body is there as a whole.

        Args:
            cycle: of a request that `may_answer` has accepted.
            resume: called if it has to be answered in the ordinary way after all.

        Returns:
            The exchange that is under way; None if it has to be answered in the ordinary way.
        """
        started = time.perf_counter()
        data = self._picture(cycle)
        if data is None:
            return None
        scope: Any = cycle.scope
        page = simple_page(scope["query_string"], self.context.limits.max_limit)
        if page is None or not self._allowed(scope, len(cycle.body)):
            return None
        timings = Timings()
        try:
            with timings("decode"):
                picture = small_picture(self.context.engine, data)
        except (PictureError, DecodersBusyError):
            return None
        if picture is None:
            return None
        exchange = Exchange(self, cycle, resume, started, len(cycle.body))
        timings.begin("queue")
        try:
            self.context.batcher.submit_to(PictureQuery(picture, page, timings), exchange)
        except QueueFullError:
            return None
        self.budget.used += exchange.size
        self.log.begin()
        return exchange

    def _picture(self, cycle: RequestResponseCycle) -> bytes | None:
        """The picture of a form or body that is small enough; None for any other."""
        kind = b""
        length = b""
        for name, value in cycle.scope["headers"]:
            if name == b"content-type":
                kind = value
            elif name == b"content-length":
                length = value
        size = len(cycle.body)
        if not size or size > _MOST_BYTES or length != b"%d" % size:
            return None
        data = picture_of(kind, bytes(cycle.body))
        limit = min(self.context.limits.picture.max_bytes, INLINE_BYTES)
        return data if data is not None and len(data) <= limit else None

    def _allowed(self, scope: Scope, size: int) -> bool:
        """Whether the middleware would pass it on."""
        limits = self.context.limits
        if not self.context.engine.ready or self.log.full:
            return False
        if size > min(limits.max_body_bytes, self.budget.most) or self.budget.exceeded_by(size):
            return False
        try:
            self._site(scope)
            self._auth(scope)
        except Problem:
            return False
        return True

    def put(self, exchange: Exchange, outcome: SearchResult | BaseException) -> None:
        """Hand an outcome to the event loop; called by the batcher's threads."""
        self._done.append((exchange, outcome))
        # The loop resets this before it takes the first: what is appended from then on is seen.
        if not self._notified:
            self._notified = True
            try:
                exchange.loop.call_soon_threadsafe(self._take)
            except RuntimeError:  # the loop is closed
                self._done.clear()

    def _take(self) -> None:
        self._notified = False
        while self._done:
            exchange, outcome = self._done.popleft()
            exchange.finish(outcome)


async def _unused(scope: Scope, receive: Receive, send: Send) -> None:
    """In place of an app: only the checks of the middleware are used."""


class Exchange:
    """One request that is being answered; a `search_api.service.batching.Slot`."""

    def __init__(
        self,
        direct: Direct,
        cycle: RequestResponseCycle,
        resume: Callable[[], None],
        started: float,
        size: int,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.size = size
        self._direct = direct
        self._cycle = cycle
        self._resume = resume
        self._started = started
        self._over = False

    def set_running_or_notify_cancel(self) -> bool:
        """Whether the picture is still wanted."""
        return not self._over

    def set_result(self, result: SearchResult) -> None:
        """Called by a thread of the batcher."""
        self._direct.put(self, result)

    def set_exception(self, error: BaseException) -> None:
        """Called by a thread of the batcher."""
        self._direct.put(self, error)

    def cancel(self) -> None:
        """The client has closed the connection: a picture that waits is dropped."""
        if not self._over:
            self._end()
            self._note(499, 0)

    def finish(self, outcome: SearchResult | BaseException) -> None:
        """Send the answer, or leave it to the ordinary way, which says what is wrong."""
        if self._over:
            return
        self._end()
        if isinstance(outcome, BaseException):
            self._direct.log.end()
            self._resume()
            return
        context = self._direct.context
        context.metrics.observe_stages(outcome.time)
        self._send(context.encoder.search(outcome))

    def _end(self) -> None:
        self._over = True
        self._direct.budget.used -= self.size

    def _send(self, body: bytes) -> None:
        cycle = self._cycle
        if cycle.disconnected or cycle.transport.is_closing():
            self._note(499, 0)
            return
        if self._direct.context.draining.is_set():
            cycle.keep_alive = False
        parts = [_HEAD]
        parts += [b"%b: %b\r\n" % header for header in cycle.default_headers]
        parts.append(b"content-length: %d\r\n" % len(body))
        parts.append(_SECURITY)
        request_id = request_id_of(cycle.scope["headers"])
        parts.append(b"x-request-id: %b\r\n" % request_id.encode())
        parts.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        parts.append(body)
        cycle.response_started = cycle.response_complete = True
        cycle.transport.write(b"".join(parts))
        self._note(200, len(body), request_id)
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()

    def _note(self, status: int, sent: int, request_id: str = "") -> None:
        scope: Any = self._cycle.scope
        scope["route"] = SEARCH
        log = self._direct.log
        log.end()
        seconds = time.perf_counter() - self._started
        log.note(
            scope, request_id or request_id_of(scope["headers"]), status, seconds, self.size, sent
        )
