"""The user's snapshots: copies of everything that is indexed, to restore later.

::

    root/snapshots/<name>/catalogue.sqlite    a copy of the catalogue
    root/snapshots/<name>/snapshot.json       what it holds, with checksums

Added pictures are stored once, however many snapshots refer to them: see `index.blobs`. The index
is not copied, because it can be rebuilt from the catalogue.
"""

import json
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path

from index.contract import (
    IndexInputError,
    Snapshot,
    SnapshotCorruptError,
    SnapshotExistsError,
    SnapshotFormatError,
    SnapshotModelError,
    UnknownSnapshotError,
)
from index.files import TEMPORARY, fsync_file, fsync_folder, remove_folder, sha256_of
from index.local.catalogue import SqliteCatalogue
from index.local.manifest import checksum_of, with_checksum

FORMAT_VERSION = 1
_CATALOGUE = "catalogue.sqlite"
_DESCRIPTION = "snapshot.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def create(root: Path, catalogue: SqliteCatalogue, name: str | None = None) -> Snapshot:
    """Write a snapshot of one consistent state of the catalogue, while others read and write.

    Without a name, it is named by the time. Raises IndexInputError for an invalid name,
    SnapshotExistsError for one that is taken.
    """
    now = datetime.now(UTC)
    name = _checked(name if name is not None else now.strftime("%Y%m%dT%H%M%S.%fZ"))
    folder = root / "snapshots"
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / name).exists():
        raise SnapshotExistsError(f"there is already a snapshot {name!r}; use another name")
    temporary = folder / f"{TEMPORARY}{name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        catalogue.backup(temporary / _CATALOGUE)
        with SqliteCatalogue(temporary / _CATALOGUE) as copy:
            description = Snapshot(
                name=name,
                format_version=FORMAT_VERSION,
                count=copy.count(),
                model_digest=copy.model(),
                sequence=copy.sequence(),
                corpus=copy.get_meta("corpus"),
                created=now.isoformat(timespec="seconds"),
                size=(temporary / _CATALOGUE).stat().st_size,
                files={},
            )
        # Only now that it is closed, because opening a catalogue sets its journal mode.
        files = {_CATALOGUE: sha256_of(temporary / _CATALOGUE)}
        content = {**asdict(description), "files": files}
        (temporary / _DESCRIPTION).write_text(with_checksum(content), encoding="utf-8")
        for file in (_CATALOGUE, _DESCRIPTION):
            fsync_file(temporary / file)
        fsync_folder(temporary)
        try:
            temporary.rename(folder / name)
        except OSError as error:
            raise SnapshotExistsError(f"there is already a snapshot {name!r}") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_folder(folder)
    fsync_folder(root)
    return read(root, name)


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
    path = root / "snapshots" / _checked(name) / _DESCRIPTION
    if not path.parent.is_dir():
        known = ", ".join(names(root)[-10:]) or "none"
        raise UnknownSnapshotError(f"there is no snapshot {name!r}; there are: {known}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        expected = content.pop("checksum")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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
    if set(content) != {field.name for field in fields(Snapshot)} or content["name"] != name:
        raise SnapshotCorruptError(f"{path}: describes a different snapshot; use another snapshot")
    return Snapshot(**content)


def verify(root: Path, name: str) -> Snapshot:
    """Check every checksum of a snapshot and its copy of the catalogue; return its description.

    Raises as `read` does.
    """
    snapshot = read(root, name)
    for file, expected in snapshot.files.items():
        path = root / "snapshots" / name / file
        try:
            found = sha256_of(path)
        except OSError as error:
            raise SnapshotCorruptError(f"{path}: cannot be read ({error.strerror})") from error
        if found != expected:
            raise SnapshotCorruptError(
                f"{path}: has SHA-256 {found}, expected {expected}; use another snapshot"
            )
    return snapshot


def restore(root: Path, catalogue: SqliteCatalogue, name: str) -> tuple[Snapshot, int, int]:
    """Replace what is indexed with a snapshot, while searches continue.

    This is one atomic, durable write, which the next search sees. Returns the snapshot, how many
    entries were stored or changed, and how many deleted.

    Raises SnapshotModelError if the snapshot belongs to a model or corpus other than the store's,
    and as `verify` does.
    """
    snapshot = verify(root, name)
    model, corpus = catalogue.model(), catalogue.get_meta("corpus")
    if snapshot.model_digest != model:
        raise SnapshotModelError(
            f"the snapshot {name!r} was made with the model {snapshot.model_digest}, the store has "
            f"{model}; change the store's model first, or use another snapshot"
        )
    if snapshot.corpus != corpus:
        raise SnapshotModelError(
            f"the snapshot {name!r} is of the corpus {snapshot.corpus!r}, the store has {corpus!r};"
            " use another snapshot"
        )
    changed, deleted = catalogue.restore(root / "snapshots" / name / _CATALOGUE)
    return snapshot, changed, deleted


def remove(root: Path, name: str) -> None:
    """Delete a snapshot. Raises UnknownSnapshotError."""
    folder = root / "snapshots" / _checked(name)
    if not folder.is_dir():
        raise UnknownSnapshotError(f"there is no snapshot {name!r}")
    remove_folder(folder)
    fsync_folder(folder.parent)


def content_hashes(root: Path) -> set[str]:
    """The content hashes of added pictures that snapshots refer to.

    Raises CatalogueError or SnapshotError if one cannot be read: its pictures must then be kept.
    """
    needed: set[str] = set()
    for name in names(root):
        verify(root, name)
        needed |= _hashes(root / "snapshots" / name / _CATALOGUE)
    return needed


def _hashes(path: Path) -> set[str]:
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        rows = connection.execute(
            "SELECT DISTINCT content_hash FROM images WHERE origin = 'added'"
        ).fetchall()
    return {row[0] for row in rows if row[0] is not None}


def _checked(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise IndexInputError(
            f"the snapshot's name is {str(name)[:200]!r}; expected 1 to 100 letters, digits, dots, "
            "hyphens and underscores, a letter or digit first"
        )
    return name
