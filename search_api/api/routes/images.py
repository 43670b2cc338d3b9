"""Stored pictures: list, metadata, files and examples."""

from __future__ import annotations

import hashlib
import random
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from PIL import Image as Pillow
from PIL import ImageOps

from embed.corpus import CorpusError
from embed.pictures import RGB, PictureError, encode_jpeg, encode_png, turn
from index.conditions import Filter
from index.contract import BlobError
from index.filters import check_key, parse_filter
from index.sorting import OrderBy
from search_api import schemas
from search_api.api.context import Context, Ctx, stamp
from search_api.api.errors import Problem
from search_api.api.intake.strict import StrictRoute
from search_api.api.middleware.headers import FILE_POLICY
from search_api.api.openapi import problems
from search_api.api.params import AfterId, FilterParam, ImageId, ListLimit
from search_api.api.responses import image, json_response, stored_image
from search_api.service.cursors import ListCursor, parse_list_cursor
from search_api.service.page import Page, check_cursor_length, check_limit, fingerprint
from search_api.text import shortened

router = APIRouter(prefix="/v1/images", tags=["images"], route_class=StrictRoute)


@router.get(
    "/examples",
    operation_id="examples",
    summary="Example pictures to search with",
    responses=problems(422),
)
def examples(
    context: Ctx,
    per_class: Annotated[int, Query(ge=1, description="Pictures of each label, 1 to 10.")] = 1,
) -> schemas.Examples:
    """A random choice of pictures of each label, from the test split if there is one.

    Returns at most 48 pictures by default.

    Example: `curl 'http://127.0.0.1:8000/v1/images/examples?per_class=2'`
    """
    _check("per_class", per_class, context.limits.max_per_class)
    catalogue = context.engine.catalogue
    most = context.limits.max_sample
    splits = catalogue.split_counts()
    chosen: list[int] = []
    for label in catalogue.label_counts() or [None]:
        must = []
        if label is not None:
            must.append({"key": "label", "match": {"value": label}})
        if "test" in splits:
            must.append({"key": "split", "match": {"value": "test"}})
        ids = catalogue.ids(parse_filter({"must": must})).tolist()
        chosen += random.sample(ids, min(per_class, len(ids)))
        if len(chosen) >= most:
            break
    return schemas.Examples(
        points=[image(e) for e in catalogue.get(chosen[:most])], **stamp(context)
    )


@router.get("", operation_id="list_images", summary="List stored pictures", responses=problems(422))
def list_images(
    context: Ctx,
    where: FilterParam,
    limit: ListLimit = 100,
    after: AfterId = -1,
    order_by: Annotated[
        str | None,
        Query(description="Payload field, or label, split, source or id, to sort by."),
    ] = None,
    direction: Annotated[
        Literal["asc", "desc"] | None,
        Query(description="With `order_by`: smallest first (`asc`, the default), or largest."),
    ] = None,
    cursor: Annotated[
        str | None,
        Query(description="With `order_by`: `next_cursor` of the previous page."),
    ] = None,
) -> schemas.Images:
    """Lists pictures by ascending id, so that pages stay stable while pictures come and go.

    With `order_by`, sorted by a field: numbers, then dates (RFC 3339) as instants, then texts
    whatever their case, then booleans; pictures without the field come last in both directions,
    and equal ones are sorted by id. Continue with `cursor` instead of `after`: a picture whose
    field stays as it is appears exactly once, whatever is added and deleted in between.

    Example: `curl 'http://127.0.0.1:8000/v1/images?limit=10&order_by=exif.taken&direction=desc'`
    """
    check_limit(limit, context.limits)
    catalogue = context.engine.catalogue
    if order_by is not None:
        order = OrderBy(check_key(order_by, "order_by"), direction == "desc")
        return _sorted(context, where, limit, order, after, cursor)
    for name, given in (("direction", direction), ("cursor", cursor)):
        if given is not None:
            shown = shortened(given)
            raise Problem(422, name, f"{name} is {shown!r} without order_by; send both or neither")
    # One more than requested tells whether there is a next page.
    entries = catalogue.page(after, limit + 1, where)
    return schemas.Images(
        points=[image(entry) for entry in entries[:limit]],
        total=catalogue.count(where),
        next_after=entries[limit - 1].id if len(entries) > limit else None,
        **stamp(context),
    )


