"""The user's snapshots: copies of everything that is indexed, to restore later.

::

    root/snapshots/<name>/catalogue.sqlite    a copy of the catalogue
    root/snapshots/<name>/snapshot.json       what it holds, with checksums

Added pictures are stored once, however many snapshots refer to them: see `index.blobs`. The index
is not copied, because it can be rebuilt from the catalogue.

A snapshot is made in a temporary folder that its maker has locked, checked as a restore would check
it, and only then renamed. Who reads a snapshot holds a shared lock on its folder, and who deletes
one an exclusive lock.
"""

import fcntl
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from index.blobs.folder import FolderBlobs
from index.contract import (
    EARLIER_CORPUS_NAMES,
    Blobs,
    CatalogueError,
    IndexInputError,
    Purged,
    Snapshot,
    SnapshotBusyError,
    SnapshotCorruptError,
    SnapshotError,
    SnapshotExistsError,
    SnapshotFormatError,
    SnapshotIncompleteError,
    SnapshotModelError,
    UnknownSnapshotError,
)
from index.files import (
    drop_cached,
    fsync_file,
    fsync_folder,
    make_folder,
    open_regular,
    remove_folder,
    sha256_of,
)
from index.local.backups import check_tables
from index.local.catalogue import SqliteCatalogue, check_state
from index.local.database import distrust
from index.local.manifest import checksum_of, with_checksum
from index.local.schema import crc
from index.temporaries import TEMPORARY, is_at, is_locked, temporary_folder

FORMAT_VERSION = 1
_CATALOGUE = "catalogue.sqlite"
_DESCRIPTION = "snapshot.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PATIENCE = 30.0
"""Seconds to wait for another maker of the same snapshot, and before deleting one in use."""
_POLL_SECONDS = 0.05
_SHOWN = 3
_LARGEST_DESCRIPTION = 2**20


def create(
    root: Path,
    catalogue: SqliteCatalogue,
    name: str | None = None,
    *,
    blobs: Blobs | None = None,
    allow_missing: bool = False,
) -> Snapshot:
    """Write a snapshot of one consistent state of the catalogue, while others read and write.

    It can be restored when this returns: the copy has been read back, every record checked, and the
    bytes of the added pictures were there, unless ``allow_missing``. Without a name, it is named by
    the time; ``blobs`` are those in ``root`` unless given.

    Raises IndexInputError for an invalid name; SnapshotExistsError for one that is taken, also by
    another maker that does not finish soon; SnapshotIncompleteError; CatalogueError for a damaged
    catalogue.
    """
    now = datetime.now(UTC)
    name = _checked(name if name is not None else now.strftime("%Y%m%dT%H%M%S.%fZ"))
    blobs = blobs or _blobs(root)
    folder = root / "snapshots"
    make_folder(folder)
    # Nobody removes bytes until the snapshot has its name, and so is asked what it needs.
    with _claimed(root, name) as temporary, blobs.holding():
        _fill(temporary, catalogue, name, now)
        _verify(temporary, name)
        if not allow_missing:
            _check_pictures(temporary, name, blobs)
        with _locked(folder):
            # A rename would replace an empty folder.
            if (folder / name).exists():
                raise _taken(root, name)
            temporary.rename(folder / name)
        fsync_folder(folder)
    return read(root, name)


@contextmanager
def _claimed(root: Path, name: str) -> Iterator[Path]:
    """A temporary folder that claims the name: other makers of the same snapshot wait."""
    deadline = time.monotonic() + _PATIENCE
    with ExitStack() as stack:
        while (temporary := _claim(root, name, stack)) is None:
            if time.monotonic() >= deadline:
                raise SnapshotExistsError(
                    f"the snapshot {name!r} is just being made; wait until it is listed, or use "
                    "another name"
                )
            time.sleep(_POLL_SECONDS)
        yield temporary


