"""The API's operations that change what is stored as requests, for both clients."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from search_api import schemas, schemas_writes
from search_api.client.calls import Call, Filter, Picture, answered, job_path, picture_files

Payload = dict[str, Any]
"""What is stored with a picture: ``label``, ``split`` and whatever else."""

# What the server takes as such a name; a path made of anything else could lead elsewhere.
_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,199}")


def add_images(
    images: Sequence[Picture], keys: Sequence[str], payloads: Sequence[Payload]
) -> Call[schemas_writes.AddResponse]:
    """`POST /v1/images`."""
    data = {"key": list(keys), "payload": [json.dumps(payload) for payload in payloads]}
    files = picture_files("images", images)
    return answered(schemas_writes.AddResponse, "POST", "/v1/images", files=files, data=data)


def change_image(image_id: int, payload: Payload, replace: bool) -> Call[schemas.StoredImage]:
    """`PATCH /v1/images/{id}`."""
    body = {"payload": payload, "replace": replace}
    return answered(schemas.StoredImage, "PATCH", f"/v1/images/{int(image_id)}", json=body)


def delete_image(image_id: int) -> Call[schemas_writes.DeletedResponse]:
    """`DELETE /v1/images/{id}`."""
    path = f"/v1/images/{int(image_id)}"
    return answered(schemas_writes.DeletedResponse, "DELETE", path)


def delete_images(
    ids: Sequence[int] | None, where: Filter | None
) -> Call[schemas_writes.DeletedResponse]:
    """`POST /v1/images/delete`."""
    body = {"ids": None if ids is None else list(ids), "filter": where}
    return answered(schemas_writes.DeletedResponse, "POST", "/v1/images/delete", json=body)


def compact_index(kind: str | None) -> Call[schemas.Job]:
    """`POST /v1/index/compact`."""
    params = {} if kind is None else {"kind": kind}
    return answered(schemas.Job, "POST", "/v1/index/compact", params=params)


def cancel_job(job_id: str) -> Call[schemas.Job]:
    """`DELETE /v1/jobs/{id}`."""
    return answered(schemas.Job, "DELETE", job_path(job_id))


def create_snapshot(name: str | None) -> Call[schemas_writes.SnapshotMade]:
    """`POST /v1/snapshots`."""
    body = {"name": name}
    return answered(schemas_writes.SnapshotMade, "POST", "/v1/snapshots", json=body)


def list_snapshots() -> Call[schemas_writes.Snapshots]:
    """`GET /v1/snapshots`."""
    return answered(schemas_writes.Snapshots, "GET", "/v1/snapshots")


def restore_snapshot(name: str) -> Call[schemas_writes.Restored]:
    """`POST /v1/snapshots/{name}/restore`."""
    return answered(schemas_writes.Restored, "POST", f"{_snapshot_path(name)}/restore")


def delete_snapshot(name: str) -> Call[None]:
    """`DELETE /v1/snapshots/{name}`."""
    return Call("DELETE", _snapshot_path(name), lambda response: None)


def list_models() -> Call[schemas_writes.Models]:
    """`GET /v1/models`."""
    return answered(schemas_writes.Models, "GET", "/v1/models")


def embed_with_model(digest: str) -> Call[schemas.Job]:
    """`POST /v1/models/{digest}/embed`."""
    return answered(schemas.Job, "POST", f"{_model_path(digest)}/embed")


def model_difference(digest: str, queries: int, k: int) -> Call[schemas_writes.ModelDifference]:
    """`GET /v1/models/{digest}/diff`."""
    path = f"{_model_path(digest)}/diff"
    params = {"queries": queries, "k": k}
    return answered(schemas_writes.ModelDifference, "GET", path, params=params)


def switch_model(digest: str) -> Call[schemas.Job]:
    """`POST /v1/models/{digest}/switch`."""
    return answered(schemas.Job, "POST", f"{_model_path(digest)}/switch")


def _snapshot_path(name: str) -> str:
    if not _SNAPSHOT.fullmatch(name):
        raise ValueError(
            f"{name!r} is not the name of a snapshot; expected up to 100 letters, digits, dots,"
            " dashes and underscores, a letter or digit first"
        )
    return f"/v1/snapshots/{name}"


def _model_path(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is not the digest of a model; expected such as sha256:8c4e1f")
    return f"/v1/models/{digest}"
