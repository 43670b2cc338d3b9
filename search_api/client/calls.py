"""The API's operations as requests, for both clients: what to send and how to read the response."""

from __future__ import annotations

import json
import re
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

Payload = dict[str, Any]
"""What is stored with a picture: ``label``, ``split`` and anything else."""

Filter = dict[str, Any]
Direction = Literal["asc", "desc"]
"""``{"must": [...], "should": [...], "must_not": [...]}``."""

Strategy = Literal["average_vector", "best_score"]

# What the server accepts as a name; anything else in a path could lead to another route.
_JOB = re.compile(r"[A-Za-z0-9]+")
_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,199}")


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, which may be sent more than once, and how to read its response."""

    method: str
    path: str
    read: Callable[[httpx2.Response], T]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Retry:
    """When to send a rejected request again.

    Only after 429 and 503 with ``Retry-After``: the server has then not started on the request.

    Attributes:
        times: maximum number of retries.
        longest_seconds: longest acceptable wait; a longer one raises an error immediately.
    """

    times: int = 3
    longest_seconds: float = 10.0

    def wait(self, response: httpx2.Response, tried: int) -> float | None:
        """Seconds until the next attempt, or None to give up."""
        text = response.headers.get("retry-after", "")
        if response.status_code not in (429, 503) or tried >= self.times or not text.isdigit():
            return None
        seconds = float(text)
        return seconds if seconds <= self.longest_seconds else None


class PageOptions(TypedDict, total=False):
    """Which part of which ranking to return: ``schemas.PageParams`` and a filter.

    Spelt out for static type checkers.
    """

    limit: int
    offset: int
    score_threshold: float | None
    filter: Filter | None
    diversity: float | None
    candidates: int | None
    group_by: str | None
    group_size: int | None
    cursor: str | None


def headers(api_key: str | None) -> dict[str, str]:
    """The headers of every request."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def search(
    image: Picture, classes: schemas.Classes, page: PageOptions
) -> Call[schemas.SearchResponse]:
    """`POST /v1/search`."""
    params, files = {**_page(page), **_classes(classes)}, {"image": _file(image)}
    return _json(schemas.SearchResponse, "POST", "/v1/search", params=params, files=files)


def search_batch(
    images: Sequence[Picture], classes: schemas.Classes, page: PageOptions
) -> Call[schemas.BatchResponse]:
    """`POST /v1/search/batch`."""
    params, files = {**_page(page), **_classes(classes)}, _files("images", images)
    return _json(schemas.BatchResponse, "POST", "/v1/search/batch", params=params, files=files)


def classify(
    images: Sequence[Picture], tags: bool, classes: schemas.Classes
) -> Call[schemas.ClassifyResponse]:
    """`POST /v1/classify`."""
    params = {**({"tags": "true"} if tags else {}), **_classes(classes)}
    files = _files("images", images)
    return _json(schemas.ClassifyResponse, "POST", "/v1/classify", params=params, files=files)


def recommend(
    positive: Sequence[int], negative: Sequence[int], strategy: Strategy, page: PageOptions
) -> Call[schemas.Points]:
    """`POST /v1/recommend`."""
    body = _given(positive=list(positive), negative=list(negative), strategy=strategy, **page)
    return _json(schemas.Points, "POST", "/v1/recommend", json=body)


def recommend_images(
    positive_images: Sequence[Picture],
    negative_images: Sequence[Picture],
    positive: Sequence[int],
    negative: Sequence[int],
    strategy: Strategy,
    page: PageOptions,
) -> Call[schemas.Points]:
    """`POST /v1/recommend/images`."""
    files = [
        *_files("positive_images", positive_images),
        *_files("negative_images", negative_images),
    ]
    data = {
        "positive": [str(i) for i in positive],
        "negative": [str(i) for i in negative],
        "strategy": strategy,
    }
    path = "/v1/recommend/images"
    return _json(schemas.Points, "POST", path, params=_page(page), files=files, data=data)


def similar(image_id: int, page: PageOptions) -> Call[schemas.Points]:
    """`GET /v1/images/{id}/similar`."""
    return _json(schemas.Points, "GET", f"{_image_path(image_id)}/similar", params=_page(page))


def list_images(
    limit: int,
    after: int,
    where: Filter | None,
    order_by: str | None = None,
    direction: Direction | None = None,
    cursor: str | None = None,
) -> Call[schemas.Images]:
    """`GET /v1/images`."""
    params = _given(limit=limit, after=after, filter=_filter(where))
    params |= _given(order_by=order_by, direction=direction, cursor=cursor)
    return _json(schemas.Images, "GET", "/v1/images", params=params)


