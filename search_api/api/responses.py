"""Responses: from the results of the service to the schemas."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from embed.pictures import PictureError
from index.records import Entry
from search_api import schemas
from search_api.api.context import Context, stamp
from search_api.jobs.model import Job
from search_api.problems import meaning
from search_api.service.ingest import KeyExistsError
from search_api.service.results import Point, Prediction, Predictions, SearchResult


def json_response(body: bytes) -> Response:
    """A response of JSON that is already encoded."""
    return Response(body, media_type="application/json")


def points_response(context: Context, result: SearchResult) -> Response:
    """The response to any query but a single uploaded picture; see `schemas.Points`."""
    context.metrics.observe_stages(result.time)
    return json_response(context.encoder.points(result))


def stored_image(context: Context, image_id: int) -> bytes:
    """A stored picture's metadata, as `schemas.StoredImage`. Raises UnknownIdError."""
    (entry,) = context.engine.entries.get([image_id])
    return context.encoder.stored(entry, stamp(context))


def image(entry: Entry) -> schemas.Image:
    """A stored picture."""
    payload = schemas.payload(entry.label, entry.split, entry.source, dict(entry.payload))
    return schemas.Image(id=entry.id, payload=payload, image_url=schemas.image_url(entry.id))


def item_error(error: PictureError | KeyExistsError) -> schemas.ItemError:
    """The error of one of several pictures."""
    found, detail = meaning(error), str(error)
    assert found is not None
    if isinstance(error, KeyExistsError):
        detail += "; send replace=true to replace it, or choose another key"
    return schemas.ItemError(
        type=f"urn:lookalike:problem:{found.kind}",
        title=found.kind,
        status=found.status,
        detail=detail,
    )


def job(context: Context, found: Job) -> schemas.Job:
    """How far a job is."""
    return schemas.Job(
        id=found.id,
        kind=found.kind,
        state=found.state,
        progress=schemas.Progress(stage=found.stage, done=found.done, total=found.total),
        eta_seconds=found.eta_seconds,
        skipped=found.skipped,
        started=found.started,
        finished=found.finished,
        error=None if found.error is None else context.public(found.error),
        result=found.result,
    )


def prediction(found: Prediction | None) -> schemas.Prediction | None:
    """What a picture shows; None if there are no classes."""
    return None if found is None else schemas.Prediction(**vars(found))


def predictions(found: Predictions | None) -> schemas.Predictions | None:
    """The predictions by both classifiers; None if only one was asked for."""
    if found is None:
        return None
    return schemas.Predictions(store=prediction(found.store), network=prediction(found.network))


def search_response(
    result: SearchResult, longest_cursor: int | None = None
) -> schemas.SearchResponse:
    """The result for an uploaded picture; ``longest_cursor`` as in `points`."""
    return schemas.SearchResponse(
        prediction=prediction(result.prediction),
        predictions=predictions(result.predictions),
        **points(result, longest_cursor),
    )


def points(result: SearchResult, longest_cursor: int | None = None) -> dict[str, Any]:
    """The members of every response with neighbours.

    A cursor of more than ``longest_cursor`` characters is left out.
    """
    groups = None
    if result.groups is not None:
        groups = [
            schemas.Group(value=group.value, points=[_point(point) for point in group.points])
            for group in result.groups
        ]
    vote = result.vote
    return {
        "points": [_point(point) for point in result.points],
        "groups": groups,
        "next_cursor": result.cursor_text(longest_cursor),
        "vote": schemas.Vote(label=vote[0], share=vote[1]) if vote else None,
        "model": result.model,
        "generation": result.generation,
        "sequence": result.sequence,
        "time": result.time,
    }


def _point(point: Point) -> schemas.Point:
    return schemas.Point(**image(point.entry).model_dump(), score=point.score)
