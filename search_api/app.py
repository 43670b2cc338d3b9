"""The HTTP application, made from an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.types import Lifespan

from embed.runtime import LANES
from search_api import errors, openapi
from search_api.access import Access
from search_api.answering import COMPANY
from search_api.batching import Batcher
from search_api.context import Context
from search_api.encoding import Writer
from search_api.engine import SearchEngine
from search_api.job_store import JobStore
from search_api.jobs import JobRunner
from search_api.metrics import Metrics
from search_api.middleware import BodyLimit, Failures, Gate, RequestRecord
from search_api.routes import (
    health,
    images,
    index,
    jobs,
    models,
    search,
    search_several,
    snapshots,
    writes,
)
from search_api.settings import Limits
from search_api.shortcuts import Shortcuts
from search_api.tasks import Perform, perform
from search_api.writing import fold_from_time_to_time

WEB = Path(__file__).parent / "web"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}
_DESCRIPTION = """\
Visual similarity search: upload a picture, get its class and the pictures most like it.

Errors are `application/problem+json` (RFC 9457). Scores are cosine similarities. Where API keys
are set, send one as `Authorization: Bearer KEY` or `api-key: KEY`.
"""


def create_app(
    engine: SearchEngine,
    limits: Limits = Limits(),
    access: Access = Access(),
    aside: Perform | None = None,
) -> FastAPI:
    """An app that serves ``engine``; it closes the engine when it shuts down.

    Args:
        engine: what answers.
        limits: what one request may ask for.
        access: who may ask.
        aside: does the work of jobs elsewhere; None for this process.
    """
    metrics = Metrics()
    runner = JobRunner(metrics.observe_job, JobStore(engine.var / "jobs"))
    batcher = Batcher(
        engine.answer,
        limits.max_batch,
        limits.max_waiting,
        observe=metrics.observe_batch,
        lanes=LANES,
        least=COMPANY,
    )
    writer = Writer(limits.max_cursor_chars, limits.max_cached_entries)
    context = Context(
        engine, batcher, limits, runner, metrics, writer, aside or partial(perform, engine)
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        folding = asyncio.create_task(fold_from_time_to_time(context))
        yield
        folding.cancel()
        with suppress(asyncio.CancelledError):
            await folding
        await run_in_threadpool(runner.close)
        await run_in_threadpool(batcher.close)
        engine.close()

    app = bare_app(limits, lifespan)
    app.state.context = context
    # The last one added is the outermost: what is refused is recorded too, and may be read by the
    # pages that may ask.
    app.add_middleware(Shortcuts, context=context)
    app.add_middleware(BodyLimit, limits=limits)
    app.add_middleware(Gate, access=access)
    if access.origins:
        app.add_middleware(Failures)
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(access.origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "api-key", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After", "Location"],
        )
    app.add_middleware(
        RequestRecord,
        metrics=metrics,
        draining=context.draining,
        max_requests=limits.max_requests,
    )
    return app


def bare_app(limits: Limits = Limits(), lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """The routes and their documents, with nothing behind them yet."""
    # The API's page at /docs works without a network: its scripts come with the package.
    app: FastAPI = FastAPIOffline(
        title="Lookalike",
        summary="Visual similarity search",
        description=_DESCRIPTION,
        version=version("lookalike"),
        lifespan=lifespan,
        form_limits={
            # One more, so that the route can say how many are too many.
            "max_files": limits.max_images + 1,
            "max_fields": limits.max_form_fields,
            "max_part_size": limits.max_form_field_bytes,
        },
    )
    errors.install(app)
    openapi.install(app)
    # search before images: both have paths under /v1/images.
    for module in (search, search_several, writes, images, index, jobs, snapshots, models, health):
        app.include_router(module.router)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(WEB / "index.html", headers=_PAGE_HEADERS)

    app.mount("/static", StaticFiles(directory=WEB), name="static")
    return app
