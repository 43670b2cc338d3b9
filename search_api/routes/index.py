"""The index as a whole: what it holds, and rebuilding it."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response

from search_api import schemas
from search_api.context import Ctx, problems
from search_api.tasks import Task
from search_api.writing import start_compaction

router = APIRouter(prefix="/v1", tags=["index"])


@router.get(
    "/index",
    operation_id="index_info",
    summary="What is indexed, and by which model",
    responses=problems(503),
)
def index_info(context: Ctx) -> schemas.IndexInfo:
    """Count, kind, dimension, model, generation, labels and limits.

    Example: `curl http://127.0.0.1:8000/v1/index`
    """
    limits = context.limits
    return schemas.IndexInfo(
        **context.engine.summary(),
        limits=schemas.LimitsInfo(
            max_upload_bytes=limits.picture.max_bytes,
            max_pixels=limits.picture.max_pixels,
            max_images=limits.max_images,
            max_limit=limits.max_limit,
            max_offset=limits.max_offset,
            max_examples=limits.max_examples,
            max_candidates=limits.max_candidates,
        ),
    )


@router.post(
    "/index/rebuild",
    operation_id="rebuild_index",
    status_code=202,
    summary="Bring the index up to date with the corpus",
    responses=problems(409),
)
def rebuild_index(
    context: Ctx,
    response: Response,
    reembed: Annotated[
        bool, Query(description="Embed everything again, also what has not changed.")
    ] = False,
) -> schemas.Job:
    """Starts a job and answers at once. Searches go on from the old index until the new is ready.

    New pictures are embedded, pictures that are gone leave the index.

    Example: `curl -X POST http://127.0.0.1:8000/v1/index/rebuild`
    """

    job_id = uuid.uuid4().hex
    if context.jobs.running is None:
        context.engine.store.check_free()
    task = Task("rebuild", job_id, reembed=reembed)
    job = context.jobs.start("rebuild", partial(context.perform, task), job_id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return schemas.Job.of(job)


@router.post(
    "/index/compact",
    operation_id="compact_index",
    status_code=202,
    summary="Fold what was added and deleted into a new index",
    responses=problems(409, 422),
)
def compact_index(
    context: Ctx,
    response: Response,
    kind: Annotated[
        str | None,
        Query(
            max_length=200,
            description="Kind of index from now on: `auto`, `exact`, `ivf`, `hnsw`, `rabitq`, or a"
            " FAISS factory string.",
        ),
    ] = None,
) -> schemas.Job:
    """Starts a job that makes a new index from the record alone, without looking at the corpus.

    The service does this by itself once enough has changed.

    Example: `curl -X POST http://127.0.0.1:8000/v1/index/compact`
    """
    if kind is not None:
        context.engine.builder.set_kind(kind)
    job = start_compaction(context)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return schemas.Job.of(job)
