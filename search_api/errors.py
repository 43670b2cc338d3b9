"""Every error as problem+json (RFC 9457)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from embed.pictures import PictureError
from index.archives import SnapshotExistsError, SnapshotModelError, UnknownSnapshotError
from index.blobs import BlobError
from index.catalogue import CatalogueError, ModelChangedError
from index.neighbours import IndexInputError, UnknownIdError
from index.snapshots import SnapshotError
from index.stores import EngineCannotError, StateGoneError
from search_api.batching import QueueFullError
from search_api.cursors import CursorError, CursorModelError
from search_api.jobs import JobFinishedError, JobRunningError
from search_api.store import StoreBusyError

log = logging.getLogger(__name__)

PICTURE_STATUS = {
    "empty": 422,
    "too-large": 413,
    "too-many-pixels": 413,
    "not-a-picture": 415,
    "truncated": 422,
}
"""HTTP status for each ``PictureError.reason``."""


class Problem(Exception):
    """An answer other than success.

    Attributes:
        status: HTTP status.
        kind: a short fixed word for programs; becomes the end of ``type``.
        detail: one sentence for people: what was received, what was expected, what to do.
        headers: of the answer, such as ``Retry-After``.
        more: further members of the answer.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = headers
        self.more = more


def respond(request: Request, problem: Problem) -> Response:
    """The HTTP response for a problem."""
    members = {
        "type": f"urn:lookalike:problem:{problem.kind}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": request.url.path,
        "request_id": getattr(request.state, "request_id", ""),
        **problem.more,
    }
    # ASCII: a detail may quote half a surrogate pair, which UTF-8 cannot write.
    return Response(
        json.dumps(members),
        problem.status,
        headers=dict(problem.headers),
        media_type="application/problem+json",
    )


def as_problem(error: Exception) -> Problem:
    """What a caller is told of an error that the engine raised."""
    match error:
        case Problem():
            return error
        case PictureError():
            return Problem(PICTURE_STATUS[error.reason], error.reason, str(error))
        case UnknownIdError():
            return Problem(404, "unknown-id", str(error), ids=list(error.ids[:100]))
        case CursorError():
            return Problem(422, "cursor", str(error))
        case IndexInputError():
            return Problem(422, "invalid-input", str(error))
        case JobRunningError():
            return Problem(409, "job-running", str(error), job=error.job.id)
        case QueueFullError():
            return Problem(
                429, "queue-full", str(error), headers={"Retry-After": str(error.retry_after)}
            )
        case StoreBusyError():
            return Problem(409, "store-busy", str(error), job=error.job)
        case JobFinishedError():
            return Problem(409, "job-finished", str(error))
        case UnknownSnapshotError():
            return Problem(404, "unknown-snapshot", str(error))
        case SnapshotExistsError():
            return Problem(409, "snapshot-exists", str(error))
        case SnapshotModelError():
            return Problem(409, "snapshot-of-another-model", str(error))
        case ModelChangedError() | CursorModelError():
            return Problem(409, "model-changed", str(error))
        case EngineCannotError():
            return Problem(501, "not-with-this-index", str(error))
        case CatalogueError() | SnapshotError() | StateGoneError() | BlobError():
            log.error("the store cannot be used: %s", error)
            return Problem(503, "store-unavailable", str(error), headers={"Retry-After": "2"})
        case HTTPException():
            kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
            return Problem(error.status_code, kind, str(error.detail), headers=error.headers or {})
    log.error("unexpected error", exc_info=error)
    return Problem(500, "internal", "something went wrong in the server; its log has the details")


_EXPECTED = (
    Problem,
    PictureError,
    UnknownIdError,
    IndexInputError,
    JobRunningError,
    JobFinishedError,
    ModelChangedError,
    StoreBusyError,
    QueueFullError,
    CatalogueError,
    CursorModelError,
    SnapshotError,
    EngineCannotError,
    StateGoneError,
    BlobError,
)


def missing(field: str) -> Problem:
    """The problem of a form without a field that is needed."""
    message = "Field required"
    return Problem(
        422,
        "validation",
        f"body.{field}: {message}; send {field!r} as a field of a multipart form",
        errors=[{"in": f"body.{field}", "message": message}],
    )


def install(app: FastAPI) -> None:
    """Make ``app`` answer every error as problem+json."""

    async def known(request: Request, error: Exception) -> Response:
        return respond(request, as_problem(error))

    async def gone(request: Request, error: Exception) -> Response:
        # The status that nginx logs for it; nobody reads the answer.
        return Response(status_code=499)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status, detail = error.status_code, str(error.detail)
        kind = HTTPStatus(status).phrase.lower().replace(" ", "-")
        if status == 404 and detail == "Not Found":
            detail = f"there is nothing at {request.url.path[:200]}; /docs lists what there is"
        elif status == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            detail = f"{request.method} is not possible at {request.url.path[:200]}; use {allowed}"
        elif status == 400 and detail.startswith("Too many files"):
            status, kind = 413, "too-many-images"
            detail = "too many pictures in one request; GET /v1/index names the limits"
        return respond(request, Problem(status, kind, detail, headers=error.headers or {}))

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [
            {"in": ".".join(str(part) for part in e["loc"]), "message": e["msg"]}
            for e in error.errors()
        ]
        detail = "; ".join(f"{e['in']}: {e['message']}" for e in errors)
        missing = [e for e in error.errors() if e["type"] == "missing" and e["loc"][0] == "body"]
        if missing and not request.headers.get("content-type", "").startswith("application/json"):
            detail += f"; send {missing[0]['loc'][-1]!r} as a field of a multipart form"
        return respond(request, Problem(422, "validation", detail, errors=errors))

    for kind in _EXPECTED:
        app.add_exception_handler(kind, known)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)
