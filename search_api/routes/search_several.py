"""Search by several uploaded pictures: each for itself, or all as examples of one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from starlette.concurrency import run_in_threadpool

from embed.pictures import PictureError
from index.catalogue import ModelChangedError
from index.ranking import Strategy
from search_api import schemas
from search_api.answering import PictureQuery
from search_api.asking import (
    answers_to,
    check_examples,
    check_images,
    decoded,
    in_json,
    item_error,
)
from search_api.context import Context, Ctx, problems
from search_api.errors import Problem
from search_api.pages import PageParams
from search_api.recommending import Examples
from search_api.results import SearchResult
from search_api.stages import Stages

router = APIRouter(prefix="/v1", tags=["search"])


@router.post(
    "/search/batch",
    operation_id="search_batch",
    summary="Class and nearest neighbours of each of several uploaded pictures",
    response_model=schemas.BatchResponse,
    responses=problems(413, 422, 429, 503),
)
async def search_batch(
    request: Request,
    context: Ctx,
    page: PageParams,
    images: Annotated[list[UploadFile], File(description="The pictures, in fields `images`.")],
) -> Response:
    """Searches by each picture; a bad one gets its own `error` and does not harm the others.

    All have the same parameters. To go on with one of them, send its picture and its `next_cursor`
    to `/v1/search`. Example: `curl -F images=@cat.jpg -F images=@dog.png
    'http://127.0.0.1:8000/v1/search/batch?limit=5'`
    """
    check_images(context.limits, len(images))
    if page.cursor is not None:
        raise Problem(
            422, "cursor", "a cursor belongs to one picture; send both to /v1/search instead"
        )
    per_picture = page.limit * (1 if page.group_by is None else page.group_size)
    most = context.limits.max_batch_points
    if len(images) * per_picture > most:
        raise Problem(
            422,
            "limit",
            f"{len(images)} pictures with up to {per_picture} points each are more than {most}"
            " points; send fewer pictures or a smaller limit",
        )
    found: dict[int, SearchResult | schemas.ItemError] = {}
    good: list[tuple[int, PictureQuery]] = []
    for row, image in enumerate(images):
        try:
            good.append((row, await decoded(context, image, page)))
        except PictureError as error:
            found[row] = item_error(error)
    answers = await answers_to(request.receive, context, [query for _, query in good])
    found.update(zip((row for row, _ in good), answers, strict=True))
    names = [image.filename for image in images]
    return in_json(context.writer.batch((name, found[row]) for row, name in enumerate(names)))


@router.post(
    "/recommend/images",
    operation_id="recommend_images",
    summary="Pictures like some examples and unlike others, uploaded or stored",
    response_model=schemas.Points,
    responses=problems(404, 409, 413, 415, 422, 429, 503),
)
async def recommend_images(
    request: Request,
    context: Ctx,
    page: PageParams,
    positive_images: Annotated[
        list[UploadFile], File(description="Pictures to look for, uploaded.")
    ] = [],  # noqa: B006 - FastAPI copies it
    negative_images: Annotated[
        list[UploadFile], File(description="Pictures to keep away from, uploaded.")
    ] = [],  # noqa: B006 - FastAPI copies it
    positive: Annotated[
        list[schemas.ImageId], Form(description="Ids of stored pictures to look for.")
    ] = [],  # noqa: B006 - FastAPI copies it
    negative: Annotated[
        list[schemas.ImageId], Form(description="Ids of stored pictures to keep away from.")
    ] = [],  # noqa: B006 - FastAPI copies it
    strategy: Annotated[
        Strategy, Form(description="How the examples make one ranking; see `/v1/recommend`.")
    ] = "average_vector",
) -> Response:
    """Ranks as `/v1/recommend` does, by uploaded and stored examples together.

    At least one positive example is needed. Stored examples are left out of the answer; uploaded
    ones are not stored, and a bad one is an error. Example: `curl -F positive_images=@cat.jpg
    -F negative=3 http://127.0.0.1:8000/v1/recommend/images`
    """
    check_images(context.limits, len(positive_images) + len(negative_images))
    for name, number in (
        ("positive", len(positive) + len(positive_images)),
        ("negative", len(negative) + len(negative_images)),
    ):
        check_examples(context.limits, name, number)
    if not (positive or positive_images):
        raise Problem(
            422, "positive", "no positive example; send one in `positive_images` or `positive`"
        )
    stages = Stages()
    queries = [await _example(context, image) for image in (*positive_images, *negative_images)]
    while True:
        answers = await answers_to(request.receive, context, queries)
        try:
            examples = _examples(answers, len(positive_images), positive, negative)
            result = await run_in_threadpool(
                context.engine.recommend, *examples, strategy, page, Stages()
            )
        except ModelChangedError:
            continue  # the service went over to another model meanwhile
        break
    for answer in answers:
        stages.add("decode", answer.time["decode"] / 1000)
    if answers:
        # The last one waited longest: its times are those of the request.
        for stage in ("queue", "forward"):
            stages.add(stage, answers[-1].time[stage] / 1000)
    time = {**stages.milliseconds(), **result.time, "total": stages.milliseconds()["total"]}
    context.metrics.observe_stages(result.time)
    return in_json(context.writer.points(replace(result, time=time)))


async def _example(context: Context, image: UploadFile) -> PictureQuery:
    try:
        return await decoded(context, image, None)
    except PictureError as error:
        raise PictureError(error.reason, f"{image.filename or 'a picture'}: {error}") from error


def _examples(
    answers: Sequence[SearchResult],
    first: int,
    positive: Sequence[int],
    negative: Sequence[int],
) -> tuple[Examples, Examples]:
    """Positive and negative examples; the first ``first`` answers are of positive pictures."""
    vectors = [answer.vector for answer in answers if answer.vector is not None]
    digests = {answer.model for answer in answers}
    if len(digests) > 1:
        raise ModelChangedError("the pictures were embedded by different models")
    model = next(iter(digests), None)
    return (
        Examples(tuple(positive), tuple(vectors[:first]), model),
        Examples(tuple(negative), tuple(vectors[first:]), model),
    )
