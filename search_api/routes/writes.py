"""Adding, changing and deleting pictures. Every route here writes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Form, Path, UploadFile

from embed.pictures import PictureError
from index.filters import parse_filter
from search_api import schemas
from search_api.context import Ctx, problems, stamp
from search_api.errors import PICTURE_STATUS, Problem
from search_api.routes.images import stored_image
from search_api.schemas_writes import (
    Added,
    AddResponse,
    ChangeRequest,
    DeletedResponse,
    DeleteRequest,
)
from search_api.writing import change, fold_if_due, uploads

router = APIRouter(prefix="/v1/images", tags=["write"])

ImageId = Annotated[int, Path(ge=0, le=2**63 - 1, description="The picture's id.")]


@router.post(
    "",
    operation_id="add_images",
    status_code=201,
    summary="Add pictures",
    responses=problems(413, 422, 503),
)
def add_images(
    context: Ctx,
    images: Annotated[list[UploadFile], File(description="The pictures, in fields `images`.")],
    key: Annotated[
        list[str],
        Form(description="Your own name for each; adding a key again replaces its picture."),
    ] = [],  # noqa: B006 - FastAPI copies it
    payload: Annotated[
        list[str],
        Form(description="A JSON object to store with each, or one with all: `label`, `split`, …"),
    ] = [],  # noqa: B006 - FastAPI copies it
) -> AddResponse:
    """Stores and embeds pictures; a bad one gets its own `error` and does not harm the others.

    Once answered, the pictures are on the disk and in the next search. 422 if none can be used.

    Example: `curl -F images=@cat.jpg -F key=cat-1 -F 'payload={"label": "cat"}'
    http://127.0.0.1:8000/v1/images`
    """
    limits = context.limits
    if len(images) > limits.max_images:
        raise Problem(
            413,
            "too-many-images",
            f"{len(images)} pictures in one request; send at most {limits.max_images}",
        )
    items = uploads(images, key, payload, limits.picture.max_bytes)
    stored = context.engine.writer.add(items)
    results = [
        _added(image.filename, item.key, result)
        for image, item, result in zip(images, items, stored, strict=True)
    ]
    if not any(isinstance(result, int) for result in stored):
        errors = [r.error.model_dump() for r in results if r.error is not None]
        raise Problem(
            results[0].error.status if len(results) == 1 and results[0].error else 422,
            "no-usable-image",
            "none of the pictures can be used: "
            + "; ".join(f"{r.filename}: {r.error.detail}" for r in results[:10] if r.error),
            errors=errors,
        )
    fold_if_due(context)
    return AddResponse(results=results, **stamp(context))


@router.patch(
    "/{image_id}",
    operation_id="change_image",
    summary="Change a picture's label, split or payload",
    responses=problems(404, 422, 503),
)
def change_image(context: Ctx, image_id: ImageId, request: ChangeRequest) -> schemas.StoredImage:
    """Merges `payload` into what is stored, or puts it in its place with `replace`.

    A label or split set so stays when the index is rebuilt. Example: `curl -X PATCH
    -H 'content-type: application/json' -d '{"payload": {"label": "cat", "seen": true}}'
    http://127.0.0.1:8000/v1/images/123`
    """
    context.engine.writer.update(
        image_id, **change(request.payload), replace_payload=request.replace
    )
    return stored_image(context, context.engine.catalogue.get([image_id])[0])


@router.delete(
    "/{image_id}",
    operation_id="delete_image",
    summary="Delete a picture",
    responses=problems(404, 422, 503),
)
def delete_image(context: Ctx, image_id: ImageId) -> DeletedResponse:
    """Takes the picture out of the index and of the record, at once and for good.

    A picture of the corpus is not brought back by a rebuild; its file in the corpus is left alone.

    Example: `curl -X DELETE http://127.0.0.1:8000/v1/images/123`
    """
    context.engine.writer.delete(image_id)
    fold_if_due(context)
    return DeletedResponse(deleted=1, **stamp(context))


@router.post(
    "/delete",
    operation_id="delete_images",
    summary="Delete pictures by their ids or by a filter",
    responses=problems(422, 503),
)
def delete_images(context: Ctx, request: DeleteRequest) -> DeletedResponse:
    """Deletes `ids`, of which unknown ones are ignored, or all that match `filter`; all or none.

    Example: `curl -H 'content-type: application/json' -d '{"filter": {"must": [{"key": "label",
    "match": {"value": "cat"}}]}}' http://127.0.0.1:8000/v1/images/delete`
    """
    if (request.ids is None) == (request.filter is None):
        raise Problem(422, "delete", "expected either `ids` or `filter`, and not both")
    most = context.limits.max_delete_ids
    if request.ids is not None and len(request.ids) > most:
        raise Problem(
            422, "delete", f"{len(request.ids):,} ids in one request; send at most {most:,}"
        )
    where = None
    if request.filter is not None:
        where = parse_filter(request.filter, context.limits.filter_bounds)
    if where is not None and not (where.must or where.should or where.must_not):
        raise Problem(
            422, "delete", "the filter is empty and would delete everything; give a condition"
        )
    deleted = context.engine.writer.delete_many(request.ids, where)
    fold_if_due(context)
    return DeletedResponse(deleted=deleted, **stamp(context))


def _added(filename: str | None, key: str | None, result: int | PictureError) -> Added:
    if isinstance(result, int):
        return Added(filename=filename, key=key, id=result)
    error = schemas.ItemError(
        type=f"urn:lookalike:problem:{result.reason}",
        title=result.reason,
        status=PICTURE_STATUS[result.reason],
        detail=str(result),
    )
    return Added(filename=filename, key=key, error=error)
