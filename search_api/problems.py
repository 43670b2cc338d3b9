"""What each exception means to callers: HTTP status, kind of problem, exit code.

The HTTP API and the command line both read this table, so that an error means the same in both.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from embed.pictures import DecodersBusyError, PictureError
from index.contract import (
    BlobError,
    BlobsBusyError,
    CatalogueError,
    EngineCannotError,
    GenerationError,
    IndexInputError,
    ModelChangedError,
    ModelMismatchError,
    NoGenerationError,
    NoSpaceError,
    QuotaError,
    ReadOnlyError,
    RestoreConflictError,
    SnapshotBusyError,
    SnapshotError,
    SnapshotExistsError,
    SnapshotIncompleteError,
    SnapshotModelError,
    StateGoneError,
    StoreBusyError,
    UnknownIdError,
    UnknownSnapshotError,
)
from index.scans import FilterTimeoutError, ScansBusyError
from search_api.jobs.runner import JobFinishedError, JobRunningError
from search_api.service.batching import QueueFullError
from search_api.service.cursors import CursorError, CursorModelError
from search_api.service.following.comparison import RemovalError
from search_api.service.ingest import KeyExistsError
from search_api.service.labelling.classes import NoClassesError
from search_api.service.model_migration import UnknownModelError
from search_api.service.page import PageError

PICTURE_STATUS = {
    "empty": 422,
    "too-large": 413,
    "too-many-pixels": 413,
    "too-costly": 413,
    "not-a-picture": 415,
    "truncated": 422,
    "undecodable": 422,
}
"""HTTP status for each ``PictureError.reason``."""


class Meaning(NamedTuple):
    """HTTP ``status``, ``kind`` for programs, ``exit_code`` of the command line."""

    status: int
    kind: str
    exit_code: int


_WRONG_USE, _FAILURE = 2, 1
_UNAVAILABLE = Meaning(503, "store-unavailable", _FAILURE)
_EXHAUSTED = Meaning(503, "exhausted", _FAILURE)
_NO_SPACE = Meaning(507, "no-space", _FAILURE)
_READ_ONLY = Meaning(409, "read-only-store", _WRONG_USE)

MEANINGS: dict[type[Exception], Meaning] = {
    UnknownIdError: Meaning(404, "unknown-id", _WRONG_USE),
    CursorError: Meaning(422, "cursor", _WRONG_USE),
    CursorModelError: Meaning(409, "model-changed", _WRONG_USE),
    IndexInputError: Meaning(422, "invalid-input", _WRONG_USE),
    FilterTimeoutError: Meaning(422, "filter-timeout", _FAILURE),
    ScansBusyError: Meaning(503, "filters-busy", _FAILURE),
    KeyExistsError: Meaning(409, "key-exists", _FAILURE),
    JobRunningError: Meaning(409, "job-running", _FAILURE),
    JobFinishedError: Meaning(409, "job-finished", _FAILURE),
    QueueFullError: Meaning(429, "queue-full", _FAILURE),
    DecodersBusyError: Meaning(503, "decoders-busy", _FAILURE),
    RemovalError: Meaning(409, "too-many-removals", _WRONG_USE),
    StoreBusyError: Meaning(409, "store-busy", _FAILURE),
    NoClassesError: Meaning(409, "no-classes", _WRONG_USE),
    UnknownModelError: Meaning(404, "unknown-model", _WRONG_USE),
    UnknownSnapshotError: Meaning(404, "unknown-snapshot", _WRONG_USE),
    SnapshotExistsError: Meaning(409, "snapshot-exists", _WRONG_USE),
    SnapshotIncompleteError: Meaning(409, "snapshot-incomplete", _FAILURE),
    SnapshotBusyError: Meaning(409, "snapshot-busy", _FAILURE),
    BlobsBusyError: Meaning(409, "pictures-busy", _FAILURE),
    SnapshotModelError: Meaning(409, "snapshot-of-another-model", _WRONG_USE),
    RestoreConflictError: Meaning(409, "restore-conflict", _WRONG_USE),
    ModelChangedError: Meaning(409, "model-changed", _WRONG_USE),
    EngineCannotError: Meaning(501, "not-with-this-index", _WRONG_USE),
    NoGenerationError: _UNAVAILABLE._replace(exit_code=_WRONG_USE),
    ModelMismatchError: _UNAVAILABLE._replace(exit_code=_WRONG_USE),
    NoSpaceError: _NO_SPACE,
    ReadOnlyError: _READ_ONLY,
    QuotaError: Meaning(507, "quota-exceeded", _FAILURE),
    CatalogueError: _UNAVAILABLE,
    GenerationError: _UNAVAILABLE,
    SnapshotError: _UNAVAILABLE,
    StateGoneError: _UNAVAILABLE,
    BlobError: _UNAVAILABLE,
}
"""The nearest base class of an exception counts."""

EXPECTED: tuple[type[Exception], ...] = (PictureError, PageError, *MEANINGS)
"""Errors that callers cause or may encounter; any other exception is a bug."""


def is_full(error: BaseException | None) -> bool:
    """Whether an error means that a disk, or its quota, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def exhausted(error: BaseException | None) -> str | None:
    """What this process has run out of, as a sentence; None if the error means something else."""
    no_thread = isinstance(error, RuntimeError) and str(error) == "can't start new thread"
    no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or no_memory or no_thread:
        return "the memory of this process is used up; try again later, or allow more"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "the file handles of this process are used up; try again later, or allow more"
    return None


def meaning(error: Exception) -> Meaning | None:
    """What an exception means to callers; None if it is a bug."""
    if isinstance(error, PictureError):
        return Meaning(PICTURE_STATUS[error.reason], error.reason, _WRONG_USE)
    if isinstance(error, PageError):
        return Meaning(422, error.parameter, _WRONG_USE)
    if is_full(error):
        return _NO_SPACE
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return _READ_ONLY
    if exhausted(error) is not None:
        return _EXHAUSTED
    return next((MEANINGS[cls] for cls in type(error).__mro__ if cls in MEANINGS), None)
