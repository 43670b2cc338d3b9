"""What the routes that write share: reading their input, and folding when enough has changed."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import UploadFile
from starlette.concurrency import run_in_threadpool

from index.catalogue import KEEP, CatalogueError, Keep
from index.payload import Payload
from index.snapshots import SnapshotError
from index.stores import StateGoneError
from search_api.changeover import encoder_in_use
from search_api.context import Context
from search_api.errors import Problem
from search_api.jobs import Job, JobRunningError
from search_api.store import StoreBusyError
from search_api.tasks import Task
from search_api.writer import Upload

log = logging.getLogger(__name__)
_FIXED = ("label", "split")
_LOOK_SECONDS = 10.0
_REST_SECONDS = 600.0


def fold_if_due(context: Context) -> Job | None:
    """Start a compaction where more has changed than the limit allows, unless something runs.

    Also where a change of model was interrupted before its index was made: nothing can be added
    until that serves.
    """
    engine, limits = context.engine, context.limits
    model, encoder = engine.catalogue.model(), encoder_in_use(engine)
    if model not in (None, encoder.digest):
        return None  # the store went over to a model that this process cannot have
    manifest, pending = engine.manifest, engine.pending()
    few = pending < max(limits.fold_least, int(limits.fold_share * manifest.count))
    if few and encoder.digest == manifest.model_digest:
        return None
    try:
        job = start_compaction(context)
    except (JobRunningError, StoreBusyError):
        return None  # what runs folds them in too, or a later look starts it
    log.info("%d changes since the index was built: folding them in, job %s", pending, job.id)
    return job


async def fold_from_time_to_time(context: Context) -> None:
    """Look at the start, and every few seconds, whether to fold; for ever.

    What is written from the command line, or through a server that has ended, starts nothing.
    """
    job: Job | None = None
    while True:
        now = None if job is None else context.jobs.own(job.id)
        if now is not None and now.state == "failed":
            job = None
            await asyncio.sleep(_REST_SECONDS)  # what was wrong then is so still, as a rule
        elif now is not None and now.finished is None:
            pass  # were it to fail during a look, that look would start it again at once
        elif context.engine.ready and not context.draining.is_set():
            try:
                job = await run_in_threadpool(fold_if_due, context) or job
            except (CatalogueError, SnapshotError, StateGoneError) as error:
                log.warning("cannot tell whether to fold changes into the index: %s", error)
        await asyncio.sleep(_LOOK_SECONDS)


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
