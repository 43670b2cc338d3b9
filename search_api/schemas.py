"""The shapes of requests and responses. Words are those of vector databases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from search_api.job import State

if TYPE_CHECKING:
    # Only for annotations: the client uses these schemas and needs neither model nor index.
    from search_api.job import Job as EngineJob
    from search_api.results import Point as EnginePoint
    from search_api.results import Prediction as EnginePrediction
    from search_api.results import SearchResult

ImageId = Annotated[int, Field(ge=0, le=2**63 - 1, examples=[123])]


class Schema(BaseModel):
    """Refuses unknown members in requests, so that a misspelt option is not silently ignored."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Prediction(Schema):
    """What the classifier says."""

    label: str = Field(alias="class", examples=["cat"])
    confidence: float = Field(description="Calibrated probability of the class, 0..1.")
    probabilities: dict[str, float] = Field(examples=[{"cat": 0.93, "dog": 0.07}])

    @staticmethod
    def of(prediction: EnginePrediction) -> Prediction:
        """From the engine's own."""
        return Prediction(
            label=prediction.label,
            confidence=prediction.confidence,
            probabilities=prediction.probabilities,
        )


class Vote(Schema):
    """The class that most of the ten nearest neighbours have."""

    label: str = Field(alias="class", examples=["cat"])
    share: float = Field(description="Share of those neighbours that have it, 0..1.")


class Stamp(Schema):
    """What answers now: what searches find from now on."""

    model: str = Field(description="Digest of the model that serves.")
    generation: int = Field(description="Number of the index that serves.")
    sequence: int = Field(description="Number of the last write that searches find.")


class Image(Schema):
    """A stored picture."""

    id: ImageId
    payload: dict[str, Any] = Field(
        description="`label`, `split`, `source` and whatever else was stored with the picture.",
        examples=[{"label": "cat", "split": "train", "source": "train/00123"}],
    )
    image_url: str = Field(examples=["/v1/images/123/file"])


class Point(Image):
    """A neighbour."""

    score: float = Field(description="Cosine similarity to the query, -1..1.", examples=[0.987])


class Group(Schema):
    """Neighbours with the same value in the field that was grouped by."""

    value: bool | int | float | str = Field(
        description="The value that they share.", examples=["cat"], union_mode="left_to_right"
    )
    points: list[Point] = Field(description="The nearest of them, best first.")


class Points(Schema):
    """Neighbours, best first."""

    points: list[Point] = Field(description="Empty where `groups` were asked for.")
    groups: list[Group] | None = Field(
        description="The nearest groups, each by its nearest point; None without `group_by`."
    )
    next_cursor: str | None = Field(
        description="`cursor` of the next page; None on the last, under `diversity`, and where it"
        " would be longer than the limit.",
        examples=["eyJ2IjoxLCJzY29yZSI6MC45ODd9"],
    )
    vote: Vote | None = Field(description="None where no neighbour has a label.")
    model: str = Field(description="Digest of the model that answered.", examples=["sha256:8c4e…"])
    generation: int = Field(description="Number of the index that answered.")
    sequence: int = Field(
        description="Number of the last write that the answer knows of: pages by `offset` fit"
        " together while it stays the same."
    )
    time: dict[str, float] = Field(
        description="Milliseconds by stage.", examples=[{"search": 2.1, "payload": 0.4}]
    )


class SearchResponse(Points):
    """Class and neighbours of an uploaded picture."""

    prediction: Prediction


class ItemError(Schema):
    """Why one of several pictures could not be used."""

    type: str
    title: str
    status: int
    detail: str


class Classified(Schema):
    """One picture of several: its prediction, or why there is none."""

    filename: str | None
    prediction: Prediction | None = None
    tags: dict[str, float] = Field(
        default={},
        description="Finer tags that the nearest stored pictures have, each with the share of them"
        " that has it, most first; only with `tags=true`.",
        examples=[{"tabby": 0.6}],
    )
    error: ItemError | None = None


class ClassifyResponse(Schema):
    """One result for each picture, in the order sent."""

    results: list[Classified]
    model: str = Field(description="Digest of the model that answered.")
    generation: int = Field(description="Number of the index that serves.")
    time: dict[str, float]


class Found(Schema):
    """One picture of several: its class and neighbours, or why there are none."""

    filename: str | None
    result: SearchResponse | None = None
    error: ItemError | None = None


class BatchResponse(Schema):
    """One result for each picture, in the order sent."""

    results: list[Found]


class RecommendRequest(Schema):
    """Examples by id."""

    positive: list[ImageId] = Field(min_length=1, examples=[[1, 2]])
    negative: list[ImageId] = Field(default=[], examples=[[3]])
    strategy: Literal["average_vector", "best_score"] = "average_vector"
    limit: int = Field(default=12, ge=1)
    offset: int = Field(default=0, ge=0)
    score_threshold: float | None = Field(default=None, allow_inf_nan=False)
    filter: dict[str, Any] | None = Field(
        default=None, examples=[{"must": [{"key": "split", "match": {"value": "test"}}]}]
    )
    diversity: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Reorder by maximal marginal relevance.",
    )
    candidates: int | None = Field(
        default=None, description="How many of the best `diversity` chooses from; 200."
    )
    group_by: str | None = Field(default=None, description="Payload field to group by.")
    group_size: int | None = Field(default=None, description="Most points in a group; 3.")
    cursor: str | None = Field(default=None, description="`next_cursor` of the page before.")


class StoredImage(Image, Stamp):
    """What is stored about one picture."""


