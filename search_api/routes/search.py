"""Search by picture, classify, recommend."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, File, Path, Request, UploadFile
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from embed.pictures import PictureError
from index.filters import parse_filter
from search_api import schemas
from search_api.context import Context, Ctx, PageParams, make_page, problems
from search_api.engine import PictureQuery
from search_api.errors import PICTURE_STATUS, Problem
from search_api.results import SearchResult
from search_api.stages import Stages

router = APIRouter(prefix="/v1", tags=["search"])


@router.post(
    "/search",
    operation_id="search",
    summary="Class and nearest neighbours of an uploaded picture",
    responses=problems(413, 415, 422, 429, 503),
)
async def search(
    request: Request,
    context: Ctx,
    page: PageParams,
    image: Annotated[
        UploadFile, File(description="The picture: JPEG, PNG, WebP, GIF, BMP or TIFF.")
    ],
) -> schemas.SearchResponse:
    """Classifies the picture and finds what is most similar to it in the index.

    Example: `curl -F image=@cat.jpg 'http://127.0.0.1:8000/v1/search?limit=5'`

    The picture is not stored. `vote` is what the ten nearest neighbours (under the filter) say.
    """
    stages = Stages()
    data = await _read(image, context.limits.picture.max_bytes)
    with stages("decode"):
        picture = await run_in_threadpool(context.engine.read, data)
    (result,) = await _answers(request, context, [PictureQuery(picture, page, stages)])
    assert result.prediction is not None
    return schemas.SearchResponse(
        prediction=schemas.Prediction.of(result.prediction), **schemas.points(result)
    )


@router.post(
    "/classify",
    operation_id="classify",
    summary="Classes of one or several pictures",
    responses=problems(413, 422, 429),
)
async def classify(
    request: Request,
    context: Ctx,
    images: Annotated[list[UploadFile], File(description="The pictures, in fields `images`.")],
) -> schemas.ClassifyResponse:
    """Classifies each picture; a bad one gets its own `error` and does not harm the others.

    Example: `curl -F images=@cat.jpg -F images=@dog.png http://127.0.0.1:8000/v1/classify`
    """
    if len(images) > context.limits.max_images:
        raise Problem(
            413,
            "too-many-images",
            f"{len(images)} pictures in one request; send at most {context.limits.max_images}",
        )
    stages = Stages()
    results = [schemas.Classified(filename=image.filename) for image in images]
    good: list[tuple[int, PictureQuery]] = []
    for row, image in enumerate(images):
        try:
            data = await _read(image, context.limits.picture.max_bytes)
            with stages("decode"):
                picture = await run_in_threadpool(context.engine.read, data)
            good.append((row, PictureQuery(picture, None)))
        except PictureError as error:
            results[row].error = _item_error(error)
    answers = await _answers(request, context, [query for _, query in good])
    for (row, _), answer in zip(good, answers, strict=True):
        assert answer.prediction is not None
        results[row].prediction = schemas.Prediction.of(answer.prediction)
    if answers:
        # The last one waited longest: its times are those of the request.
        for stage in ("queue", "forward"):
            stages.add(stage, answers[-1].time[stage] / 1000)
    return schemas.ClassifyResponse(
        results=results, model=context.engine.encoder.digest, time=stages.milliseconds()
    )


@router.post(
    "/recommend",
    operation_id="recommend",
    summary="Pictures like some examples and unlike others",
    responses=problems(404, 422, 503),
)
def recommend(context: Ctx, request: schemas.RecommendRequest) -> schemas.Points:
    """Finds pictures near the positive and away from the negative examples, by their ids.

    `average_vector` searches by the mean of the positive plus its difference to the mean of the
    negative examples; `best_score` ranks each picture by its best similarity to one positive
    example, and below all others what is nearer to a negative one. The examples are left out.

    Example: `curl -H 'content-type: application/json' -d '{"positive": [1, 2], "negative": [3]}'
    http://127.0.0.1:8000/v1/recommend`
    """
    where = None if request.filter is None else parse_filter(request.filter)
    page = make_page(context.limits, request.limit, request.offset, request.score_threshold, where)
    result = context.engine.recommend(request.positive, request.negative, request.strategy, page)
    return _points(context, result)


@router.get(
    "/images/{image_id}/similar",
    operation_id="similar",
    summary="Nearest neighbours of a stored picture",
    responses=problems(404, 422, 503),
)
def similar(
    context: Ctx,
    page: PageParams,
    image_id: Annotated[int, Path(ge=0, le=2**63 - 1, description="The picture's id.")],
) -> schemas.Points:
    """More like this one: the picture itself is left out.

    Example: `curl 'http://127.0.0.1:8000/v1/images/123/similar?limit=5'`
    """
    return _points(context, context.engine.similar(image_id, page))


def _points(context: Ctx, result: SearchResult) -> schemas.Points:
    context.metrics.observe_stages(result.time)
    return schemas.Points(**schemas.points(result))


async def _answers(
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


async def _read(image: UploadFile, max_bytes: int) -> bytes:
    """An upload's bytes, one more than the limit at most; decoding refuses what is over."""
    if image.size is not None and image.size > max_bytes:
        raise PictureError(
            "too-large",
            f"{image.filename or 'the picture'} has {image.size:,} bytes, more than the limit of"
            f" {max_bytes:,}; send a smaller file",
        )
    return await image.read(max_bytes + 1)


def _item_error(error: PictureError) -> schemas.ItemError:
    status = PICTURE_STATUS[error.reason]
    return schemas.ItemError(
        type=f"urn:lookalike:problem:{error.reason}",
        title=error.reason,
        status=status,
        detail=str(error),
    )
