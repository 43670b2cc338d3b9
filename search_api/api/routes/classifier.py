"""The classifier that is fitted on the store's labels."""

from __future__ import annotations

from fastapi import APIRouter, Response

from search_api import schemas
from search_api.api import responses
from search_api.api.context import Ctx, stamp_of
from search_api.api.intake.strict import StrictRoute
from search_api.api.openapi import problems
from search_api.jobs.tasks import Task
from search_api.service.labelling.classes import description

router = APIRouter(prefix="/v1/classifier", tags=["classifier"], route_class=StrictRoute)


@router.get(
    "",
    operation_id="classifier",
    summary="Describe the store's classifier",
    responses=problems(503),
)
def classifier(context: Ctx) -> schemas.ClassifierInfo:
    """Returns its classes, counts and cross-validated accuracy, or why there is none.

    Example: `curl http://127.0.0.1:8000/v1/classifier`
    """
    engine = context.engine
    state = engine.served.current()
    engine.classes.refresh()
    return schemas.ClassifierInfo(
        source=engine.classes.source(state.model),
        **description(engine.classes.of(state.manifest.model_digest)),
        **stamp_of(state),
    )


@router.post(
    "/fit",
    operation_id="fit_classifier",
    status_code=202,
    summary="Fit the store's classifier again",
    responses=problems(409),
)
def fit_classifier(context: Ctx, response: Response) -> schemas.Job:
    """Starts a job that fits the classifier on the present labels, without reading any picture.

    The service does this by itself at every build and once enough labels have changed.

    Example: `curl -X POST http://127.0.0.1:8000/v1/classifier/fit`
    """
    job = context.tasks.start(Task("fit"))
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return responses.job(context, job)
