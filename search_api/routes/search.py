"""Search by picture, classify, recommend by stored examples."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Path, Query, Request, Response, UploadFile

from embed.pictures import PictureError
from index.filters import parse_filter
from search_api import schemas
from search_api.answering import PictureQuery
from search_api.asking import (
    answers_to,
    check_examples,
    in_json,
    item_error,
    points_of,
    query_of,
    read_upload,
)
from search_api.context import Ctx, problems, stamp
from search_api.errors import Problem, missing
from search_api.pages import PageParams, make_page
from search_api.recommending import Examples
from search_api.results import Page
from search_api.stages import Stages
from search_api.tagging import VOTERS, tags_of

_PICTURE = {"schema": {"type": "string", "format": "binary", "description": "The picture."}}
router = APIRouter(prefix="/v1", tags=["search"])


@router.post(
    "/search",
    operation_id="search",
    summary="Class and nearest neighbours of an uploaded picture",
    response_model=schemas.SearchResponse,
    openapi_extra={"requestBody": {"required": True, "content": {"image/*": _PICTURE}}},
    responses=problems(413, 415, 422, 429, 503),
)
async def search(
    request: Request,
    context: Ctx,
    page: PageParams,
    image: Annotated[
        UploadFile | None, File(description="The picture: JPEG, PNG, WebP, GIF, BMP or TIFF.")
    ] = None,
) -> Response:
    """Classifies the picture and finds what is most similar to it in the index.

    Example: `curl -F image=@cat.jpg 'http://127.0.0.1:8000/v1/search?limit=5'`, or the picture
    alone as the body: `curl -H 'content-type: image/jpeg' --data-binary @cat.jpg
    http://127.0.0.1:8000/v1/search`

    The picture is not stored. `vote` is what the ten nearest neighbours (under the filter) say.
    """
    stages = Stages()
    if image is not None:
        data = await read_upload(image, context.limits.picture.max_bytes)
    elif request.headers.get("content-type", "").lower().startswith("image/"):
        data = await request.body()
    else:
        raise missing("image")
    query = await query_of(context, data, page, stages)
    (result,) = await answers_to(request.receive, context, [query])
    return in_json(context.writer.search(result))


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
    tags: Annotated[
        bool, Query(description="Have the nearest pictures vote on tags, too.")
    ] = False,
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
    voters = Page(VOTERS) if tags else None
    results = [schemas.Classified(filename=image.filename) for image in images]
    good: list[tuple[int, PictureQuery]] = []
    for row, image in enumerate(images):
        try:
            data = await read_upload(image, context.limits.picture.max_bytes)
            good.append((row, await query_of(context, data, voters, Stages())))
        except PictureError as error:
            results[row].error = item_error(error)
    answers = await answers_to(request.receive, context, [query for _, query in good])
    for (row, _), answer in zip(good, answers, strict=True):
        assert answer.prediction is not None
        results[row].prediction = schemas.Prediction.of(answer.prediction)
        results[row].tags = dict(tags_of(answer.points)) if tags else {}
        stages.add("decode", answer.time["decode"] / 1000)
    if answers:
        # The last one waited longest: its times are those of the request.
        for stage in ("queue", "forward", "search", "payload"):
            stages.add(stage, answers[-1].time.get(stage, 0.0) / 1000)
    answered = (
        {"model": answers[-1].model, "generation": answers[-1].generation}
        if answers
        else stamp(context)
    )
    return schemas.ClassifyResponse(
        results=results,
        model=answered["model"],
        generation=answered["generation"],
        time=stages.milliseconds(),
    )


@router.post(
    "/recommend",
    operation_id="recommend",
    summary="Pictures like some examples and unlike others",
    response_model=schemas.Points,
    responses=problems(404, 422, 503),
)
def recommend(context: Ctx, request: schemas.RecommendRequest) -> Response:
    """Finds pictures near the positive and away from the negative examples, by their ids.

    `average_vector` searches by the mean of the positive plus its difference to the mean of the
    negative examples; `best_score` ranks each picture by its best similarity to one positive
    example, and below all others what is nearer to a negative one. The examples are left out.

    Example: `curl -H 'content-type: application/json' -d '{"positive": [1, 2], "negative": [3]}'
    http://127.0.0.1:8000/v1/recommend`
    """
    for name, ids in (("positive", request.positive), ("negative", request.negative)):
        check_examples(context.limits, name, len(ids))
    page = make_page(
        context.limits,
        request.limit,
        request.offset,
        request.score_threshold,
        None
        if request.filter is None
        else parse_filter(request.filter, context.limits.filter_bounds),
        request.diversity,
        request.candidates,
        request.group_by,
        request.group_size,
        request.cursor,
    )
    result = context.engine.recommend(
        Examples(tuple(request.positive)),
        Examples(tuple(request.negative)),
        request.strategy,
        page,
    )
    return points_of(context, result)


@router.get(
    "/images/{image_id}/similar",
    operation_id="similar",
    summary="Nearest neighbours of a stored picture",
    response_model=schemas.Points,
    responses=problems(404, 422, 503),
)
def similar(
    context: Ctx,
    page: PageParams,
    image_id: Annotated[int, Path(ge=0, le=2**63 - 1, description="The picture's id.")],
) -> Response:
    """More like this one: the picture itself is left out.

    Example: `curl 'http://127.0.0.1:8000/v1/images/123/similar?limit=5'`
    """
    return points_of(context, context.engine.similar(image_id, page))
