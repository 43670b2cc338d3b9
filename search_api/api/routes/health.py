"""Health and metrics, for orchestrators and monitoring, under the paths of Kubernetes."""

from __future__ import annotations

import math

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from search_api import schemas
from search_api.api.context import Ctx
from search_api.api.errors import Problem
from search_api.api.intake.strict import StrictRoute
from search_api.api.middleware.ready import not_ready
from search_api.api.openapi import problems

router = APIRouter(tags=["health"], route_class=StrictRoute)


@router.get("/livez", operation_id="livez", summary="Is the process alive?")
async def livez() -> schemas.Health:
    """200 as long as the process responds; restart it if this fails.

    Example: `curl http://127.0.0.1:8000/livez`
    """
    return schemas.Health(status="ok")


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Can it serve searches?",
    responses=problems(503),
)
async def readyz(context: Ctx) -> schemas.Health:
    """200 from the moment there is something to search until shutdown begins.

    Send no traffic otherwise. A first build may still be going on: see `complete` in `/v1/index`.

    Example: `curl http://127.0.0.1:8000/readyz`
    """
    if context.draining.is_set():
        raise Problem(503, "draining", "this server is shutting down; send requests to another")
    engine = context.engine
    if not engine.ready:
        raise not_ready(context)
    # A local store knows at once; over a network, checking must not delay other requests.
    if engine.store.parallel and not await run_in_threadpool(engine.available):
        raise Problem(
            503, "store-unavailable", f"{engine.store.name} does not respond; try again later"
        )
    return schemas.Health(status="ok")


@router.get("/healthz", operation_id="healthz", summary="Alive and ready?", responses=problems(503))
async def healthz(context: Ctx) -> schemas.Health:
    """The same as `/readyz`, under its older name.

    Example: `curl http://127.0.0.1:8000/healthz`
    """
    return await readyz(context)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus text format."}},
)
def metrics(context: Ctx) -> Response:
    """Requests, latency by stage, size and generation of the index, model digest.

    Example: `curl http://127.0.0.1:8000/metrics`
    """
    context.metrics.queue_depth.set(context.batcher.waiting)
    context.metrics.observe_storage(context.engine.storage.amounts())
    if context.engine.ready:
        state = context.engine.served.current()
        manifest = state.manifest
        context.metrics.pictures.set(state.index.count())
        context.metrics.pending.set(state.index.added + state.index.masked)
        context.metrics.recall.clear()  # an exact index has none
        if manifest.recall is not None:
            context.metrics.recall.labels("built").set(manifest.recall["value"])
        live = context.engine.sampler.recall
        if live is not None:
            context.metrics.recall.labels("live").set(live)
        context.metrics.generation.set(manifest.generation)
        context.metrics.model.info({"digest": manifest.model_digest})
        classifier = context.engine.classes.of(manifest.model_digest).classifier
        context.metrics.classifier.info(
            {
                "source": context.engine.classes.source(state.model) or "none",
                "digest": classifier.digest if classifier else "",
                "classes": str(len(classifier.classes if classifier else state.model.classes)),
            }
        )
        context.metrics.classifier_accuracy.set(classifier.accuracy if classifier else math.nan)
    return Response(context.metrics.render(), media_type="text/plain; version=0.0.4")
