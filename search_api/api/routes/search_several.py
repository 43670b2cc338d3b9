"""Search by several uploaded pictures: each on its own, or all as examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from starlette.concurrency import run_in_threadpool

from embed.pictures import PictureError
from index.contract import ModelChangedError
from index.ranking.recommend import Strategy
from search_api import schemas
from search_api.api.context import Context, Ctx
from search_api.api.errors import Problem
from search_api.api.intake.strict import StrictRoute
from search_api.api.openapi import problems
from search_api.api.params import ClassesParam, PageParam, check_examples, check_images
from search_api.api.queries import query_of_upload, search_pictures, shown_name
from search_api.api.responses import item_error, json_response
from search_api.service.recommend import ExampleSet
from search_api.service.results import SearchResult
from search_api.service.search import PictureQuery
from search_api.timings import Timings

router = APIRouter(prefix="/v1", tags=["search"], route_class=StrictRoute)


@router.post(
    "/search/batch",
    operation_id="search_batch",
    summary="Class and nearest neighbours of each of several uploaded pictures",
    response_model=schemas.BatchResponse,
    responses=problems(409, 413, 422, 429, 503),
)
async def search_batch(
    request: Request,
    context: Ctx,
    page: PageParam,
    classes: ClassesParam,
    images: Annotated[list[UploadFile], File(description="The pictures, in fields `images`.")],
) -> Response:
    """Searches by each picture. One that cannot be used gets an `error`; the others are unaffected.

    The parameters apply to all. To continue one of the searches, send its picture and its
    `next_cursor` to `/v1/search`. Example: `curl -F images=@cat.jpg -F images=@dog.png
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
            f"{len(images)} pictures with up to {per_picture} points each exceed {most} points in"
            " all; send fewer pictures or a smaller limit",
        )
    found: dict[int, SearchResult | schemas.ItemError] = {}
    good: list[tuple[int, PictureQuery]] = []
    for row, image in enumerate(images):
        try:
            good.append((row, await query_of_upload(context, image, page, classes)))
        except PictureError as error:
            found[row] = item_error(error)
    answers = await search_pictures(request.receive, context, [query for _, query in good])
    found.update(zip((row for row, _ in good), answers, strict=True))
    names = [shown_name(image) for image in images]
    return json_response(
        context.encoder.batch((name, found[row]) for row, name in enumerate(names))
    )


@router.post(
    "/recommend/images",
    operation_id="recommend_images",
    summary="Pictures similar to some examples and unlike others, uploaded or stored",
    response_model=schemas.Points,
    responses=problems(404, 409, 413, 415, 422, 429, 503),
)
async def recommend_images(
    request: Request,
    context: Ctx,
    page: PageParam,
    positive_images: Annotated[
        list[UploadFile], File(description="Uploaded positive examples.")
    ] = [],  # noqa: B006 - FastAPI copies it
    negative_images: Annotated[
        list[UploadFile], File(description="Uploaded negative examples.")
    ] = [],  # noqa: B006 - FastAPI copies it
    positive: Annotated[
        list[schemas.ImageId], Form(description="Ids of stored positive examples.")
    ] = [],  # noqa: B006 - FastAPI copies it
    negative: Annotated[
        list[schemas.ImageId], Form(description="Ids of stored negative examples.")
    ] = [],  # noqa: B006 - FastAPI copies it
    strategy: Annotated[
        Strategy, Form(description="How to combine the examples; see `/v1/recommend`.")
    ] = "average_vector",
) -> Response:
    """Ranks as `/v1/recommend` does, by uploaded and stored examples together.

    At least one positive example is required. Stored examples are not in the result. Uploaded ones
    are not stored; one that cannot be used is an error. Example: `curl -F positive_images=@cat.jpg
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
            422,
            "positive",
            "there is no positive example; send one in `positive_images` or `positive`",
        )
    timings = Timings()
    queries = [await _example(context, image) for image in (*positive_images, *negative_images)]
    while True:
        answers = await search_pictures(request.receive, context, queries)
        try:
            examples = _examples(answers, len(positive_images), positive, negative)
            result = await run_in_threadpool(
                context.engine.recommend, *examples, strategy, page, Timings()
            )
        except ModelChangedError:
            continue  # the service has switched models meanwhile
        break
    for answer in answers:
        timings.add("decode", answer.time["decode"] / 1000)
    if answers:
        # The last one waited longest: its times count for the request.
        for stage in ("queue", "forward"):
            timings.add(stage, answers[-1].time[stage] / 1000)
    time = {**timings.milliseconds(), **result.time, "total": timings.milliseconds()["total"]}
    context.metrics.observe_stages(result.time)
    return json_response(context.encoder.points(replace(result, time=time)))


async def _example(context: Context, image: UploadFile) -> PictureQuery:
    try:
        return await query_of_upload(context, image, None, None)
    except PictureError as error:
        raise PictureError(error.reason, f"{shown_name(image) or 'a picture'}: {error}") from error


def _examples(
    answers: Sequence[SearchResult],
    first: int,
    positive: Sequence[int],
    negative: Sequence[int],
) -> tuple[ExampleSet, ExampleSet]:
    """Positive and negative examples; the first ``first`` results are of positive ones."""
    vectors = [answer.vector for answer in answers if answer.vector is not None]
    digests = {answer.model for answer in answers}
    if len(digests) > 1:
        raise ModelChangedError("the pictures were embedded by different models")
    model = next(iter(digests), None)
    return (
        ExampleSet(tuple(positive), tuple(vectors[:first]), model),
        ExampleSet(tuple(negative), tuple(vectors[first:]), model),
    )
