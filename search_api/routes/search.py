"""Search by picture, classify, recommend by stored examples."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Path, Request, UploadFile
from starlette.concurrency import run_in_threadpool

from embed.pictures import PictureError
from index.filters import parse_filter
from search_api import schemas
from search_api.answering import PictureQuery
from search_api.asking import answers_to, check_examples, item_error, points_of, read_upload
from search_api.context import Ctx, problems, stamp
from search_api.errors import Problem
from search_api.pages import PageParams, make_page
from search_api.recommending import Examples
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
    data = await read_upload(image, context.limits.picture.max_bytes)
    with stages("decode"):
        picture = await run_in_threadpool(context.engine.read, data)
    (result,) = await answers_to(request, context, [PictureQuery(picture, page, stages)])
    assert result.prediction is not None
    return schemas.SearchResponse(
        prediction=schemas.Prediction.of(result.prediction),
        **schemas.points(result, context.limits.max_cursor_chars),
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
            data = await read_upload(image, context.limits.picture.max_bytes)
            with stages("decode"):
                picture = await run_in_threadpool(context.engine.read, data)
            good.append((row, PictureQuery(picture, None)))
        except PictureError as error:
            results[row].error = item_error(error)
    answers = await answers_to(request, context, [query for _, query in good])
    for (row, _), answer in zip(good, answers, strict=True):
        assert answer.prediction is not None
        results[row].prediction = schemas.Prediction.of(answer.prediction)
    if answers:
        # The last one waited longest: its times are those of the request.
        for stage in ("queue", "forward"):
            stages.add(stage, answers[-1].time[stage] / 1000)
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
    for name, ids in (("positive", request.positive), ("negative", request.negative)):
        check_examples(context.limits, name, len(ids))
    page = make_page(
        context.limits,
        request.limit,
        request.offset,
        request.score_threshold,
        None if request.filter is None else parse_filter(request.filter),
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
    return points_of(context, context.engine.similar(image_id, page))