class Images(Stamp):
    """A page of stored pictures by ascending id."""

    points: list[Image]
    total: int = Field(description="How many match in all.")
    next_after: int | None = Field(description="`after` of the next page; None on the last.")


class Examples(Stamp):
    """Stored pictures to try a search with."""

    points: list[Image]


class LimitsInfo(Schema):
    """What one request may ask for."""

    max_upload_bytes: int
    max_pixels: int
    max_images: int
    max_limit: int
    max_offset: int
    max_examples: int
    max_candidates: int


class IndexInfo(Schema):
    """What is indexed, and by which model."""

    count: int
    kind: str = Field(examples=["exact"])
    dimension: int
    metric: str
    model: str
    generation: int
    built: str = Field(description="When this generation was built, ISO 8601, UTC.")
    sequence: int = Field(description="Number of the last write that searches find.")
    pending: Pending
    parameters: dict[str, Any] = Field(description="How this kind of index was set up.")
    recall: dict[str, float] | None = Field(
        description="Share of the `k` true nearest neighbours that it found over held-out"
        " `queries` when it was built; None for an exact index.",
        examples=[{"k": 10, "value": 0.9992, "queries": 256}],
    )
    corpus: str = Field(examples=["CIFAR-10"])
    sample: bool = Field(description="True where the corpus is only the rendered sample.")
    notice: str | None = Field(description="A warning to show to people, or None.")
    classes: list[str] = Field(description="What the model can predict.")
    labels: dict[str, int] = Field(description="Pictures by label.")
    splits: dict[str, int] = Field(description="Pictures by split.")
    limits: LimitsInfo


class Pending(Schema):
    """What the next generation will hold, and searches find already."""

    added: int = Field(description="Pictures added, or embedded anew, since this generation.")
    deleted: int = Field(description="Pictures of this generation that are no longer valid.")


class Progress(Schema):
    """How far a job is."""

    stage: str = Field(examples=["embedding"])
    done: int
    total: int


class Job(Schema):
    """Long work in the background."""

    id: str
    kind: str = Field(examples=["rebuild"])
    state: State = Field(
        description="`interrupted`: the server ended while it ran; `error` says what to do."
    )
    progress: Progress
    eta_seconds: float | None = Field(
        default=None, description="Time left of the present stage; None where unknown."
    )
    skipped: int = Field(
        default=0, description="Pictures left out so far; `/v1/jobs/{id}/log` gives the reasons."
    )
    started: float = Field(description="Seconds since 1970, UTC.")
    finished: float | None
    error: str | None
    result: dict[str, int] | None

    @staticmethod
    def of(job: EngineJob) -> Job:
        """From the job runner's own."""
        return Job(
            id=job.id,
            kind=job.kind,
            state=job.state,
            progress=Progress(stage=job.stage, done=job.done, total=job.total),
            eta_seconds=job.eta_seconds,
            skipped=job.skipped,
            started=job.started,
            finished=job.finished,
            error=job.error,
            result=job.result,
        )


class Jobs(Schema):
    """The last jobs, the newest first."""

    jobs: list[Job]


class JobLogEntry(Schema):
    """A picture that a job left out."""

    number: int = Field(description="Counts them from 0.")
    source: str = Field(description="The picture's name in the corpus.")
    reason: str


class JobLog(Schema):
    """A page of a job's log."""

    entries: list[JobLogEntry]
    total: int = Field(description="How many there are so far.")
    next_after: int | None = Field(description="`after` of the next page; None on the last.")


class Health(Schema):
    """Whether the process is alive, and whether it can answer searches."""

    status: Literal["ok", "starting"]


class ProblemResponse(BaseModel):
    """An error, as RFC 9457 problem+json. Some kinds have further members."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:lookalike:problem:not-a-picture"])
    title: str = Field(examples=["Unsupported Media Type"])
    status: int = Field(examples=[415])
    detail: str = Field(description="What was received, what was expected, what to do.")
    instance: str = Field(description="The path that was asked.", examples=["/v1/search"])
    request_id: str = Field(
        description="Also in the header `X-Request-ID`, and in the server's log.",
        examples=["3f2b8c1e9a4d4b0f8e6a7c5d2b1a0f9e"],
    )


def image(entry_id: int, payload: dict[str, Any]) -> Image:
    """A stored picture by id."""
    return Image(id=entry_id, payload=payload, image_url=image_url(entry_id))


def image_url(entry_id: int) -> str:
    """Where the picture itself is served."""
    return f"/v1/images/{entry_id}/file"


def points(result: SearchResult, longest_cursor: int | None = None) -> dict[str, Any]:
    """The members that every answer with neighbours has; a cursor up to that many characters."""
    groups = None
    if result.groups is not None:
        groups = [
            Group(value=group.value, points=[_point(point) for point in group.points])
            for group in result.groups
        ]
    return {
        "points": [_point(point) for point in result.points],
        "groups": groups,
        "next_cursor": result.cursor_text(longest_cursor),
        "vote": Vote(label=result.vote[0], share=result.vote[1]) if result.vote else None,
        "model": result.model,
        "generation": result.generation,
        "sequence": result.sequence,
        "time": result.time,
    }


def _point(point: EnginePoint) -> Point:
    entry = point.entry
    return Point(
        id=entry.id,
        score=point.score,
        payload=payload(entry.label, entry.split, entry.source, entry.payload),
        image_url=image_url(entry.id),
    )


def payload(
    label: str | None, split: str | None, source: str, stored: dict[str, Any]
) -> dict[str, Any]:
    """A picture's payload as callers see it: the fixed fields, then what was stored."""
    return {**stored, "label": label, "split": split, "source": source}
