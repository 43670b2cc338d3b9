"""Going over to another model while the present one serves. All but the reports write."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from search_api import changeover, schemas
from search_api.changeover import UnknownModelError
from search_api.context import Ctx, problems
from search_api.errors import Problem
from search_api.schemas_writes import ModelDifference, ModelInfo, Models
from search_api.tasks import Task

router = APIRouter(prefix="/v1/models", tags=["models"])

Digest = Annotated[str, Path(max_length=200, description="The model's digest, `sha256:…`.")]


@router.get("", operation_id="list_models", summary="Models in the store", responses=problems(503))
def list_models(context: Ctx) -> Models:
    """The model that serves, and those that were put beside it with `lookalike index model`.

    Example: `curl http://127.0.0.1:8000/v1/models`
    """
    state = context.engine.served.current()
    return Models(
        serving=state.manifest.model_digest,
        generation=state.manifest.generation,
        models=[ModelInfo(**asdict(found)) for found in changeover.candidates(context.engine)],
    )


@router.post(
    "/{digest}/embed",
    operation_id="embed_with_model",
    status_code=202,
    summary="Embed everything with another model, beside the present one",
    responses=problems(404, 409),
)
def embed_with_model(context: Ctx, response: Response, digest: Digest) -> schemas.Job:
    """Starts a job; the present model serves on. Cancelled or interrupted, it goes on from there.

    Example: `curl -X POST http://127.0.0.1:8000/v1/models/sha256:8c4e…/embed`
    """
    return _start(context, response, digest, switch=False)


@router.get(
    "/{digest}/diff",
    operation_id="model_difference",
    summary="How much the neighbours would change",
    responses=problems(409, 422),
)
def model_difference(
    context: Ctx,
    digest: Digest,
    queries: Annotated[int, Query(ge=1, le=10_000, description="Pictures to compare.")] = 500,
    k: Annotated[int, Query(ge=1, le=1000, description="Neighbours of each.")] = 10,
) -> ModelDifference:
    """Compares the neighbours of stored pictures under the present and the other model.

    Example: `curl http://127.0.0.1:8000/v1/models/sha256:8c4e…/diff`
    """
    found = changeover.compare(context.engine, digest, queries, k)
    manifest = context.engine.served.current().manifest
    return ModelDifference(
        model=digest,
        serving=manifest.model_digest,
        generation=manifest.generation,
        **asdict(found),
    )


@router.post(
    "/{digest}/switch",
    operation_id="switch_model",
    status_code=202,
    summary="Serve with another model from now on",
    responses=problems(404, 409),
)
def switch_model(context: Ctx, response: Response, digest: Digest) -> schemas.Job:
    """Starts a job that embeds what is missing still and goes over, in every server on the store.

    Example: `curl -X POST http://127.0.0.1:8000/v1/models/sha256:8c4e…/switch`
    """
    return _start(context, response, digest, switch=True)


def _start(context: Ctx, response: Response, digest: str, switch: bool) -> schemas.Job:
    engine = context.engine
    try:
        changeover.encoder_of(engine, digest)
    except UnknownModelError as error:
        raise Problem(404, "unknown-model", str(error)) from error
    if digest == engine.encoder.digest:
        raise Problem(409, "model-serves", f"the model {digest} serves already")
    job_id = uuid.uuid4().hex

    if context.jobs.running is None:
        engine.store.check_free()
    task = Task("switch" if switch else "embed", job_id, digest)
    job = context.jobs.start(task.kind, partial(context.perform, task), job_id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return schemas.Job.of(job)
