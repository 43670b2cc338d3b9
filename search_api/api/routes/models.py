"""Switching to another model while the current one serves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response

from search_api import schemas
from search_api.api import responses
from search_api.api.context import Ctx
from search_api.api.errors import Problem
from search_api.api.intake.strict import StrictRoute
from search_api.api.openapi import problems
from search_api.jobs.tasks import Task
from search_api.service.model_migration import candidates, compare_models, encoder_of

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=StrictRoute)

Digest = Annotated[str, Path(max_length=200, description="The model's digest, `sha256:…`.")]


@router.get(
    "", operation_id="list_models", summary="List the models in the store", responses=problems(503)
)
def list_models(context: Ctx) -> schemas.Models:
    """Lists the model that serves and those added with `lookalike index model`.

    Example: `curl http://127.0.0.1:8000/v1/models`
    """
    state = context.engine.served.current()
    return schemas.Models(
        serving=state.manifest.model_digest,
        generation=state.manifest.generation,
        models=[schemas.ModelInfo(**asdict(found)) for found in candidates(context.engine)],
    )


@router.post(
    "/{digest}/embed",
    operation_id="embed_with_model",
    status_code=202,
    summary="Embed all pictures with another model",
    responses=problems(404, 409),
)
def embed_with_model(context: Ctx, response: Response, digest: Digest) -> schemas.Job:
    """Starts a job; the current model keeps serving. If interrupted, a new job continues the work.

    Example: `curl -X POST http://127.0.0.1:8000/v1/models/sha256:8c4e…/embed`
    """
    return _start(context, response, digest, "embed")


@router.get(
    "/{digest}/diff",
    operation_id="model_difference",
    summary="Compare a model with the current one",
    responses=problems(409, 422),
)
def model_difference(
    context: Ctx,
    digest: Digest,
    queries: Annotated[
        int, Query(ge=1, le=10_000, description="Number of pictures to compare.")
    ] = 500,
    k: Annotated[int, Query(ge=1, le=1000, description="Number of neighbours per picture.")] = 10,
) -> schemas.ModelDifference:
    """Compares the neighbours of stored pictures under the current model and the other one.

    Example: `curl http://127.0.0.1:8000/v1/models/sha256:8c4e…/diff`
    """
    found = compare_models(context.engine, digest, queries, k)
    manifest = context.engine.served.current().manifest
    return schemas.ModelDifference(
        model=digest,
        serving=manifest.model_digest,
        generation=manifest.generation,
        **asdict(found),
    )


@router.post(
    "/{digest}/switch",
    operation_id="switch_model",
    status_code=202,
    summary="Switch to another model",
    responses=problems(404, 409),
)
def switch_model(context: Ctx, response: Response, digest: Digest) -> schemas.Job:
    """Starts a job that embeds the remaining pictures, then switches all servers on the store.

    Example: `curl -X POST http://127.0.0.1:8000/v1/models/sha256:8c4e…/switch`
    """
    return _start(context, response, digest, "switch")


def _start(
    context: Ctx, response: Response, digest: str, kind: Literal["embed", "switch"]
) -> schemas.Job:
    engine = context.engine
    encoder_of(engine, digest)
    if digest == engine.encoder.digest:
        raise Problem(409, "model-serves", f"the model {digest} already serves")
    job = context.tasks.start(Task(kind, digest))
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return responses.job(context, job)
