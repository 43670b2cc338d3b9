"""Adding, changing and deleting pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, UploadFile

from embed.pictures import PictureError
from index.contract import KEEP, Change
from index.filters import parse_filter
from index.records import Payload
from search_api import schemas
from search_api.api.context import Context, Ctx, stamp
from search_api.api.errors import Problem
from search_api.api.intake.strict import StrictRoute
from search_api.api.openapi import problems
from search_api.api.params import ImageId, check_images
from search_api.api.queries import shown_name
from search_api.api.responses import image, item_error
from search_api.api.routes.trash import iso
from search_api.schemas import Added, AddResponse, ChangeRequest, DeletedResponse, DeleteRequest
from search_api.service.ingest import KeyExistsError, Stored, Upload
from search_api.text import parsed_json, shortened

_FIXED = ("label", "split")
router = APIRouter(prefix="/v1/images", tags=["write"], route_class=StrictRoute)


@router.post(
    "",
    operation_id="add_images",
    status_code=201,
    summary="Add pictures",
    responses=problems(409, 413, 422, 503, 507),
)
def add_images(
    context: Ctx,
    images: Annotated[list[UploadFile], File(description="The pictures, in fields `images`.")],
    key: Annotated[
        list[str],
        Form(
            description="Your own name for each picture. One that is stored already names the same"
            " picture: see `replace`."
        ),
    ] = [],  # noqa: B006 - FastAPI copies it
    payload: Annotated[
        list[str],
        Form(description="A JSON object to store with each, or one for all: `label`, `split`, …"),
    ] = [],  # noqa: B006 - FastAPI copies it
    replace: Annotated[
        bool,
        Form(
            description="Replace the picture where a `key` is stored with other content. Without"
            " this, it gets an `error` with the status 409, and the stored picture stays as it is."
        ),
    ] = False,
) -> AddResponse:
    """Stores and embeds pictures. One that cannot be used gets an `error`; the rest are unaffected.

    When this returns, the pictures are on disk and in the next search. A picture that is stored
    already under its key, with the same content or with `replace`, keeps its id, and whatever
    `payload` does not give it: `payload` is merged into the stored one. `status` says what became
    of each. 422 if none can be used, 409 if that is because their keys are in use.

    Example: `curl -F images=@cat.jpg -F key=cat-1 -F 'payload={"label": "cat"}'
    http://127.0.0.1:8000/v1/images`
    """
    limits = context.limits
    check_images(limits, len(images))
    items = _uploads(images, key, payload, limits.picture.max_bytes)
    stored = context.engine.ingest.add(items, replace=replace)
    results = [
        _added(shown_name(image), item.key, result)
        for image, item, result in zip(images, items, stored, strict=True)
    ]
    if not any(isinstance(result, Stored) for result in stored):
        raise _none_stored(results)
    context.compaction.check()
    return AddResponse(results=results, **stamp(context))


@router.patch(
    "/{image_id}",
    operation_id="change_image",
    summary="Change the label, split or payload of a picture",
    responses=problems(404, 422, 503, 507),
)
def change_image(context: Ctx, image_id: ImageId, request: ChangeRequest) -> schemas.StoredImage:
    """Merges `payload` into the stored one, or replaces it with `replace`.

    A label or split set this way survives rebuilds. Example: `curl -X PATCH
    -H 'content-type: application/json' -d '{"payload": {"label": "cat", "seen": true}}'
    http://127.0.0.1:8000/v1/images/123`
    """
    context.engine.ingest.update(
        image_id, **_change(request.payload), replace_payload=request.replace
    )
    (entry,) = context.engine.catalogue.get([image_id])
    return schemas.StoredImage(**image(entry).model_dump(), **stamp(context))


@router.delete(
    "/{image_id}",
    operation_id="delete_image",
    summary="Delete a picture",
    responses=problems(404, 422, 503),
)
def delete_image(context: Ctx, image_id: ImageId) -> DeletedResponse:
    """No search finds it any longer; it stays in the trash for a while: see `restorable_until`.

    A rebuild does not bring back a picture of the corpus; its file in the corpus is not touched.

    Example: `curl -X DELETE http://127.0.0.1:8000/v1/images/123`
    """
    context.engine.ingest.delete(image_id)
    return _deleted(context, 1)


@router.post(
    "/delete",
    operation_id="delete_images",
    summary="Delete pictures by ids or by a filter",
    responses=problems(422, 503),
)
def delete_images(context: Ctx, request: DeleteRequest) -> DeletedResponse:
    """Deletes `ids`, ignoring unknown ones, or all that match `filter`, to the trash; all or none.

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
    if where is not None and where.empty:
        raise Problem(
            422, "delete", "the filter is empty and would delete everything; add a condition"
        )
    return _deleted(context, context.engine.ingest.delete_many(request.ids, where))


