"""What each exception means: HTTP status, kind of problem and exit code."""

from __future__ import annotations

import errno
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

from embed.decoding import limits
from embed.pictures import PictureError
from index import contract
from index.milvus.connection import MilvusUnavailableError
from search_api import service
from search_api.api.errors import as_problem
from search_api.jobs import runner
from search_api.jobs.model import Job
from search_api.problems import EXPECTED, MEANINGS, PICTURE_STATUS, Meaning, meaning
from search_api.service import batching, cursors, ingest, model_migration, page
from search_api.service.following import comparison
from search_api.service.labelling import classes

UNAVAILABLE = Meaning(503, "store-unavailable", 1)
NOTHING_TO_SERVE = Meaning(503, "store-unavailable", 2)
EXPECTED_MEANINGS: dict[type[Exception], Meaning | None] = {
    contract.IndexInputError: Meaning(422, "invalid-input", 2),
    contract.FilterError: Meaning(422, "invalid-input", 2),
    contract.UnknownIdError: Meaning(404, "unknown-id", 2),
    contract.EngineCannotError: Meaning(501, "not-with-this-index", 2),
    contract.StoreBusyError: Meaning(409, "store-busy", 1),
    comparison.RemovalError: Meaning(409, "too-many-removals", 2),
    contract.ModelChangedError: Meaning(409, "model-changed", 2),
    contract.StateGoneError: UNAVAILABLE,
    contract.NoSpaceError: Meaning(507, "no-space", 1),
    contract.ReadOnlyError: Meaning(409, "read-only-store", 2),
    contract.QuotaError: Meaning(507, "quota-exceeded", 1),
    contract.CatalogueError: UNAVAILABLE,
    contract.BlobError: UNAVAILABLE,
    contract.GenerationError: UNAVAILABLE,
    contract.GenerationCorruptError: UNAVAILABLE,
    contract.GenerationAheadError: UNAVAILABLE,
    contract.GenerationFormatError: UNAVAILABLE,
    contract.NoGenerationError: NOTHING_TO_SERVE,
    contract.ModelMismatchError: NOTHING_TO_SERVE,
    contract.SnapshotError: UNAVAILABLE,
    contract.SnapshotCorruptError: UNAVAILABLE,
    contract.SnapshotFormatError: UNAVAILABLE,
    contract.UnknownSnapshotError: Meaning(404, "unknown-snapshot", 2),
    contract.SnapshotExistsError: Meaning(409, "snapshot-exists", 2),
    contract.SnapshotIncompleteError: Meaning(409, "snapshot-incomplete", 1),
    contract.SnapshotBusyError: Meaning(409, "snapshot-busy", 1),
    contract.BlobsBusyError: Meaning(409, "pictures-busy", 1),
    contract.RestoreConflictError: Meaning(409, "restore-conflict", 2),
    contract.SnapshotModelError: Meaning(409, "snapshot-of-another-model", 2),
    # These do not leave the code that handles them: a build, a job, the start of a service.
    contract.IndexFileError: None,
    contract.UnknownKindError: None,
    contract.CancelledError: None,
    runner.JobRunningError: Meaning(409, "job-running", 1),
    runner.JobFinishedError: Meaning(409, "job-finished", 1),
    ingest.KeyExistsError: Meaning(409, "key-exists", 1),
    batching.QueueFullError: Meaning(429, "queue-full", 1),
    limits.DecodersBusyError: Meaning(503, "decoders-busy", 1),
    classes.NoClassesError: Meaning(409, "no-classes", 2),
    cursors.CursorError: Meaning(422, "cursor", 2),
    cursors.CursorModelError: Meaning(409, "model-changed", 2),
    model_migration.UnknownModelError: Meaning(404, "unknown-model", 2),
    page.PageError: Meaning(422, "limit", 2),
}
"""Where several classes apply to an exception, the nearest one counts."""


def errors_of(module: ModuleType) -> set[type[Exception]]:
    """The exception classes that a module defines."""
    return {
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Exception) and value.__module__ == module.__name__
    }


