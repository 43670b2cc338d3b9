"""Stored pictures: metadata, the picture itself, listing, examples."""

from __future__ import annotations

import hashlib
import random
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response
from PIL import Image as Pillow
from PIL import ImageOps

from embed.corpus import CorpusError
from embed.pictures import PictureError, encode_jpeg, encode_png
from index.blobs import BlobError
from index.catalogue import Entry
from index.filters import parse_filter
from search_api import schemas
from search_api.asking import in_json, stored
from search_api.context import Context, Ctx, FilterParam, problems, stamp
from search_api.errors import Problem
from search_api.pages import check_limit

router = APIRouter(prefix="/v1/images", tags=["images"])

ImageId = Annotated[int, Path(ge=0, le=2**63 - 1, description="The picture's id.")]


@router.get(
    "/examples",
    operation_id="examples",
    summary="Stored pictures to try a search with",
    responses=problems(422),
)
def examples(
    context: Ctx,
    per_class: Annotated[int, Query(ge=1, description="Pictures of each label, 1 to 10.")] = 1,
) -> schemas.Examples:
    """A few pictures of each label, from the test split where there is one, other ones each time.

    At most 48 in all, if the service is not set up otherwise.

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
        points=[_image(e) for e in catalogue.get(chosen[:most])], **stamp(context)
    )


@router.get(
    "", operation_id="list_images", summary="Stored pictures, page by page", responses=problems(422)
)
def list_images(
    context: Ctx,
    where: FilterParam,
    limit: Annotated[int, Query(ge=1, description="Most pictures to return, 1 to 1000.")] = 100,
    after: Annotated[
        int, Query(ge=-1, le=2**63 - 1, description="Return ids above this one.")
    ] = -1,
) -> schemas.Images:
    """Lists by ascending id, so that a page stays the same while others are added or deleted.

    Example: `curl 'http://127.0.0.1:8000/v1/images?limit=10&after=123'`
    """
    check_limit(context.limits, limit)
    catalogue = context.engine.catalogue
    # One more than asked for tells whether there is a next page.
    entries = catalogue.page(after, limit + 1, where)
    return schemas.Images(
        points=[_image(entry) for entry in entries[:limit]],
        total=catalogue.count(where),
        next_after=entries[limit - 1].id if len(entries) > limit else None,
        **stamp(context),
    )


@router.get(
    "/{image_id}",
    operation_id="get_image",
    summary="What is stored about a picture",
    response_model=schemas.StoredImage,
    responses=problems(404, 422),
)
def get_image(context: Ctx, image_id: ImageId) -> Response:
    """Metadata by id: label, split, source and the rest of the payload.

    Example: `curl http://127.0.0.1:8000/v1/images/123`
    """
    return in_json(stored(context, image_id))


@router.get(
    "/{image_id}/file",
    operation_id="get_image_file",
    summary="The picture itself",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}, "image/jpeg": {}}, "description": "The picture."},
        304: {"description": "Not changed since the `ETag` that was sent."},
        **problems(404, 422),
    },
)
def get_image_file(
    context: Ctx,
    request: Request,
    image_id: ImageId,
    size: Annotated[
        int | None,
        Query(ge=16, description="Longest side to scale down to, pixels, 16 to 4096."),
    ] = None,
) -> Response:
    """The picture, encoded anew: PNG up to 256 pixels a side, else JPEG.

    Cacheable with validation: the `ETag` changes with the picture.

    Example: `curl -o 123.png http://127.0.0.1:8000/v1/images/123/file`
    """
    if size is not None:
        _check("size", size, context.limits.max_side)
    entry = context.engine.entries.get([image_id])[0]
    try:
        rgb = context.engine.picture(entry, at_least=size)
    except (CorpusError, PictureError, BlobError) as error:
        raise Problem(
            404,
            "file-gone",
            f"the file of picture {image_id} cannot be read any more ({error});"
            " rebuild the index to drop it",
        ) from error
    if size is not None and max(rgb.shape[:2]) > size:
        fitted = ImageOps.contain(Pillow.fromarray(rgb, "RGB"), (size, size))
        rgb = np.array(fitted, dtype=np.uint8)
    if max(rgb.shape[:2]) <= 256:
        data, media_type = encode_png(rgb), "image/png"
    else:
        data, media_type = encode_jpeg(rgb), "image/jpeg"
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {
        "ETag": etag,
        # Another corpus may be served under the same ids later, so ask before reuse.
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)


def stored_image(context: Context, entry: Entry) -> schemas.StoredImage:
    """An entry as an answer of its own."""
    return schemas.StoredImage(**_image(entry).model_dump(), **stamp(context))


def _image(entry: Entry) -> schemas.Image:
    payload = schemas.payload(entry.label, entry.split, entry.source, dict(entry.payload))
    return schemas.image(entry.id, payload)


def _check(name: str, value: int, most: int) -> None:
    if value > most:
        raise Problem(422, name, f"{name} is {value}; expected at most {most}")
