"""The commands with `--server`: the server does the work, and no model is loaded here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from embed.pictures import PictureError, read_file
from search_api.cli.options import Bars, secret_option, together
from search_api.client import Client, Picture, ProblemError, UnreachableError
from search_api.schemas import Classes, Classified, ItemError, Job

_BATCH = 64
_BATCH_BYTES = 16 * 2**20
_POLL_SECONDS = 0.3

server_options = together(
    click.option(
        "--server",
        envvar="LOOKALIKE_SERVER",
        show_envvar=True,
        metavar="URL",
        help="Let the server at this URL do the work, such as http://127.0.0.1:8000.",
    ),
    secret_option("api-key", "LOOKALIKE_API_KEY", "File with the API key for the server."),
)


@contextmanager
def connect(server: str, api_key: str | None) -> Iterator[Client]:
    """A client whose errors become a single line and exit code 2."""
    try:
        with Client(server, api_key) as client:
            yield client
    except UnreachableError as error:
        raise click.ClickException(str(error)) from None
    except ProblemError as error:
        raise click.ClickException(f"{server} refused the request: {error.detail}") from None


def classify(
    client: Client, files: Sequence[Path], tags: bool = False, classes: Classes = "auto"
) -> Iterator[list[tuple[Path, Classified]]]:
    """Each file with its class and tags, or its error, batch by batch, in the given order."""
    most = min(_BATCH, client.index_info().limits.max_images)
    batch: list[tuple[Path, bytes | str]] = []
    held = 0
    for file in files:
        content = _read(file)
        if batch and (len(batch) >= most or held + len(content) > _BATCH_BYTES):
            yield _classify(client, batch, tags, classes)
            batch, held = [], 0
        batch.append((file, content))
        held += len(content)
    if batch:
        yield _classify(client, batch, tags, classes)


def rebuild(client: Client, reembed: bool, allow_removal: bool) -> Job:
    """Start a rebuild on the server, and show its progress until it ends.

    Raises:
        RuntimeError: the rebuild failed or was cancelled.
    """
    job = client.rebuild_index(reembed=reembed, allow_removal=allow_removal)
    return followed(client, job, "rebuild")


def followed(client: Client, job: Job, what: str) -> Job:
    """Show the progress of a job on the server until it ends; ``what`` names its work.

    Raises:
        RuntimeError: it failed or was cancelled.
    """
    with Bars() as bars:
        while job.finished is None:
            time.sleep(_POLL_SECONDS)
            job = client.get_job(job.id)
            bars(job.progress.stage, job.progress.done, job.progress.total)
    if job.state != "succeeded":
        raise RuntimeError(f"the {what} on {client.url} failed: {job.error}")
    return job


def status(client: Client) -> dict[str, Any]:
    """The contents of the server's index, by the names that `lookalike index status` prints."""
    info = client.index_info()
    return {
        "server": client.url,
        "corpus": info.corpus,
        "indexed": info.count,
        "generation": info.generation,
        "built": info.built,
        "kind": info.kind,
        "dimension": info.dimension,
        "model": info.model,
        "labels": info.labels,
        "splits": info.splits,
    }


def _read(file: Path) -> bytes | str:
    try:
        return read_file(file)
    except (PictureError, OSError) as error:
        return getattr(error, "strerror", None) or str(error)


def _classify(
    client: Client, batch: Sequence[tuple[Path, bytes | str]], tags: bool, classes: Classes
) -> list[tuple[Path, Classified]]:
    pictures: list[Picture] = [content for _, content in batch if isinstance(content, bytes)]
    answers = iter(
        client.classify(pictures, tags=tags, classes=classes).results if pictures else []
    )
    return [
        (file, next(answers) if isinstance(content, bytes) else _unreadable(file, content))
        for file, content in batch
    ]


def _unreadable(file: Path, why: str) -> Classified:
    error = ItemError(type="about:blank", title="unreadable", status=422, detail=why)
    return Classified(filename=file.name, error=error)
