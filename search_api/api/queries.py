"""From uploads to queries, and from queries to results, in batches shared between requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from fastapi import UploadFile
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from embed.pictures import RGB, Opened, PictureError
from index.contract import ModelChangedError
from search_api.api.context import Context
from search_api.schemas import Classes
from search_api.service.batching import QueueFullError
from search_api.service.engine import SearchEngine
from search_api.service.page import Page
from search_api.service.results import SearchResult
from search_api.service.search import PictureQuery
from search_api.text import shortened
from search_api.timings import Timings

_PATIENCE_SECONDS = 0.1
INLINE_BYTES = 16 * 2**10
_INLINE_PIXELS = 2**16


async def query_of_upload(
    context: Context, image: UploadFile, page: Page | None, classes: Classes | None
) -> PictureQuery:
    """The query of an upload.

    Raises:
        PictureError: it is not a usable picture.
    """
    timings = Timings()
    data = await read_upload(image, context.limits.picture.max_bytes)
    return await query_of(context, data, page, timings, classes)


async def query_of(
    context: Context,
    data: bytes,
    page: Page | None,
    timings: Timings,
    classes: Classes | None = "auto",
) -> PictureQuery:
    """The query of an encoded picture.

    Raises:
        PictureError: it is not a usable picture.
    """
    engine = context.engine
    with timings("decode"):
        if len(data) > INLINE_BYTES:
            picture = await run_in_threadpool(engine.read, data)
        else:
            opened = Opened(data, engine.limits)
            if _is_small(opened):
                picture = engine.reduced(opened)
            else:
                picture = await run_in_threadpool(engine.reduced, opened)
    return PictureQuery(picture, page, timings, classes)


def small_picture(engine: SearchEngine, data: bytes) -> RGB | None:
    """A picture of at most ``INLINE_BYTES``, fitted; None if it is better decoded elsewhere.

    Raises:
        PictureError: it is not a usable picture.
    """
    opened = Opened(data, engine.limits)
    return engine.reduced(opened) if _is_small(opened) else None


def _is_small(opened: Opened) -> bool:
    """Whether it is decoded in less time than a thread takes to start."""
    return opened.in_process and opened.pixels <= _INLINE_PIXELS


async def search_pictures(
    receive: Receive, context: Context, queries: Sequence[PictureQuery]
) -> list[SearchResult]:
    """The results of queries, computed by the threads that own the model.

    Args:
        receive: of the request; its body has been read.
        context: of the app.
        queries: the queries of one request.

    Raises:
        QueueFullError: too many pictures are waiting.
        ClientDisconnect: the client is gone; its queued pictures are dropped.
    """
    if not queries:
        return []
    for where in {query.page.filter for query in queries if query.page is not None}:
        if where is not None:
            # So that no batch waits for a filter: it finds these matches in the cache.
            await run_in_threadpool(context.engine.store.selections.matching, where)
    results = await _batched(receive, context, queries)
    for row, query in enumerate(queries):
        while query.page is not None and not query.page.plain:
            try:
                # In a thread: it takes longer, and other requests wait for the next batch.
                results[row] = await run_in_threadpool(
                    context.engine.searches.complete, query, results[row]
                )
                break
            except ModelChangedError:
                # The service has switched models meanwhile.
                (results[row],) = await _batched(receive, context, [query])
    for result in results:
        context.metrics.observe_stages(result.time)
    return results


async def _batched(
    receive: Receive, context: Context, queries: Sequence[PictureQuery]
) -> list[SearchResult]:
    for query in queries:
        query.timings.begin("queue")
    try:
        futures = context.batcher.submit(queries)
    except QueueFullError:
        context.metrics.queue_refused.inc()
        raise
    loop = asyncio.get_running_loop()
    completed = loop.create_future()
    left = len(futures)

    def one_done(_: object) -> None:
        nonlocal left
        left -= 1
        if not left and not completed.done():
            completed.set_result(True)

    def notify(done: object) -> None:
        # Called by a thread of the batcher, possibly after the loop has been closed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(one_done, done)

    for future in futures:
        future.add_done_callback(notify)
    watch: list[asyncio.Task[None]] = []
    # Most results arrive before a client would disconnect; watching for that is not free.
    later = loop.call_later(
        _PATIENCE_SECONDS, lambda: watch.append(loop.create_task(_watch(receive, completed)))
    )
    try:
        answered = await completed
    finally:
        later.cancel()
        for task in watch:
            task.cancel()
        for future in futures:
            future.cancel()  # has no effect on a finished one
    if not answered:
        raise ClientDisconnect
    return [future.result() for future in futures]


async def _watch(receive: Receive, completed: asyncio.Future[bool]) -> None:
    """Complete with False when the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    if not completed.done():
        completed.set_result(False)


def shown_name(image: UploadFile) -> str | None:
    """The file name of an upload, as answers repeat it."""
    return None if image.filename is None else shortened(image.filename)


async def read_upload(image: UploadFile, max_bytes: int) -> bytes:
    """An upload's bytes, at most one more than the limit; decoding refuses more than that."""
    if image.size is not None and image.size > max_bytes:
        raise PictureError(
            "too-large",
            f"{shown_name(image) or 'the picture'} has {image.size:,} bytes, more than the limit of"
            f" {max_bytes:,}; send a smaller file",
        )
    return await image.read(max_bytes + 1)
