"""The HTTP application around a search engine."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.types import Lifespan
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from embed.runtime.protocol import WORKERS
from index.scans import FilterScans
from search_api.api import documentation, errors, openapi
from search_api.api.context import Context
from search_api.api.direct import Direct
from search_api.api.fast_path import FastPath
from search_api.api.intake.declared import route_table
from search_api.api.metrics import Metrics
from search_api.api.middleware.auth import AuthMiddleware
from search_api.api.middleware.body_limit import BodyLimitMiddleware, ByteBudget
from search_api.api.middleware.errors import ErrorMiddleware
from search_api.api.middleware.head import HeadMiddleware
from search_api.api.middleware.headers import PAGE_POLICY
from search_api.api.middleware.ready import ReadyMiddleware
from search_api.api.middleware.request_log import RequestLog, RequestLogMiddleware
from search_api.api.middleware.site import SiteMiddleware
from search_api.api.response_encoder import ResponseEncoder
from search_api.api.routes import (
    classifier,
    health,
    images,
    index,
    jobs,
    models,
    search,
    search_several,
    snapshots,
    trash,
    writes,
)
from search_api.jobs.auto_compaction import AutoCompaction
from search_api.jobs.first_build import FirstBuild
from search_api.jobs.runner import JobRunner
from search_api.jobs.store import JobStore
from search_api.jobs.tasks import Perform, Task, TaskRunner, perform
from search_api.jobs.watching import Watching
from search_api.keys import Access
from search_api.service.batching import Batcher
from search_api.service.engine import SearchEngine
from search_api.service.search import MIN_BATCH
from search_api.service.warmth import Warmth, toucher
from search_api.settings import Limits
from search_api.text import PublicText

WEB = Path(__file__).parents[1] / "web"
_PAGE_HEADERS = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"}
_DESCRIPTION = """\
Visual similarity search: upload a picture, get its class and the pictures most similar to it.

Errors are `application/problem+json` (RFC 9457). Scores are cosine similarities. If API keys
are set, send one as `Authorization: Bearer KEY` or `api-key: KEY`. Every path that answers GET
answers HEAD in the same way, without the body.

Names that a path does not declare are refused. Where a path takes a form, its parameters may be
sent in the query string or as fields of the form; and where the form has one field for pictures,
the picture alone may be the body.
"""


def create_app(
    engine: SearchEngine,
    limits: Limits = Limits(),
    access: Access = Access(),
    worker: Perform | None = None,
    *,
    build: Task | None = None,
    watch: Literal["", "auto", "poll"] = "",
    warm: bool = False,
) -> FastAPI:
    """An app that serves ``engine``; it closes the engine when it shuts down.

    Args:
        engine: answers the requests.
        limits: bounds on requests and load.
        access: API keys, allowed origins and hosts, trusted proxies.
        worker: does the work of jobs in another process; None for this one.
        build: the rebuild that makes what the store lacks, while what is embedded so far can be
            searched; None to leave the store as it is.
        watch: how to follow the corpus; empty not to. See `search_api.jobs.watching`.
        warm: keep what searches need warm between them, for ``limits.warm_seconds``.
    """
    engine.catalogue.scans = FilterScans(limits.filter_seconds, limits.max_filter_scans)
    metrics = Metrics()
    budget = ByteBudget(limits.max_bytes_in_flight)
    metrics.request_bytes.set_function(lambda: budget.used)
    draining = threading.Event()
    runner = JobRunner(metrics.observe_job, JobStore(engine.var / "jobs"))
    tasks = TaskRunner(engine, runner, worker or partial(perform, engine))
    warmth = Warmth(toucher(engine), limits.warm_seconds) if warm and limits.warm_seconds else None

    def observe(size: int, waiting: int) -> None:
        metrics.observe_batch(size, waiting)
        if warmth is not None:
            warmth.used()

    batcher = Batcher(
        engine.search_batch,
        limits.max_batch,
        limits.max_waiting,
        observe=observe,
        workers=WORKERS,
        min_batch=MIN_BATCH,
    )
    context = Context(
        engine=engine,
        batcher=batcher,
        limits=limits,
        jobs=runner,
        tasks=tasks,
        compaction=AutoCompaction(tasks, limits, draining),
        metrics=metrics,
        encoder=ResponseEncoder(limits.max_cursor_chars, limits.max_cached_entries),
        draining=draining,
        watching=Watching(tasks, draining, watch, metrics.observe_sync) if watch else None,
        public=PublicText(_roots(engine)),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = [asyncio.create_task(context.compaction.run())]
        if build is not None:
            running.append(asyncio.create_task(FirstBuild(tasks, draining, build).run()))
        if context.watching is not None:
            context.watching.start()
        yield
        draining.set()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await run_in_threadpool(runner.close)
        await run_in_threadpool(batcher.close)
        if warmth is not None:
            await run_in_threadpool(warmth.close)
        engine.close()

    log = RequestLog(metrics, limits.max_requests)
    app = bare_app(limits, lifespan)
    app.state.context = context
    app.state.direct = Direct(context, access, log, budget)
    # The last one added is the outermost: refusals are logged too, and pages of allowed origins can
    # read them.
    app.add_middleware(FastPath, context=context)
    app.add_middleware(ReadyMiddleware, context=context)
    app.add_middleware(BodyLimitMiddleware, limits=limits, budget=budget)
    app.add_middleware(AuthMiddleware, access=access)
    if access.origins:
        app.add_middleware(ErrorMiddleware)
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(access.origins),
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "api-key", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After", "Location"],
        )
    app.add_middleware(SiteMiddleware, access=access)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(
        RequestLogMiddleware,
        log=log,
        draining=draining,
    )
    if access.proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(access.proxies))
    return app


def _roots(engine: SearchEngine) -> list[Path]:
    """The folders whose files error texts may name."""
    corpus = getattr(engine.corpus, "root", None)
    return [engine.var, Path(tempfile.gettempdir()), Path.cwd(), *([corpus] if corpus else [])]


def bare_app(limits: Limits = Limits(), lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """The routes and their documentation, without an engine."""
    # For the files of /docs; the pages are those of `documentation`.
    app: FastAPI = FastAPIOffline(
        docs_url=None,
        redoc_url=None,
        title="Lookalike",
        summary="Visual similarity search",
        description=_DESCRIPTION,
        version=version("lookalike"),
        lifespan=lifespan,
        # Such a redirect would be built from the Host header.
        redirect_slashes=False,
        form_limits={
            # One more than allowed, so that the route can report how many there are.
            "max_files": limits.max_images + 1,
            "max_fields": limits.form_fields,
            "max_part_size": limits.max_form_field_bytes,
        },
    )
    errors.install(app, lambda path: route_table(app).methods(path))
    openapi.install(app)
    documentation.install(app)
    # search before images: both have paths under /v1/images.
    modules = (search, search_several, writes, trash, images, index, classifier, jobs, snapshots)
    for module in (*modules, models, health):
        app.include_router(module.router)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(WEB / "index.html", headers=_PAGE_HEADERS)

    app.mount("/static", StaticFiles(directory=WEB), name="static")
    return app