def _sorted(
    context: Context,
    where: Filter | None,
    limit: int,
    order: OrderBy,
    after: int,
    cursor: str | None,
) -> schemas.Images:
    if after != -1:
        raise Problem(
            422, "after", f"after is {after} with order_by; continue with `cursor` instead"
        )
    request = fingerprint(("list", order), Page(filter=where))
    position = None
    if cursor is not None:
        check_cursor_length(cursor, context.limits)
        resumed = parse_list_cursor(cursor)
        resumed.check(request)
        position = resumed.position
    catalogue = context.engine.catalogue
    found = catalogue.sorted_page(order, limit + 1, where, position)
    more = len(found) > limit
    return schemas.Images(
        points=[image(one.entry) for one in found[:limit]],
        total=catalogue.count(where),
        next_after=None,
        next_cursor=ListCursor(found[limit - 1].position, request).text() if more else None,
        **stamp(context),
    )


@router.get(
    "/{image_id}",
    operation_id="get_image",
    summary="Metadata of a picture",
    response_model=schemas.StoredImage,
    responses=problems(404, 422),
)
def get_image(context: Ctx, image_id: ImageId) -> Response:
    """Returns a picture's label, split, source and the rest of its payload.

    Example: `curl http://127.0.0.1:8000/v1/images/123`
    """
    return json_response(stored_image(context, image_id))


@router.get(
    "/{image_id}/file",
    operation_id="get_image_file",
    summary="The picture file",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}, "image/jpeg": {}}, "description": "The picture."},
        304: {"description": "The picture still has the `ETag` that was sent."},
        **problems(404, 422),
    },
)
def get_image_file(
    context: Ctx,
    request: Request,
    image_id: ImageId,
    size: Annotated[
        int | None,
        Query(ge=16, description="Scale down to this longest side, in pixels, 16 to 4096."),
    ] = None,
) -> Response:
    """Returns the picture re-encoded: as PNG up to 256 pixels per side, otherwise as JPEG.

    A JPEG of more pixels than the limit (`max_pixels` in `/v1/index`) is shown at a half or less.

    Can be cached with validation: the `ETag` changes with the picture.

    Example: `curl -o 123.png http://127.0.0.1:8000/v1/images/123/file`
    """
    if size is not None:
        _check("size", size, context.limits.max_side)
    entry = context.engine.entries.get([image_id])[0]
    with turn():  # many large pictures at once must not fill the memory
        try:
            rgb = context.engine.picture(entry, at_least=size)
        except (CorpusError, PictureError, BlobError) as error:
            raise Problem(
                404,
                "file-gone",
                f"the file of picture {image_id} can no longer be read ({error});"
                " rebuild the index to remove it",
            ) from error
        data, media_type = _encoded(rgb, size)
        del rgb
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {
        "ETag": etag,
        # Another corpus may be served under the same ids later, so clients must revalidate.
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": FILE_POLICY,
    }
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)


def _encoded(rgb: RGB, size: int | None) -> tuple[bytes, str]:
    """A picture, scaled down to ``size``, as a file and its media type."""
    if size is not None and max(rgb.shape[:2]) > size:
        fitted = ImageOps.contain(Pillow.fromarray(rgb, "RGB"), (size, size))
        rgb = np.array(fitted, dtype=np.uint8)
    if max(rgb.shape[:2]) <= 256:
        return encode_png(rgb), "image/png"
    return encode_jpeg(rgb), "image/jpeg"


def _check(name: str, value: int, most: int) -> None:
    if value > most:
        raise Problem(422, name, f"{name} is {value}; expected at most {most}")