def _deleted(context: Context, number: int) -> DeletedResponse:
    context.engine.trash.settle()
    context.compaction.check()
    until = context.engine.trash.expiry(time.time()) if number else None
    return DeletedResponse(
        deleted=number, restorable_until=None if until is None else iso(until), **stamp(context)
    )


def _added(
    filename: str | None, key: str | None, result: Stored | PictureError | KeyExistsError
) -> Added:
    if isinstance(result, Stored):
        return Added(filename=filename, key=key, id=result, status=result.status)
    existing = result.id if isinstance(result, KeyExistsError) else None
    return Added(filename=filename, key=key, existing=existing, error=item_error(result))


def _none_stored(results: Sequence[Added]) -> Problem:
    """The problem that none of several pictures was stored."""
    errors = [result.error for result in results if result.error is not None]
    in_use = all(error.status == 409 for error in errors)
    return Problem(
        errors[0].status if len(errors) == 1 or in_use else 422,
        "key-exists" if in_use else "no-usable-image",
        f"none of the pictures {'was stored' if in_use else 'can be used'}: "
        + "; ".join(f"{r.filename}: {r.error.detail}" for r in results[:10] if r.error),
        errors=[error.model_dump() for error in errors],
    )


def _uploads(
    images: Sequence[UploadFile], keys: Sequence[str], payloads: Sequence[str], max_bytes: int
) -> list[Upload]:
    """Each picture with its key and payload.

    Raises:
        Problem: 422 if the numbers do not match, or a payload is not a JSON object.
    """
    if keys and len(keys) != len(images):
        raise Problem(
            422,
            "key",
            f"{len(keys)} keys for {len(images)} pictures; send one `key` for each, or none",
        )
    if len(set(keys)) != len(keys):
        raise Problem(422, "key", "a key occurs more than once; send each key once")
    if any(not key or len(key) > 1000 for key in keys):
        raise Problem(422, "key", "a key is empty or too long; expected 1 to 1000 characters")
    if len(payloads) not in (0, 1, len(images)):
        raise Problem(
            422,
            "payload",
            f"{len(payloads)} payloads for {len(images)} pictures; send one for all, one for each"
            " or none",
        )
    parsed = [_object(text) for text in payloads] or [{}]
    if len(parsed) == 1:
        parsed *= len(images)
    return [
        Upload(
            # One byte more than the limit, so that decoding refuses it with the right message.
            image.file.read(max_bytes + 1),
            keys[row] if keys else None,
            _given(parsed[row], "label"),
            _given(parsed[row], "split"),
            {name: value for name, value in parsed[row].items() if name not in _FIXED},
            image.filename,
        )
        for row, image in enumerate(images)
    ]


def _change(payload: dict[str, Any] | None) -> dict[str, Any]:
    """A change of `payload` as arguments of `Ingest.update`: label and split are separate there."""
    if payload is None:
        return {}
    _refuse_source(payload)
    fixed = {name: _given(payload, name) for name in _FIXED}
    rest: Payload = {name: value for name, value in payload.items() if name not in _FIXED}
    return {**fixed, "payload": rest}


def _object(text: str) -> dict[str, Any]:
    try:
        value = parsed_json(text)
    except ValueError as error:
        raise Problem(422, "payload", f"payload is not JSON ({error}); send an object") from error
    if not isinstance(value, dict):
        raise Problem(422, "payload", f"payload is {shortened(text)}; expected a JSON object")
    _refuse_source(value)
    return value


def _refuse_source(payload: dict[str, Any]) -> None:
    if "source" in payload:
        raise Problem(
            422,
            "payload",
            "payload has `source`, which the service sets; use `key` or leave it out",
        )


def _given(payload: dict[str, Any], name: str) -> Change:
    """A text of the payload, None to clear it, or KEEP if it is not in there."""
    return _text(payload, name) if name in payload else KEEP


def _text(payload: dict[str, Any], name: str) -> str | None:
    value = payload.get(name)
    if value is not None and not isinstance(value, str):
        raise Problem(
            422, "payload", f"payload.{name} is {shortened(repr(value))}; expected text or null"
        )
    return value
