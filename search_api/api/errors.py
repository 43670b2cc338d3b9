"""Every error as problem+json (RFC 9457)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from index.contract import RestoreConflictError, StoreBusyError, UnknownIdError
from index.scans import ScansBusyError
from search_api.jobs.runner import JobRunningError
from search_api.problems import EXPECTED, exhausted, is_full, meaning
from search_api.service.batching import QueueFullError
from search_api.text import shortened

log = logging.getLogger(__name__)

_LONGEST_DETAIL = 2000
_MOST_ERRORS = 20


class Problem(Exception):
    """A response that reports an error.

    Attributes:
        status: HTTP status.
        kind: a short fixed identifier for programs; becomes the end of ``type``.
        detail: a sentence for people: what was received, what was expected and what to do.
        headers: headers of the response, such as ``Retry-After``.
        more: further members of the JSON.
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


class _OfTarget(Problem):
    """The target of the request does not exist: what looks like a path is what was sent."""


def respond(request: Request, problem: Problem) -> Response:
    """The HTTP response for a problem: its texts shortened, and without paths of the server."""
    public = problem.detail
    if not isinstance(problem, _OfTarget):
        public = _public(request, public)
    if public != problem.detail:
        log.info("in full: %s", problem.detail)
    members = {
        "type": f"urn:lookalike:problem:{problem.kind}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": shortened(public, _LONGEST_DETAIL),
        "instance": shortened(request.scope["path"]),
        "request_id": getattr(request.state, "request_id", ""),
        **problem.more,
    }
    # ASCII: a detail may quote a lone surrogate, which UTF-8 cannot encode.
    return Response(
        json.dumps(members),
        problem.status,
        headers=dict(problem.headers),
        media_type="application/problem+json",
    )


def _public(request: Request, text: str) -> str:
    context = getattr(request.app.state, "context", None) if "app" in request.scope else None
    return context.public(text) if context else text


def as_problem(error: Exception) -> Problem:
    """The problem that reports an error to the caller."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        kind = _kind(error.status_code)
        return Problem(error.status_code, kind, str(error.detail), headers=error.headers or {})
    known = meaning(error)
    if known is None:
        log.error("unexpected error", exc_info=error)
        return Problem(
            500, "internal", "an unexpected error occurred; see the server's log for details"
        )
    more: dict[str, Any] = {}
    headers: dict[str, str] = {}
    match error:
        case UnknownIdError() | RestoreConflictError():
            more["ids"] = list(error.ids[:100])
        case JobRunningError():
            more["job"] = error.job.id
        case StoreBusyError():
            more["job"] = error.job
        case QueueFullError():
            headers["Retry-After"] = str(error.retry_after)
    if known.status == 503:
        what = "refused" if isinstance(error, ScansBusyError) else "the store cannot be used"
        log.error("%s: %s", what, str(error) or repr(error))
        headers["Retry-After"] = "2"
    detail = exhausted(error) or str(error)
    return Problem(known.status, known.kind, detail, headers=headers, **more)


def _kind(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "-")


def install(app: FastAPI, methods: Callable[[str], Iterable[str]]) -> None:
    """Make ``app`` report every error as problem+json; ``methods`` are those of a path."""

    async def known(request: Request, error: Exception) -> Response:
        return respond(request, as_problem(error))

    async def gone(request: Request, error: Exception) -> Response:
        # The status that nginx logs in this case; nobody reads the response.
        return Response(status_code=499)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, Problem):
            return respond(request, error.__cause__)  # found while the body was read
        if isinstance(error.__cause__, OSError) and (
            is_full(error.__cause__) or exhausted(error.__cause__)
        ):
            return respond(request, as_problem(error.__cause__))  # while an upload was spooled
        status, detail = error.status_code, str(error.detail)
        kind = _kind(status)
        if status == 404 and detail == "Not Found":
            detail = f"{shortened(request.scope['path'])} does not exist; see /docs for all paths"
        elif status == 405:
            # Starlette names the methods of the first route with this path only.
            allowed = ", ".join(methods(request.scope["path"]))
            path = shortened(request.scope["path"])
            detail = f"{path} does not support {request.method}; use {allowed}"
            error.headers = {"Allow": allowed}
        elif status == 400 and detail.startswith("Too many files"):
            status, kind = 413, "too-many-images"
            detail = "too many pictures in one request; GET /v1/index reports the limits"
        elif status == 400 and detail.startswith("Part exceeded"):
            detail = f"{detail.rstrip('.')} for text; a picture's part of the form needs a filename"
        problem = _OfTarget if status in (404, 405) else Problem
        return respond(request, problem(status, kind, detail, headers=error.headers or {}))

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = error.errors()
        errors = [
            {
                "in": ".".join(shortened(str(part), 50) for part in e["loc"][:10]),
                "message": shortened(e["msg"]),
            }
            for e in found[:_MOST_ERRORS]
        ]
        detail = "; ".join(f"{e['in']}: {e['message']}" for e in errors)
        if len(found) > _MOST_ERRORS:
            detail += f"; and {len(found) - _MOST_ERRORS:,} more"
        missing = [e for e in found if e["type"] == "missing" and e["loc"][0] == "body"]
        if missing and not request.headers.get("content-type", "").startswith("application/json"):
            detail += f"; send {missing[0]['loc'][-1]!r} as a field of a multipart form"
        return respond(request, Problem(422, "validation", detail, errors=errors))

    kinds: tuple[type[Exception], ...] = (Problem, OSError, MemoryError, *EXPECTED)
    for kind in kinds:
        app.add_exception_handler(kind, known)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)
