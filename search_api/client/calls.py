"""The API's operations as requests, for both clients: what to send, how to read the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypedDict, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from search_api import schemas
from search_api.client.errors import UnreachableError

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

Picture = bytes | Path
"""An encoded picture, or the file that holds it."""

Filter = dict[str, Any]
"""``{"must": [...], "should": [...], "must_not": [...]}``."""

Strategy = Literal["average_vector", "best_score"]


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, which may be sent more than once, and how to read its answer."""

    method: str
    path: str
    read: Callable[[httpx2.Response], T]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Retry:
    """When a request that was refused for now is sent again.

    Only after 429 and 503 with ``Retry-After``: then the server has done nothing of it.

    Attributes:
        times: how often, at most.
        longest_seconds: the longest wait that is worth it; a longer one is an error at once.
    """

    times: int = 3
    longest_seconds: float = 10.0

    def wait(self, response: httpx2.Response, tried: int) -> float | None:
        """Seconds until the next try, or None to give up."""
        text = response.headers.get("retry-after", "")
        if response.status_code not in (429, 503) or tried >= self.times or not text.isdigit():
            return None
        seconds = float(text)
        return seconds if seconds <= self.longest_seconds else None


def headers(api_key: str | None) -> dict[str, str]:
    """What every request carries."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


class PageOptions(TypedDict, total=False):
    """Which part of which ranking is wanted; what all searches take."""

    limit: int
    offset: int
    score_threshold: float | None
    filter: Filter | None
    diversity: float | None
    candidates: int | None
    group_by: str | None
    group_size: int | None
    cursor: str | None


def search(image: Picture, page: PageOptions) -> Call[schemas.SearchResponse]:
    """`POST /v1/search`."""
    options = {"params": _page(page), "files": {"image": _file(image)}}
    return Call("POST", "/v1/search", _reads(schemas.SearchResponse), options)


def search_batch(images: Sequence[Picture], page: PageOptions) -> Call[schemas.BatchResponse]:
    """`POST /v1/search/batch`."""
    options = {"params": _page(page), "files": picture_files("images", images)}
    return Call("POST", "/v1/search/batch", _reads(schemas.BatchResponse), options)


def classify(images: Sequence[Picture], tags: bool) -> Call[schemas.ClassifyResponse]:
    """`POST /v1/classify`."""
    options: dict[str, Any] = {"files": picture_files("images", images)}
    if tags:
        options["params"] = {"tags": "true"}
    return Call("POST", "/v1/classify", _reads(schemas.ClassifyResponse), options)


def recommend(
    positive: Sequence[int], negative: Sequence[int], strategy: Strategy, page: PageOptions
) -> Call[schemas.Points]:
    """`POST /v1/recommend`."""
    asked = _some(positive=list(positive), negative=list(negative), strategy=strategy, **page)
    return Call("POST", "/v1/recommend", _reads(schemas.Points), {"json": asked})


def recommend_images(
    positive_images: Sequence[Picture],
    negative_images: Sequence[Picture],
    positive: Sequence[int],
    negative: Sequence[int],
    strategy: Strategy,
    page: PageOptions,
) -> Call[schemas.Points]:
    """`POST /v1/recommend/images`."""
    options = {
        "params": _page(page),
        "files": [
            *picture_files("positive_images", positive_images),
            *picture_files("negative_images", negative_images),
        ],
        "data": {
            "positive": [str(i) for i in positive],
            "negative": [str(i) for i in negative],
            "strategy": strategy,
        },
    }
    return Call("POST", "/v1/recommend/images", _reads(schemas.Points), options)


def similar(image_id: int, page: PageOptions) -> Call[schemas.Points]:
    """`GET /v1/images/{id}/similar`."""
    options = {"params": _page(page)}
    return Call("GET", f"/v1/images/{int(image_id)}/similar", _reads(schemas.Points), options)


def list_images(limit: int, after: int, where: Filter | None) -> Call[schemas.Images]:
    """`GET /v1/images`."""
    options = {"params": _some(limit=limit, after=after, filter=_filter(where))}
    return Call("GET", "/v1/images", _reads(schemas.Images), options)


def examples(per_class: int) -> Call[schemas.Examples]:
    """`GET /v1/images/examples`."""
    options = {"params": {"per_class": per_class}}
    return Call("GET", "/v1/images/examples", _reads(schemas.Examples), options)


def get_image(image_id: int) -> Call[schemas.StoredImage]:
    """`GET /v1/images/{id}`."""
    return Call("GET", f"/v1/images/{int(image_id)}", _reads(schemas.StoredImage))


def get_image_file(image_id: int, size: int | None) -> Call[bytes]:
    """`GET /v1/images/{id}/file`."""
    options = {"params": _some(size=size)}
    return Call("GET", f"/v1/images/{int(image_id)}/file", lambda r: r.content, options)


def index_info() -> Call[schemas.IndexInfo]:
    """`GET /v1/index`."""
    return Call("GET", "/v1/index", _reads(schemas.IndexInfo))


def rebuild_index(reembed: bool) -> Call[schemas.Job]:
    """`POST /v1/index/rebuild`."""
    options = {"params": {"reembed": reembed}}
    return Call("POST", "/v1/index/rebuild", _reads(schemas.Job), options)


def list_jobs(limit: int) -> Call[schemas.Jobs]:
    """`GET /v1/jobs`."""
    return Call("GET", "/v1/jobs", _reads(schemas.Jobs), {"params": {"limit": limit}})


def get_job(job_id: str) -> Call[schemas.Job]:
    """`GET /v1/jobs/{id}`."""
    return Call("GET", job_path(job_id), _reads(schemas.Job))


def job_log(job_id: str, limit: int, after: int) -> Call[schemas.JobLog]:
    """`GET /v1/jobs/{id}/log`."""
    options = {"params": {"limit": limit, "after": after}}
    return Call("GET", f"{job_path(job_id)}/log", _reads(schemas.JobLog), options)


def job_events(job_id: str) -> str:
    """The path of `GET /v1/jobs/{id}/events`."""
    return f"{job_path(job_id)}/events"


def job_event(line: str, url: str) -> schemas.Job | None:
    """The job in a line of the events, or None for any other line."""
    if not line.startswith("data:"):
        return None
    return _valid(schemas.Job, line.removeprefix("data:").encode(), url)


def health(path: Literal["/livez", "/readyz", "/healthz"]) -> Call[schemas.Health]:
    """`GET /livez`, `/readyz` or `/healthz`."""
    return Call("GET", path, _reads(schemas.Health))


def metrics() -> Call[str]:
    """`GET /metrics`."""
    return Call("GET", "/metrics", lambda response: response.text)


def answered(model: type[Model], method: str, path: str, **options: Any) -> Call[Model]:
    """A request that is answered with JSON of this model."""
    return Call(method, path, _reads(model), options)


def job_path(job_id: str) -> str:
    """The path of a job. Raises ValueError for what is no id: it could lead elsewhere."""
    if not (job_id.isascii() and job_id.isalnum()):
        raise ValueError(f"{job_id!r} is not the id of a job; expected letters and digits")
    return f"/v1/jobs/{job_id}"


def picture_files(name: str, images: Sequence[Picture]) -> list[tuple[str, tuple[str, bytes]]]:
    """Pictures as files of a form, all in fields of this name."""
    return [(name, _file(image)) for image in images]


def _reads(model: type[Model]) -> Callable[[httpx2.Response], Model]:
    def read(response: httpx2.Response) -> Model:
        return _valid(model, response.content, str(response.request.url.copy_with(query=None)))

    return read


def _valid(model: type[Model], content: bytes, url: str) -> Model:
    try:
        # A newer server may say more than this client knows.
        return model.model_validate_json(content, extra="ignore")
    except ValidationError as error:
        raise UnreachableError(url, f"the answer is not Lookalike's: {error.title}") from error


def _job(job_id: str) -> str:
    if not job_id.isalnum():
        raise ValueError(f"{job_id!r} is not the id of a job; expected letters and digits")
    return f"/v1/jobs/{job_id}"


def _file(image: Picture) -> tuple[str, bytes]:
    return (image.name, image.read_bytes()) if isinstance(image, Path) else ("picture", image)


def _page(page: PageOptions) -> dict[str, Any]:
    return _some(**{**page, "filter": _filter(page.get("filter"))})


def _filter(where: Filter | None) -> str | None:
    return None if where is None else json.dumps(where)


def _some(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
