"""Checking that the bytes of added pictures are there, and are those that were added."""

import time
from collections.abc import Iterator
from itertools import chain

from index.contract import (
    BlobError,
    Blobs,
    CatalogueError,
    Finding,
    JobControl,
    Model,
    SnapshotError,
    Store,
)
from index.records import Entry

_PAGE = 1_000


def check_pictures(
    store: Store[Model], rate: float | None = None, control: JobControl = JobControl()
) -> list[Finding]:
    """Read every added picture that an entry or a snapshot refers to, and check its SHA-256.

    Args:
        store: the store.
        rate: how many bytes to read per second at most; None for as many as the disk gives.
        control: receives progress.

    Returns:
        A finding for each damaged or missing picture, which names all who refer to it; if all
        pictures are sound, one without a problem; nothing if there are no pictures.
    """
    findings, needed = [], store.catalogue.content_hashes("added")
    try:
        needed |= store.snapshots.content_hashes()
    except (SnapshotError, CatalogueError) as error:
        findings.append(Finding("pictures of snapshots", f"cannot be listed: {error}"))
    damaged: dict[str, str] = {}
    began, read = time.monotonic(), 0
    for done, name in enumerate(sorted(needed)):
        control.progress("checking pictures", done, len(needed))
        size, problem = _check(store.blobs, name)
        if problem is not None:
            damaged[name] = problem
        read += size
        if rate is not None:
            time.sleep(max(0.0, began + read / rate - time.monotonic()))
    control.progress("checking pictures", len(needed), len(needed))
    findings += _described(store, damaged)
    return findings or [Finding("pictures")][: len(needed)]


def _check(blobs: Blobs, name: str) -> tuple[int, str | None]:
    """How many bytes were read, and what is wrong with them."""
    try:
        return len(blobs.get(name)), None
    except BlobError as error:
        return 0, str(error)


def _described(store: Store[Model], damaged: dict[str, str]) -> Iterator[Finding]:
    if not damaged:
        return
    users = store.snapshots.referring(set(damaged))
    for content_hash, who in _entries(store, set(damaged)):
        users.setdefault(content_hash, []).insert(0, who)
    for name in damaged:
        # It may have been deleted, or added again, since.
        if name not in users or (problem := _check(store.blobs, name)[1]) is None:
            continue
        yield Finding(f"picture {name}", f"{problem}; it belongs to {'; '.join(users[name])}")


def _entries(store: Store[Model], content_hashes: set[str]) -> Iterator[tuple[str, str]]:
    for entry, where in chain(_indexed(store), _trashed(store)):
        if entry.origin == "added" and entry.content_hash in content_hashes:
            yield entry.content_hash or "", f"id {entry.id} ({entry.source}){where}"


def _indexed(store: Store[Model]) -> Iterator[tuple[Entry, str]]:
    after = -1
    while entries := store.catalogue.page(after, _PAGE):
        yield from ((entry, "") for entry in entries)
        after = entries[-1].id


def _trashed(store: Store[Model]) -> Iterator[tuple[Entry, str]]:
    after, trash = -1, store.catalogue.trash
    while trash.available and (found := trash.page(after, _PAGE)):
        yield from ((trashed.entry, " in the trash") for trashed in found)
        after = found[-1].entry.id
