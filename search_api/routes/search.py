"""Search by picture, classify, recommend."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Path, UploadFile

from embed.pictures import RGB, PictureError, decode
from index.filters import parse_filter
from search_api import schemas
from search_api.context import Ctx, PageParams, make_page, problems
from search_api.errors import PICTURE_STATUS, Problem
from search_api.results import SearchResult
from search_api.stages import Stages

router = APIRouter(prefix="/v1", tags=["search"])


@router.post(
    "/search",
    operation_id="search",
    summary="Class and nearest neighbours of an uploaded picture",
    responses=problems(413, 415, 422, 503),
)
def search(
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
    data = _read(image, context.limits.picture.max_bytes)
    result = context.engine.search(data, page)
    context.metrics.observe_stages(result.time)
    assert result.prediction is not None
    return schemas.SearchResponse(
        prediction=schemas.Prediction.of(result.prediction), **schemas.points(result)
    )


@router.post(
    "/classify",
    operation_id="classify",
    summary="Classes of one or several pictures",
    responses=problems(413, 422),
)
def classify(
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
    results: list[schemas.Classified] = []
    good: list[tuple[int, RGB]] = []
    with stages("decode"):
        for row, image in enumerate(images):
            results.append(schemas.Classified(filename=image.filename))
            try:
                picture = decode(
                    _read(image, context.limits.picture.max_bytes),
                    context.limits.picture,
                    at_least=context.engine.encoder.input_size,
                )
                # Reduced at once, so that many large pictures do not fill the memory.
                good.append((row, context.engine.encoder.fit(picture)))
            except PictureError as error:
                results[row].error = _item_error(error)
    with stages("encode"):
        predictions = context.engine.classify([picture for _, picture in good])
    for (row, _), prediction in zip(good, predictions, strict=True):
        results[row].prediction = schemas.Prediction.of(prediction)
    time = stages.milliseconds()
    context.metrics.observe_stages(time)
    return schemas.ClassifyResponse(results=results, model=context.engine.encoder.digest, time=time)


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


def _read(image: UploadFile, max_bytes: int) -> bytes:
    """An upload's bytes, one more than the limit at most; ``decode`` refuses what is over."""
    if image.size is not None and image.size > max_bytes:
        raise PictureError(
            "too-large",
            f"{image.filename or 'the picture'} has {image.size:,} bytes, more than the limit of"
            f" {max_bytes:,}; send a smaller file",
        )
    return image.file.read(max_bytes + 1)


def _item_error(error: PictureError) -> schemas.ItemError:
    status = PICTURE_STATUS[error.reason]
    return schemas.ItemError(
        type=f"urn:lookalike:problem:{error.reason}",
        title=error.reason,
        status=status,
        detail=str(error),
    )
