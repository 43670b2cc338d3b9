"""What the routes that search share: uploads to queries, queries to answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from fastapi import Response, UploadFile
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from embed.pictures import Opened, PictureError
from index.catalogue import ModelChangedError
from search_api import schemas
from search_api.answering import PictureQuery
from search_api.batching import QueueFullError
from search_api.context import Context, stamp
from search_api.errors import PICTURE_STATUS, Problem
from search_api.results import Page, SearchResult
from search_api.settings import Limits
from search_api.stages import Stages

_PATIENCE_SECONDS = 0.1
_INLINE_BYTES = 16 * 2**10
_INLINE_PIXELS = 2**16


def check_images(limits: Limits, number: int) -> None:
    """Refuse too many pictures in one request.

    Raises:
        Problem: 413 naming the number and the limit.
    """
    if number > limits.max_images:
        raise Problem(
            413,
            "too-many-images",
            f"{number} pictures in one request; send at most {limits.max_images}",
        )


def check_examples(limits: Limits, name: str, number: int) -> None:
    """Refuse too many examples.

    Raises:
        Problem: 422 naming the field, the number and the limit.
    """
    if number > limits.max_examples:
        raise Problem(
            422, name, f"{name} has {number} examples; send at most {limits.max_examples}"
        )


def points_of(context: Context, result: SearchResult) -> Response:
    """The answer to a query that is not one uploaded picture; shape of `schemas.Points`."""
    context.metrics.observe_stages(result.time)
    return in_json(context.writer.points(result))


def stored(context: Context, image_id: int) -> bytes:
    """What is stored about a picture, as `schemas.StoredImage`. Raises UnknownIdError."""
    (entry,) = context.engine.entries.get([image_id])
    return context.writer.stored(entry, stamp(context))


def in_json(body: bytes) -> Response:
    """A response of JSON that is written already."""
    return Response(body, media_type="application/json")


async def decoded(context: Context, image: UploadFile, page: Page | None) -> PictureQuery:
    """A query from an upload.

    Raises:
        PictureError: it is not a usable picture.
    """
    stages = Stages()
    data = await read_upload(image, context.limits.picture.max_bytes)
    return await query_of(context, data, page, stages)


async def query_of(
    context: Context, data: bytes, page: Page | None, stages: Stages
) -> PictureQuery:
    """A query from an encoded picture.

    Raises:
        PictureError: it is not a usable picture.
    """
    engine = context.engine
    with stages("decode"):
        if len(data) > _INLINE_BYTES:
            picture = await run_in_threadpool(engine.read, data)
        else:
            opened = Opened(data, engine.limits)
            if opened.pixels > _INLINE_PIXELS:
                picture = await run_in_threadpool(engine.reduced, opened)
            else:
                # A small one is decoded in less time than a thread takes to begin.
                picture = engine.reduced(opened)
    return PictureQuery(picture, page, stages)


async def answers_to(
    receive: Receive, context: Context, queries: Sequence[PictureQuery]
) -> list[SearchResult]:
    """The answers of the threads that own the model; none if the client has gone.

    Args:
        receive: of the request, whose body was read.
        context: of the app.
        queries: what is asked.

    Raises:
        QueueFullError: too much is waiting.
        ClientDisconnect: nobody waits for the answer any more; what was queued is dropped.
    """
    if not queries:
        return []
    results = await _in_turn(receive, context, queries)
    for row, query in enumerate(queries):
        while query.page is not None and not query.page.plain:
            try:
                # Aside: it takes longer, and others wait for the next batch.
                results[row] = await run_in_threadpool(
                    context.engine.answering.finish, query, results[row]
                )
                break
            except ModelChangedError:
                # The service went over to another model meanwhile.
                (results[row],) = await _in_turn(receive, context, [query])
    for result in results:
        context.metrics.observe_stages(result.time)
    return results


async def _in_turn(
    receive: Receive, context: Context, queries: Sequence[PictureQuery]
) -> list[SearchResult]:
    for query in queries:
        query.stages.begin("queue")
    try:
        futures = context.batcher.submit(queries)
    except QueueFullError:
        context.metrics.queue_refused.inc()
        raise
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    left = len(futures)

    def one_done(_: object) -> None:
        nonlocal left
        left -= 1
        if not left and not over.done():
            over.set_result(True)

    def tell(done: object) -> None:
        # Called by a thread of the batcher; the loop is closed once the service has ended.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(one_done, done)

    for future in futures:
        future.add_done_callback(tell)
    watch: list[asyncio.Task[None]] = []
    # Most answers come sooner than a client goes, and watching for that costs more than waiting.
    later = loop.call_later(
        _PATIENCE_SECONDS, lambda: watch.append(loop.create_task(_gone(receive, over)))
    )
    try:
        answered = await over
    finally:
        later.cancel()
        for task in watch:
            task.cancel()
        for future in futures:
            future.cancel()  # nothing happens to one that is done
    if not answered:
        raise ClientDisconnect
    return [future.result() for future in futures]


async def _gone(receive: Receive, over: asyncio.Future[bool]) -> None:
    """Gives up when the client closes the connection; the body was read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
    if not over.done():
        over.set_result(False)


async def read_upload(image: UploadFile, max_bytes: int) -> bytes:
    """An upload's bytes, one more than the limit at most; decoding refuses what is over."""
    if image.size is not None and image.size > max_bytes:
        raise PictureError(
            "too-large",
            f"{image.filename or 'the picture'} has {image.size:,} bytes, more than the limit of"
            f" {max_bytes:,}; send a smaller file",
        )
    return await image.read(max_bytes + 1)


def item_error(error: PictureError) -> schemas.ItemError:
    """Why one of several pictures cannot be used."""
    status = PICTURE_STATUS[error.reason]
    return schemas.ItemError(
        type=f"urn:lookalike:problem:{error.reason}",
        title=error.reason,
        status=status,
        detail=str(error),
    )
