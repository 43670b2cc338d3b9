"""The index as a whole: its description, rebuilding and compaction."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from search_api import schemas
from search_api.api import responses
from search_api.api.context import Context, Ctx
from search_api.api.intake.strict import StrictRoute
from search_api.api.openapi import problems
from search_api.jobs.tasks import Task

router = APIRouter(prefix="/v1", tags=["index"], route_class=StrictRoute)


@router.get(
    "/index",
    operation_id="index_info",
    summary="Describe the index",
    responses=problems(503),
)
def index_info(context: Ctx) -> schemas.IndexInfo:
    """Returns its size, kind, dimension, model, generation and labels, and the limits of the API.

    Example: `curl http://127.0.0.1:8000/v1/index`
    """
    limits = context.limits
    summary = context.engine.summary()
    # The name of a folder of pictures is its path.
    summary["corpus"] = context.public(summary["corpus"])
    return schemas.IndexInfo(
        **summary,
        watch=_watch(context),
        limits=schemas.LimitsInfo(
            max_upload_bytes=limits.picture.max_bytes,
            max_pixels=limits.picture.max_pixels,
            max_images=limits.max_images,
            max_limit=limits.max_limit,
            max_offset=limits.max_offset,
            max_examples=limits.max_examples,
            max_candidates=limits.max_candidates,
        ),
        storage={
            name: schemas.StorageAmount(used=amount.used, limit=amount.limit)
            for name, amount in context.engine.storage.amounts().items()
        },
    )


@router.post(
    "/index/rebuild",
    operation_id="rebuild_index",
    status_code=202,
    summary="Bring the index up to date with the corpus",
    responses=problems(409, 507),
)
def rebuild_index(
    context: Ctx,
    response: Response,
    reembed: Annotated[
        bool, Query(description="Embed all pictures again, including unchanged ones.")
    ] = False,
    allow_removal: Annotated[
        bool,
        Query(
            description="Remove pictures that are gone from the corpus even if they are more than a"
            " tenth of it, or all."
        ),
    ] = False,
) -> schemas.Job:
    """Starts a job and returns at once. The old index serves searches until the new one is ready.

    New pictures, and those whose file has changed, are embedded; moved ones keep their ids; those
    no longer in the corpus are removed, and those that cannot be looked at stay. A job that would
    remove more than a tenth of the pictures, or all, fails and removes nothing, unless
    `allow_removal` is true.

    Example: `curl -X POST http://127.0.0.1:8000/v1/index/rebuild`
    """
    job = context.tasks.start(Task("rebuild", reembed=reembed, allow_removal=allow_removal))
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return responses.job(context, job)


@router.post(
    "/index/compact",
    operation_id="compact_index",
    status_code=202,
    summary="Build a new index that includes all changes",
    responses=problems(409, 422, 507),
)
def compact_index(
    context: Ctx,
    response: Response,
    kind: Annotated[
        str | None,
        Query(
            max_length=200,
            description="Kind of index from now on: `auto`, `exact`, `ivf`, `hnsw`, `rabitq` or a"
            " FAISS factory string.",
        ),
    ] = None,
) -> schemas.Job:
    """Starts a job that builds a new index from the catalogue, without reading the corpus.

    The service does this by itself once enough has changed. A `kind` is kept once it was built.

    Example: `curl -X POST http://127.0.0.1:8000/v1/index/compact`
    """
    engine = context.engine
    if kind is not None:
        engine.builder.check_kind(kind, engine.encoder)
    job = context.tasks.start(Task("compact", index=kind or ""))
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return responses.job(context, job)


def _watch(context: Context) -> schemas.WatchInfo | None:
    if context.watching is None:
        return None
    summary = context.watching.summary()
    if summary["problem"] is not None:
        summary["problem"] = context.public(summary["problem"])
    return schemas.WatchInfo(**summary)
