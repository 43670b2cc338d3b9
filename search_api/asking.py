"""What the routes that search share: uploads to queries, queries to answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from fastapi import Request, UploadFile
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from embed.pictures import PictureError
from search_api import schemas
from search_api.answering import PictureQuery
from search_api.context import Context
from search_api.errors import PICTURE_STATUS, Problem
from search_api.results import Page, SearchResult
from search_api.settings import Limits
from search_api.stages import Stages


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


def points_of(context: Context, result: SearchResult) -> schemas.Points:
    """The answer to a query that is not one uploaded picture."""
    context.metrics.observe_stages(result.time)
    return schemas.Points(**schemas.points(result, context.limits.max_cursor_chars))


async def decoded(context: Context, image: UploadFile, page: Page | None) -> PictureQuery:
    """A query from an upload.

    Raises:
        PictureError: it is not a usable picture.
    """
    stages = Stages()
    data = await read_upload(image, context.limits.picture.max_bytes)
    with stages("decode"):
        picture = await run_in_threadpool(context.engine.read, data)
    return PictureQuery(picture, page, stages)


async def answers_to(
    request: Request, context: Context, queries: Sequence[PictureQuery]
) -> list[SearchResult]:
    """The answers of the one thread that owns the model; none if the client has gone.

    Raises:
        QueueFullError: too much is waiting.
        ClientDisconnect: nobody waits for the answer any more; what was queued is dropped.
    """
    if not queries:
        return []
    for query in queries:
        query.stages.begin("queue")
    futures = context.batcher.submit(queries)
    answers = asyncio.gather(*map(asyncio.wrap_future, futures))
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((answers, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answers.done():
            answers.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answers
            raise ClientDisconnect
        results = answers.result()
    finally:
        gone.cancel()
    for result in results:
        context.metrics.observe_stages(result.time)
    return results


async def _disconnected(request: Request) -> None:
    """Returns when the client closes the connection; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


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
