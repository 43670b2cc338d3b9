"""What the routes of an app share: the engine, the limits, the jobs and the metrics."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request

from embed.encoder import PictureEncoder
from index.contract import SearchState
from search_api.api.metrics import Metrics
from search_api.api.response_encoder import ResponseEncoder
from search_api.jobs.auto_compaction import AutoCompaction
from search_api.jobs.runner import JobRunner
from search_api.jobs.tasks import TaskRunner
from search_api.jobs.watching import Watching
from search_api.service.batching import Batcher
from search_api.service.engine import SearchEngine
from search_api.service.results import SearchResult
from search_api.service.search import PictureQuery
from search_api.settings import Limits
from search_api.text import PublicText


@dataclass(frozen=True)
class Context:
    """The parts of one app.

    ``public`` leaves the server's paths out of a text; ``draining`` is set once the service is
    shutting down; ``watching`` follows the corpus, if that is asked for; ``streams`` holds an
    object for each client that is following a job.
    """

    engine: SearchEngine
    batcher: Batcher[PictureQuery, SearchResult]
    limits: Limits
    jobs: JobRunner
    tasks: TaskRunner
    compaction: AutoCompaction
    metrics: Metrics
    encoder: ResponseEncoder
    draining: threading.Event
    watching: Watching | None = None
    streams: set[object] = field(default_factory=set)
    public: PublicText = field(default_factory=lambda: PublicText([Path.cwd()]))


async def get_context(request: Request) -> Context:
    """The context of the app that serves this request.

    Async, like all dependencies: FastAPI would call a plain function in a thread.
    """
    context: Context = request.app.state.context
    return context


Ctx = Annotated[Context, Depends(get_context)]


def stamp(context: Context) -> dict[str, Any]:
    """The current model and generation, and the sequence number of the last write they include.

    Raises GenerationError if no index is loaded.
    """
    return stamp_of(context.engine.served.current(wait=False))


def stamp_of(state: SearchState[PictureEncoder]) -> dict[str, Any]:
    """The `stamp` of a state."""
    return {
        "model": state.manifest.model_digest,
        "generation": state.manifest.generation,
        "sequence": state.sequence,
    }