def _claim(root: Path, name: str, stack: ExitStack) -> Path | None:
    folder = root / "snapshots"
    with _locked(folder):
        if (folder / name).exists():
            raise _taken(root, name)
        if any(is_locked(path) for path in folder.glob(f"{TEMPORARY}{name}@*")):
            return None
        return stack.enter_context(temporary_folder(folder, f"{name}@"))


def _taken(root: Path, name: str) -> SnapshotExistsError:
    try:
        found = read(root, name)
        which = f"of {found.count:,} pictures, made at {found.created}"
    except SnapshotError:
        which = "which is damaged"
    return SnapshotExistsError(
        f"there is already a snapshot {name!r}, {which}; use another name, or delete it first"
    )


def _fill(folder: Path, catalogue: SqliteCatalogue, name: str, now: datetime) -> None:
    """Write the files of a snapshot durably; raises CatalogueError for a damaged record."""
    path = folder / _CATALOGUE
    catalogue.backup(path)
    description = _described(path, name, now)
    (folder / _DESCRIPTION).write_text(with_checksum(asdict(description)), encoding="utf-8")
    for file in (path, folder / _DESCRIPTION):
        fsync_file(file)
        drop_cached(file)
    fsync_folder(folder)


def _check_pictures(folder: Path, name: str, blobs: Blobs) -> None:
    missing = sorted(blobs.missing(_hashes(folder / _CATALOGUE)))
    if missing:
        shown = ", ".join(missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise SnapshotIncompleteError(
            f"the bytes of {len(missing):,} added pictures of the snapshot {name!r} are missing: "
            f"{shown}{more}; add these pictures again or delete them (`lookalike index verify` "
            "lists them), or allow missing pictures"
        )


def _described(path: Path, name: str, now: datetime) -> Snapshot:
    """The description of a copy of the catalogue, which is only read: opening it as a store's
    catalogue would make it one, with an epoch of its own."""
    with _reading(path) as connection:
        damage = check_state(connection)
        if damage is not None:
            raise CatalogueError(f"the snapshot {name!r} was not made: {damage}")
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        (count,) = connection.execute("SELECT count(*) FROM images").fetchone()
    return Snapshot(
        name=name,
        format_version=FORMAT_VERSION,
        count=count,
        model_digest=meta.get("model"),
        sequence=int(meta["sequence"]),
        corpus=meta.get("corpus"),
        created=now.isoformat(timespec="seconds"),
        size=path.stat().st_size,
        files={_CATALOGUE: sha256_of(path)},
        epoch=meta.get("epoch", ""),
    )


def names(root: Path) -> list[str]:
    """The names of all snapshots, sorted."""
    folder = root / "snapshots"
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if _NAME.fullmatch(path.name))


def read(root: Path, name: str) -> Snapshot:
    """The description of a snapshot; reads no large file.

    Raises UnknownSnapshotError, SnapshotCorruptError or SnapshotFormatError.
    """
    folder = root / "snapshots" / _checked(name)
    if not folder.is_dir():
        raise _unknown(root, name)
    return _read(folder, name)


def _unknown(root: Path, name: str) -> UnknownSnapshotError:
    known = ", ".join(names(root)[-10:]) or "none"
    return UnknownSnapshotError(f"there is no snapshot {name!r}; there are: {known}")


def _read(folder: Path, name: str) -> Snapshot:
    path = folder / _DESCRIPTION
    try:
        with open_regular(path) as file:
            content = json.loads(file.read(_LARGEST_DESCRIPTION))
        expected = content.pop("checksum")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SnapshotCorruptError(
            f"{path}: cannot be read ({error}); use another snapshot"
        ) from error
    if checksum_of(content) != expected:
        raise SnapshotCorruptError(f"{path}: its checksum does not match; use another snapshot")
    if content.get("format_version") != FORMAT_VERSION:
        raise SnapshotFormatError(
            f"{path}: has format version {content.get('format_version')}, and this Lookalike reads "
            f"{FORMAT_VERSION}; use the Lookalike that wrote it"
        )
    content.setdefault("epoch", "")  # older ones have none
    if set(content) != {field.name for field in fields(Snapshot)} or content["name"] != name:
        raise SnapshotCorruptError(f"{path}: describes a different snapshot; use another snapshot")
    snapshot = Snapshot(**content)
    # A snapshot may come from elsewhere: no name in it may lead out of its folder.
    if (
        not isinstance(snapshot.files, dict)
        or set(snapshot.files) != {_CATALOGUE}
        or not _typed(snapshot)
    ):
        raise SnapshotCorruptError(
            f"{path}: has unexpected values; expected the file {_CATALOGUE} alone; use another "
            "snapshot"
        )
    return snapshot