def examples(per_class: int) -> Call[schemas.Examples]:
    """`GET /v1/images/examples`."""
    params = {"per_class": per_class}
    return _json(schemas.Examples, "GET", "/v1/images/examples", params=params)


def get_image(image_id: int) -> Call[schemas.StoredImage]:
    """`GET /v1/images/{id}`."""
    return _json(schemas.StoredImage, "GET", _image_path(image_id))


def get_image_file(image_id: int, size: int | None) -> Call[bytes]:
    """`GET /v1/images/{id}/file`."""
    options = {"params": _given(size=size)}
    return Call("GET", f"{_image_path(image_id)}/file", lambda r: r.content, options)


def add_images(
    images: Sequence[Picture], keys: Sequence[str], payloads: Sequence[Payload], replace: bool
) -> Call[schemas.AddResponse]:
    """`POST /v1/images`."""
    data = {"key": list(keys), "payload": [json.dumps(payload) for payload in payloads]}
    if replace:  # earlier servers do not know it, and always replace
        data["replace"] = ["true"]
    files = _files("images", images)
    return _json(schemas.AddResponse, "POST", "/v1/images", files=files, data=data)


def change_image(image_id: int, payload: Payload, replace: bool) -> Call[schemas.StoredImage]:
    """`PATCH /v1/images/{id}`."""
    body = {"payload": payload, "replace": replace}
    return _json(schemas.StoredImage, "PATCH", _image_path(image_id), json=body)


def delete_image(image_id: int) -> Call[schemas.DeletedResponse]:
    """`DELETE /v1/images/{id}`."""
    return _json(schemas.DeletedResponse, "DELETE", _image_path(image_id))


def delete_images(ids: Sequence[int] | None, where: Filter | None) -> Call[schemas.DeletedResponse]:
    """`POST /v1/images/delete`."""
    body = {"ids": None if ids is None else list(ids), "filter": where}
    return _json(schemas.DeletedResponse, "POST", "/v1/images/delete", json=body)


def list_trash(limit: int, after: int) -> Call[schemas.Trash]:
    """`GET /v1/trash`."""
    return _json(schemas.Trash, "GET", "/v1/trash", params={"limit": limit, "after": after})


def restore_images(ids: Sequence[int] | None) -> Call[schemas.RestoredImages]:
    """`POST /v1/images/restore`."""
    body = {"last": True} if ids is None else {"ids": list(ids)}
    return _json(schemas.RestoredImages, "POST", "/v1/images/restore", json=body)


def purge_trash(ids: Sequence[int] | None) -> Call[schemas.PurgedImages]:
    """`POST /v1/trash/purge`."""
    body = {"all": True} if ids is None else {"ids": list(ids)}
    return _json(schemas.PurgedImages, "POST", "/v1/trash/purge", json=body)


def index_info() -> Call[schemas.IndexInfo]:
    """`GET /v1/index`."""
    return _json(schemas.IndexInfo, "GET", "/v1/index")


def rebuild_index(reembed: bool, allow_removal: bool) -> Call[schemas.Job]:
    """`POST /v1/index/rebuild`."""
    params = {"reembed": reembed, "allow_removal": allow_removal}
    return _json(schemas.Job, "POST", "/v1/index/rebuild", params=params)


def compact_index(kind: str | None) -> Call[schemas.Job]:
    """`POST /v1/index/compact`."""
    return _json(schemas.Job, "POST", "/v1/index/compact", params=_given(kind=kind))


def classifier() -> Call[schemas.ClassifierInfo]:
    """`GET /v1/classifier`."""
    return _json(schemas.ClassifierInfo, "GET", "/v1/classifier")


def fit_classifier() -> Call[schemas.Job]:
    """`POST /v1/classifier/fit`."""
    return _json(schemas.Job, "POST", "/v1/classifier/fit")


def list_jobs(limit: int) -> Call[schemas.Jobs]:
    """`GET /v1/jobs`."""
    return _json(schemas.Jobs, "GET", "/v1/jobs", params={"limit": limit})


def get_job(job_id: str) -> Call[schemas.Job]:
    """`GET /v1/jobs/{id}`."""
    return _json(schemas.Job, "GET", _job_path(job_id))


def cancel_job(job_id: str) -> Call[schemas.Job]:
    """`DELETE /v1/jobs/{id}`."""
    return _json(schemas.Job, "DELETE", _job_path(job_id))


def job_log(job_id: str, limit: int, after: int) -> Call[schemas.JobLog]:
    """`GET /v1/jobs/{id}/log`."""
    params = {"limit": limit, "after": after}
    return _json(schemas.JobLog, "GET", f"{_job_path(job_id)}/log", params=params)


def job_events(job_id: str) -> str:
    """The path of `GET /v1/jobs/{id}/events`."""
    return f"{_job_path(job_id)}/events"