def made(error: type[Exception]) -> Exception:
    """An exception of this class."""
    if error is contract.UnknownIdError:
        return contract.UnknownIdError([7], "the catalogue")
    if error is contract.RestoreConflictError:
        return contract.RestoreConflictError({7: 8})
    if error is runner.JobRunningError:
        return runner.JobRunningError(Job("j", "rebuild", "running"))
    if error is ingest.KeyExistsError:
        return ingest.KeyExistsError("cat-1", 7)
    if error is batching.QueueFullError:
        return batching.QueueFullError(3, 2, 1)
    if error is page.PageError:
        return page.PageError("limit", "limit is 0")
    return error("what went wrong")


def test_every_exception_of_the_contract_and_the_service_is_listed() -> None:
    names = (
        module.name for module in pkgutil.walk_packages(service.__path__, "search_api.service.")
    )
    modules = [contract, runner, limits, *map(importlib.import_module, names)]
    assert set().union(*map(errors_of, modules)) - {PictureError} == set(EXPECTED_MEANINGS)


@pytest.mark.parametrize("error", EXPECTED_MEANINGS, ids=lambda error: error.__name__)
def test_meaning(error: type[Exception]) -> None:
    expected, raised = EXPECTED_MEANINGS[error], made(error)
    assert meaning(raised) == expected
    problem = as_problem(raised)
    if expected is None:
        assert (problem.status, problem.kind) == (500, "internal")
    else:
        assert (problem.status, problem.kind) == expected[:2]
        assert isinstance(raised, EXPECTED)
        # The command line takes every ValueError as wrong use, and every RuntimeError as failure.
        assert not isinstance(raised, ValueError) or expected.exit_code == 2
        assert not isinstance(raised, RuntimeError) or expected.exit_code == 1


@pytest.mark.parametrize("reason", PICTURE_STATUS)
def test_a_picture(reason: str) -> None:
    error = PictureError(reason, "what is wrong with it")
    assert meaning(error) == Meaning(PICTURE_STATUS[reason], reason, 2)


def test_a_subclass_means_what_its_nearest_base_does() -> None:
    class Closer(contract.ModelMismatchError):
        pass

    assert meaning(Closer("another model")) == NOTHING_TO_SERVE
    assert meaning(MilvusUnavailableError("does not respond")) == UNAVAILABLE


def test_an_unknown_exception_means_nothing_to_callers() -> None:
    assert meaning(ZeroDivisionError()) is None
    assert meaning(ValueError()) is None
    assert not isinstance(ZeroDivisionError(), EXPECTED)


def test_problems_carry_what_callers_need() -> None:
    assert as_problem(made(contract.UnknownIdError)).more == {"ids": [7]}
    assert as_problem(made(runner.JobRunningError)).more == {"job": "j"}
    assert as_problem(contract.StoreBusyError("busy", "j")).more == {"job": "j"}
    assert as_problem(made(batching.QueueFullError)).headers == {"Retry-After": "1"}
    for error in MEANINGS:
        problem = as_problem(made(error))
        assert ("Retry-After" in problem.headers) == (problem.status in (429, 503))


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/a/path"), "file handles"),
        (OSError(errno.ENFILE, "Too many open files in system"), "file handles"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (MemoryError(), "memory"),
        (RuntimeError("can't start new thread"), "memory"),
    ],
)
def test_a_process_that_has_run_out_of_something(error: Exception, what: str) -> None:
    assert meaning(error) == Meaning(503, "exhausted", 1)
    problem = as_problem(error)
    assert (problem.status, problem.headers) == (503, {"Retry-After": "2"})
    assert problem.detail.startswith(f"the {what} of this process")
    assert meaning(OSError(errno.EACCES, "Permission denied")) is None


def test_a_file_system_that_is_read_only() -> None:
    found = meaning(OSError(errno.EROFS, "Read-only file system"))
    assert found == Meaning(409, "read-only-store", 2)
