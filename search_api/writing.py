"""What the routes that write share: reading their input, and folding when enough has changed."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import UploadFile

from index.catalogue import KEEP, Keep
from index.payload import Payload
from search_api.context import Context
from search_api.errors import Problem
from search_api.jobs import Job, JobRunningError
from search_api.store import StoreBusyError
from search_api.tasks import Task
from search_api.writer import Upload

log = logging.getLogger(__name__)
_FIXED = ("label", "split")


def fold_if_due(context: Context) -> None:
    """Start a compaction where more has changed than the limit allows, unless something runs."""
    engine, limits = context.engine, context.limits
    pending = engine.pending()
    if pending < max(limits.fold_least, int(limits.fold_share * engine.manifest.count)):
        return
    try:
        job = start_compaction(context)
        log.info("%d changes since the index was built: folding them in, job %s", pending, job.id)
    except (JobRunningError, StoreBusyError):
        pass  # what runs folds them in too, or a later write starts it


def start_compaction(context: Context) -> Job:
    """Start the job `compact`.

    Raises:
        JobRunningError: a job runs in this process.
        StoreBusyError: another process is building.
    """
    job_id = uuid.uuid4().hex

    if context.jobs.running is None:
        context.engine.store.check_free()
    task = Task("compact", job_id)
    return context.jobs.start("compact", partial(context.perform, task), job_id)


def uploads(
    images: Sequence[UploadFile], keys: Sequence[str], payloads: Sequence[str], max_bytes: int
) -> list[Upload]:
    """Each picture with its key and payload.

    Raises:
        Problem: 422 where their numbers do not fit, or a payload is no JSON object.
    """
    if keys and len(keys) != len(images):
        raise Problem(
            422,
            "key",
            f"{len(keys)} keys for {len(images)} pictures; send one `key` for each, or none",
        )
    if len(set(keys)) != len(keys):
        raise Problem(422, "key", "a key is given more than once; send each key once")
    if any(not key or len(key) > 1000 for key in keys):
        raise Problem(422, "key", "a key is empty or too long; expected 1 to 1000 characters")
    if len(payloads) not in (0, 1, len(images)):
        raise Problem(
            422,
            "payload",
            f"{len(payloads)} payloads for {len(images)} pictures; send one for all, one for each,"
            " or none",
        )
    parsed = [_object(text) for text in payloads] or [{}]
    if len(parsed) == 1:
        parsed *= len(images)
    return [
        Upload(
            # One byte more than the limit: decoding refuses it, and says so.
            image.file.read(max_bytes + 1),
            keys[row] if keys else None,
            _text(parsed[row], "label"),
            _text(parsed[row], "split"),
            {name: value for name, value in parsed[row].items() if name not in _FIXED},
        )
        for row, image in enumerate(images)
    ]


def change(payload: dict[str, Any] | None) -> dict[str, Any]:
    """A change of `payload` as the writer takes it: the fixed fields apart."""
    if payload is None:
        return {}
    _refuse_source(payload)
    fixed: dict[str, str | Keep | None] = {
        name: _text(payload, name) if name in payload else KEEP for name in _FIXED
    }
    rest: Payload = {name: value for name, value in payload.items() if name not in _FIXED}
    return {**fixed, "payload": rest}


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem(422, "payload", f"payload is not JSON ({error}); send an object") from error
    if not isinstance(value, dict):
        raise Problem(422, "payload", f"payload is {text[:100]}; expected a JSON object")
    _refuse_source(value)
    return value


def _refuse_source(payload: dict[str, Any]) -> None:
    if "source" in payload:
        raise Problem(
            422,
            "payload",
            "payload has `source`, which the service sets; use `key` or leave it out",
        )


def _text(payload: dict[str, Any], name: str) -> str | None:
    value = payload.get(name)
    if value is not None and not isinstance(value, str):
        raise Problem(422, "payload", f"payload.{name} is {value!r}; expected text or null")
    return value