def job_event(line: str, url: str) -> schemas.Job | None:
    """The job in a line of the event stream, or None for any other line."""
    if not line.startswith("data:"):
        return None
    return _parse(schemas.Job, line.removeprefix("data:").encode(), url)


def create_snapshot(name: str | None, allow_missing: bool) -> Call[schemas.SnapshotMade]:
    """`POST /v1/snapshots`."""
    # Earlier servers do not know the second member.
    body = {"name": name, **({"allow_missing": True} if allow_missing else {})}
    return _json(schemas.SnapshotMade, "POST", "/v1/snapshots", json=body)


def list_snapshots() -> Call[schemas.Snapshots]:
    """`GET /v1/snapshots`."""
    return _json(schemas.Snapshots, "GET", "/v1/snapshots")


def restore_snapshot(name: str, allow_missing: bool) -> Call[schemas.Restored]:
    """`POST /v1/snapshots/{name}/restore`."""
    params = _given(allow_missing=allow_missing or None)
    return _json(schemas.Restored, "POST", f"{_snapshot_path(name)}/restore", params=params)


def delete_snapshot(name: str) -> Call[None]:
    """`DELETE /v1/snapshots/{name}`."""
    return Call("DELETE", _snapshot_path(name), lambda response: None)


def list_models() -> Call[schemas.Models]:
    """`GET /v1/models`."""
    return _json(schemas.Models, "GET", "/v1/models")


def embed_with_model(digest: str) -> Call[schemas.Job]:
    """`POST /v1/models/{digest}/embed`."""
    return _json(schemas.Job, "POST", f"{_model_path(digest)}/embed")


def model_difference(digest: str, queries: int, k: int) -> Call[schemas.ModelDifference]:
    """`GET /v1/models/{digest}/diff`."""
    params = {"queries": queries, "k": k}
    return _json(schemas.ModelDifference, "GET", f"{_model_path(digest)}/diff", params=params)


def switch_model(digest: str) -> Call[schemas.Job]:
    """`POST /v1/models/{digest}/switch`."""
    return _json(schemas.Job, "POST", f"{_model_path(digest)}/switch")


def health(path: Literal["/livez", "/readyz", "/healthz"]) -> Call[schemas.Health]:
    """`GET /livez`, `/readyz` or `/healthz`."""
    return _json(schemas.Health, "GET", path)


def metrics() -> Call[str]:
    """`GET /metrics`."""
    return Call("GET", "/metrics", lambda response: response.text)


def _json(model: type[Model], method: str, path: str, **options: Any) -> Call[Model]:
    """A request whose response is JSON of ``model``."""

    def read(response: httpx2.Response) -> Model:
        return _parse(model, response.content, str(response.request.url.copy_with(query=None)))

    return Call(method, path, read, options)


def _parse(model: type[Model], content: bytes, url: str) -> Model:
    try:
        # A newer server may send members that this client does not know.
        return model.model_validate_json(content, extra="ignore")
    except ValidationError as error:
        raise UnreachableError(url, f"the response is not Lookalike's: {error.title}") from error


def _image_path(image_id: int) -> str:
    return f"/v1/images/{int(image_id)}"


def _job_path(job_id: str) -> str:
    if not _JOB.fullmatch(job_id):
        raise ValueError(f"{job_id!r} is not the id of a job; expected letters and digits")
    return f"/v1/jobs/{job_id}"


def _snapshot_path(name: str) -> str:
    if not _SNAPSHOT.fullmatch(name):
        raise ValueError(
            f"{name!r} is not the name of a snapshot; expected up to 100 letters, digits, dots,"
            " dashes and underscores, starting with a letter or digit"
        )
    return f"/v1/snapshots/{name}"


def _model_path(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(
            f"{digest!r} is not the digest of a model; expected one such as sha256:8c4e1f"
        )
    return f"/v1/models/{digest}"


def _files(name: str, images: Sequence[Picture]) -> list[tuple[str, tuple[str, bytes]]]:
    """Pictures as files of a form, all in fields called ``name``."""
    return [(name, _file(image)) for image in images]


def _file(image: Picture) -> tuple[str, bytes]:
    if not isinstance(image, Path):
        return "picture", image
    # A name on disk can be any bytes, in a form it is text.
    return image.name.encode("utf-8", "backslashreplace").decode(), image.read_bytes()


def _page(page: PageOptions) -> dict[str, Any]:
    return _given(**{**page, "filter": _filter(page.get("filter"))})


def _classes(classes: schemas.Classes) -> dict[str, str]:
    # Left out where possible: an older server does not know it.
    return {} if classes == "auto" else {"classes": classes}


def _filter(where: Filter | None) -> str | None:
    return None if where is None else json.dumps(where)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