def _typed(snapshot: Snapshot) -> bool:
    numbers = (snapshot.count, snapshot.sequence, snapshot.size)
    texts = (snapshot.created, snapshot.epoch, *snapshot.files.values())
    optional = (snapshot.model_digest, snapshot.corpus)
    return (
        all(type(number) is int and number >= 0 for number in numbers)
        and all(isinstance(text, str) for text in texts)
        and all(text is None or isinstance(text, str) for text in optional)
    )


def verify(root: Path, name: str) -> Snapshot:
    """Check every checksum of a snapshot and its copy of the catalogue; return its description.

    Raises as `read` does.
    """
    with _held(root, name) as folder:
        return _verify(folder, name)


def _verify(folder: Path, name: str) -> Snapshot:
    snapshot = _read(folder, name)
    for file, expected in snapshot.files.items():
        path = folder / file
        try:
            found = sha256_of(path)
        except OSError as error:
            raise SnapshotCorruptError(f"{path}: cannot be read ({error.strerror})") from error
        if found != expected:
            raise SnapshotCorruptError(
                f"{path}: has SHA-256 {found}, expected {expected}; use another snapshot"
            )
    return snapshot


def restore(
    root: Path,
    catalogue: SqliteCatalogue,
    name: str,
    *,
    blobs: Blobs | None = None,
    allow_missing: bool = False,
) -> tuple[Snapshot, int, int]:
    """Replace what is indexed with a snapshot, while searches continue.

    This is one atomic, durable write, which the next search sees. Returns the snapshot, how many
    entries were stored or changed, and how many deleted. ``blobs`` as in `create`.

    Raises SnapshotModelError if the snapshot belongs to a model or corpus other than the store's,
    SnapshotIncompleteError if bytes of added pictures are missing, unless ``allow_missing``, and as
    `verify` does.
    """
    blobs = blobs or _blobs(root)
    with blobs.holding(), _held(root, name) as folder:
        snapshot = _verify(folder, name)
        model, corpus = catalogue.model(), catalogue.get_meta("corpus")
        if snapshot.model_digest != model:
            raise SnapshotModelError(
                f"the snapshot {name!r} was made with the model {snapshot.model_digest}, the store "
                f"has {model}; change the store's model first, or use another snapshot"
            )
        if snapshot.corpus not in (corpus, *_earlier_names(catalogue)):
            raise SnapshotModelError(
                f"the snapshot {name!r} is of the corpus {snapshot.corpus!r}, the store has "
                f"{corpus!r}; use another snapshot"
            )
        if not allow_missing:
            _check_pictures(folder, name, blobs)
        changed, deleted = catalogue.restore(folder / _CATALOGUE)
    return snapshot, changed, deleted


def _earlier_names(catalogue: SqliteCatalogue) -> list[str]:
    """The names that the corpus had before its folder was moved."""
    return list(json.loads(catalogue.get_meta(EARLIER_CORPUS_NAMES) or "[]"))


