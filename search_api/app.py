"""The HTTP application, made from an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool

from search_api import errors
from search_api.context import Context
from search_api.engine import SearchEngine
from search_api.jobs import JobRunner
from search_api.metrics import Metrics
from search_api.middleware import BodyLimit, RequestMetrics
from search_api.routes import health, images, index, models, search, snapshots, writes
from search_api.settings import Limits

WEB = Path(__file__).parent / "web"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}
_DESCRIPTION = """\
Visual similarity search: upload a picture, get its class and the pictures most like it.

Errors are `application/problem+json` (RFC 9457). Scores are cosine similarities.
"""


def create_app(engine: SearchEngine, limits: Limits = Limits()) -> FastAPI:
    """An app that serves ``engine``; it closes the engine when it shuts down.

    Args:
        engine: what answers.
        limits: what one request may ask for.
    """
    metrics = Metrics()
    jobs = JobRunner()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(jobs.stop)
        engine.close()

    # The API's page at /docs works without a network: its scripts come with the package.
    app: FastAPI = FastAPIOffline(
        title="Lookalike",
        summary="Visual similarity search",
        description=_DESCRIPTION,
        version=version("lookalike"),
        lifespan=lifespan,
    )
    app.state.context = Context(engine, limits, jobs, metrics)
    errors.install(app)
    # The last one added is the outermost: refused bodies are counted too.
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes)
    app.add_middleware(RequestMetrics, metrics=metrics)
    # search before images: both have paths under /v1/images.
    for module in (search, writes, images, index, snapshots, models, health):
        app.include_router(module.router)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(WEB / "index.html", headers=_PAGE_HEADERS)

    app.mount("/static", StaticFiles(directory=WEB), name="static")
    return app
