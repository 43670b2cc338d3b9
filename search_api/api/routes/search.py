"""Search by picture, classification, recommendation by stored examples."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Query, Request, Response, UploadFile

from embed.pictures import PictureError
from index.filters import parse_filter
from index.ranking.vote import VOTERS
from search_api import schemas
from search_api.api.context import Ctx, stamp
from search_api.api.intake.strict import StrictRoute
from search_api.api.openapi import problems
from search_api.api.params import (
    ClassesParam,
    ImageId,
    PageParam,
    check_examples,
    check_images,
)
from search_api.api.queries import query_of, read_upload, search_pictures, shown_name
from search_api.api.responses import (
    item_error,
    json_response,
    points_response,
    prediction,
    predictions,
)
from search_api.service.labelling.tagging import tags_of
from search_api.service.page import Page, make_page
from search_api.service.recommend import ExampleSet
from search_api.service.search import PictureQuery
from search_api.timings import Timings

router = APIRouter(prefix="/v1", tags=["search"], route_class=StrictRoute)


@router.post(
    "/search",
    operation_id="search",
    summary="Class and nearest neighbours of an uploaded picture",
    response_model=schemas.SearchResponse,
    responses=problems(409, 413, 415, 422, 429, 503),
)
async def search(
    request: Request,
    context: Ctx,
    page: PageParam,
    classes: ClassesParam,
    image: Annotated[
        UploadFile,
        File(
            description="The picture: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF, JPEG 2000, ICO"
            " or PNM."
        ),
    ],
) -> Response:
    """Classifies the picture and finds the most similar ones in the index.

    Example: `curl -F image=@cat.jpg 'http://127.0.0.1:8000/v1/search?limit=5'`, or with the picture
    as the body: `curl -H 'content-type: image/jpeg' --data-binary @cat.jpg
    http://127.0.0.1:8000/v1/search`

    `prediction` is by the store's classifier or the model's own classes; its `class` is null where
    the picture is unlike everything stored. `vote` is the most frequent label among its ten nearest
    neighbours, under the filter. The picture is not stored.
    """
    timings = Timings()
    data = await read_upload(image, context.limits.picture.max_bytes)
    query = await query_of(context, data, page, timings, classes)
    (result,) = await search_pictures(request.receive, context, [query])
    return json_response(context.encoder.search(result))


@router.post(
    "/classify",
    operation_id="classify",
    summary="Classes of one or more pictures",
    responses=problems(409, 413, 422, 429),
)
async def classify(
    request: Request,
    context: Ctx,
    classes: ClassesParam,
    images: Annotated[list[UploadFile], File(description="The pictures, in fields `images`.")],
    tags: Annotated[
        bool, Query(description="Also return tags, by vote of the nearest pictures.")
    ] = False,
) -> schemas.ClassifyResponse:
    """Classifies each picture. One that cannot be used gets an `error`; the others are unaffected.

    Example: `curl -F images=@cat.jpg -F images=@dog.png http://127.0.0.1:8000/v1/classify`
    """
    check_images(context.limits, len(images))
    timings = Timings()
    voters = Page(VOTERS) if tags else None
    results = [schemas.Classified(filename=shown_name(image)) for image in images]
    good: list[tuple[int, PictureQuery]] = []
    for row, image in enumerate(images):
        try:
            data = await read_upload(image, context.limits.picture.max_bytes)
            good.append((row, await query_of(context, data, voters, Timings(), classes)))
        except PictureError as error:
            results[row].error = item_error(error)
    answers = await search_pictures(request.receive, context, [query for _, query in good])
    for (row, _), answer in zip(good, answers, strict=True):
        results[row].prediction = prediction(answer.prediction)
        results[row].predictions = predictions(answer.predictions)
        results[row].tags = dict(tags_of(answer.points)) if tags else {}
        timings.add("decode", answer.time["decode"] / 1000)
    if answers:
        # The last one waited longest: its times count for the request.
        for stage in ("queue", "forward", "search", "payload"):
            timings.add(stage, answers[-1].time.get(stage, 0.0) / 1000)
    stamped = (
        {"model": answers[-1].model, "generation": answers[-1].generation}
        if answers
        else stamp(context)
    )
    return schemas.ClassifyResponse(
        results=results,
        model=stamped["model"],
        generation=stamped["generation"],
        time=timings.milliseconds(),
    )


@router.post(
    "/recommend",
    operation_id="recommend",
    summary="Pictures similar to some examples and unlike others",
    response_model=schemas.Points,
    responses=problems(404, 422, 503),
)
def recommend(context: Ctx, request: schemas.RecommendRequest) -> Response:
    """Finds pictures close to the positive and far from the negative examples, given by their ids.

    `average_vector` searches by the mean of the positive examples plus its difference from the mean
    of the negative ones. `best_score` ranks each picture by its highest similarity to a positive
    example; pictures closer to a negative example come last. Examples are not in the result.

    Example: `curl -H 'content-type: application/json' -d '{"positive": [1, 2], "negative": [3]}'
    http://127.0.0.1:8000/v1/recommend`
    """
    for name, ids in (("positive", request.positive), ("negative", request.negative)):
        check_examples(context.limits, name, len(ids))
    where = (
        None
        if request.filter is None
        else parse_filter(request.filter, context.limits.filter_bounds)
    )
    page = make_page(request, context.limits, where)
    result = context.engine.recommend(
        ExampleSet(tuple(request.positive)),
        ExampleSet(tuple(request.negative)),
        request.strategy,
        page,
    )
    return points_response(context, result)


@router.get(
    "/images/{image_id}/similar",
    operation_id="similar",
    summary="Nearest neighbours of a stored picture",
    response_model=schemas.Points,
    responses=problems(404, 422, 503),
)
def similar(
    context: Ctx,
    page: PageParam,
    image_id: ImageId,
) -> Response:
    """Finds the most similar pictures; the picture itself is not in the result.

    Example: `curl 'http://127.0.0.1:8000/v1/images/123/similar?limit=5'`
    """
    return points_response(context, context.engine.similar(image_id, page))
