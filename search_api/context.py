"""What the routes share: the engine, the settings, the jobs and the metrics of one app."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Query, Request

from embed.encoder import PictureEncoder
from index.filters import Filter, parse_filter
from index.stores import Serving
from search_api.answering import PictureQuery
from search_api.batching import Batcher
from search_api.encoding import Writer
from search_api.engine import SearchEngine
from search_api.errors import Problem
from search_api.jobs import JobRunner
from search_api.metrics import Metrics
from search_api.results import SearchResult
from search_api.settings import Limits
from search_api.tasks import Perform


@dataclass(frozen=True)
class Context:
    """One app's parts.

    ``perform`` does the work of jobs, in this process or another; ``draining`` is set once the
    service is about to end; ``streams`` holds an object for each client that follows a job.
    """

    engine: SearchEngine
    batcher: Batcher[PictureQuery, SearchResult]
    limits: Limits
    jobs: JobRunner
    metrics: Metrics
    writer: Writer
    perform: Perform
    draining: threading.Event = field(default_factory=threading.Event)
    streams: set[object] = field(default_factory=set)


async def get_context(request: Request) -> Context:
    """The context of the app that serves this request.

    Async, as all dependencies here, because FastAPI would call a plain function in a thread.
    """
    context: Context = request.app.state.context
    return context


Ctx = Annotated[Context, Depends(get_context)]


async def filter_param(
    context: Ctx,
    text: Annotated[
        str | None,
        Query(
            alias="filter",
            description="Which pictures may be answers, as JSON: `must`, `should`, `must_not`.",
            examples=['{"must":[{"key":"label","match":{"value":"cat"}}]}'],
        ),
    ] = None,
) -> Filter | None:
    """The `filter` query parameter, parsed."""
    longest = context.limits.max_filter_chars
    if text is not None and len(text) > longest:
        raise Problem(
            422,
            "filter",
            f"filter has {len(text):,} characters; expected at most {longest:,}. A body in JSON"
            " can hold a longer one",
        )
    if text is None or not text.strip():
        return None
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem(
            422,
            "filter",
            f"filter is not JSON ({error}); expected an object such as"
            ' {"must": [{"key": "label", "match": {"value": "cat"}}]}',
        ) from error
    return parse_filter(value, context.limits.filter_bounds)


FilterParam = Annotated[Filter | None, Depends(filter_param)]


def stamp(context: Context) -> dict[str, Any]:
    """Which model and generation answer now, and the last write that they know of.

    Raises SnapshotError if no index is loaded.
    """
    return stamp_of(context.engine.served.current(wait=False))


def stamp_of(state: Serving[PictureEncoder]) -> dict[str, Any]:
    """The same of a state."""
    return {
        "model": state.manifest.model_digest,
        "generation": state.manifest.generation,
        "sequence": state.sequence,
    }


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of these errors; ``search_api.openapi`` adds what all have."""
    return {status: {"description": _MEANING[status]} for status in statuses}


_MEANING = {
    400: "The request cannot be read.",
    404: "There is no such id or name.",
    409: "Not possible now; `detail` says why, and `job` names a job that is in the way.",
    413: "The picture or the request is too large.",
    415: "Not a picture in a format that is known.",
    422: "Something in the request cannot be used; `detail` says what and why.",
    429: "Too much is waiting; `Retry-After` says when to come again.",
    501: "What keeps the index does not have this: see docs/milvus.md.",
    503: "The index cannot answer now.",
}