def remove(root: Path, name: str) -> None:
    """Delete a snapshot. Raises UnknownSnapshotError, SnapshotBusyError if it stays in use."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with _held(root, name, fcntl.LOCK_EX | fcntl.LOCK_NB) as folder:
                remove_folder(folder)
                return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise SnapshotBusyError(
                    f"the snapshot {name!r} is in use, perhaps being restored; try again later"
                ) from None
        time.sleep(_POLL_SECONDS)


def content_hashes(root: Path, seen: set[str] | None = None) -> set[str]:
    """The content hashes of added pictures that snapshots refer to.

    Snapshots in ``seen`` are left out, and those that are read are added to it.

    Raises CatalogueError or SnapshotError if one cannot be read: its pictures must then be kept.
    """
    seen = set() if seen is None else seen
    needed: set[str] = set()
    for name in names(root):
        try:
            with _held(root, name) as folder:
                # One of the same name may be another one by now.
                identity = f"{name} {folder.stat().st_ino} {sha256_of(folder / _DESCRIPTION)}"
                if identity not in seen:
                    _verify(folder, name)
                    needed |= _hashes(folder / _CATALOGUE)
                    seen.add(identity)
        except UnknownSnapshotError:
            continue  # just deleted
    return needed


def holding(root: Path, purged: Purged) -> dict[str, int]:
    """See `index.contract.Snapshots.holding`; one that cannot be read holds all of them."""
    found: dict[str, int] = {}
    for name in names(root):
        try:
            with _reading(root / "snapshots" / name / _CATALOGUE) as connection:
                (count,) = connection.execute(
                    "SELECT count(*) FROM images WHERE id IN (SELECT value FROM json_each(?)) "
                    "OR (origin = 'added' AND content_hash IN (SELECT value FROM json_each(?)))",
                    (json.dumps(purged.ids), json.dumps(sorted(purged.content_hashes))),
                ).fetchone()
        except sqlite3.Error:
            count = len(purged.ids)
        if count:
            found[name] = int(count)
    return found


def referring(root: Path, content_hashes: set[str]) -> dict[str, list[str]]:
    """Content hash to those who refer to it: snapshot, id and source.

    Snapshots that cannot be read are left out.
    """
    found: dict[str, list[str]] = {}
    for name in names(root):
        with suppress(SnapshotError), _held(root, name) as folder:
            _verify(folder, name)
            for id_, source, content_hash in _pictures(folder / _CATALOGUE, "id, source"):
                if content_hash in content_hashes:
                    who = f"snapshot {name}, id {id_} ({source})"
                    found.setdefault(content_hash, []).append(who)
    return found


def _hashes(path: Path) -> set[str]:
    return {content_hash for (content_hash,) in _pictures(path)}


def _pictures(path: Path, columns: str = "") -> Iterator[tuple[Any, ...]]:
    """These columns and the content hash of each added picture in a copy of the catalogue."""
    wanted = f"{columns}, content_hash" if columns else "DISTINCT content_hash"
    with _reading(path) as connection:
        yield from connection.execute(
            f"SELECT {wanted} FROM images "  # noqa: S608 - fixed words
            "WHERE origin = 'added' AND content_hash IS NOT NULL"
        )


def _blobs(root: Path) -> Blobs:
    return FolderBlobs(root / "pictures")


@contextmanager
def _held(root: Path, name: str, how: int = fcntl.LOCK_SH) -> Iterator[Path]:
    """A snapshot's folder, which nobody deletes meanwhile. Raises UnknownSnapshotError."""
    folder = root / "snapshots" / _checked(name)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        raise _unknown(root, name) from None
    try:
        fcntl.flock(handle, how)
        if not is_at(handle, folder):
            raise _unknown(root, name)
        yield folder
    finally:
        os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Held by one process at a time, for moments: to look at the names and take one."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _reading(path: Path) -> "closing[sqlite3.Connection]":
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    connection = sqlite3.connect(uri, uri=True)
    try:
        distrust(connection)
        connection.create_function("crc", -1, crc, deterministic=True)
        check_tables(connection, path)
    except BaseException:
        connection.close()
        raise
    return closing(connection)


def _checked(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise IndexInputError(
            f"the snapshot's name is {str(name)[:200]!r}; expected 1 to 100 letters, digits, dots, "
            "hyphens and underscores, a letter or digit first"
        )
    return name
