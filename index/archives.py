"""Snapshots of everything that is indexed, to go back to.

::

    root/snapshots/<name>/catalogue.sqlite    a copy of the catalogue
    root/snapshots/<name>/snapshot.json       what it holds, with checksums

The pictures that were added lie in the store once, whoever names them: see `index.blobs`. The
index is not copied, as it can be made from the catalogue at any time.
"""

import json
import re
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from index.catalogue import Catalogue
from index.files import fsync_file, fsync_folder, sha256_of
from index.manifest import SnapshotCorruptError, SnapshotError, SnapshotFormatError, checksum_of
from index.neighbours import IndexInputError

FORMAT_VERSION = 1
_CATALOGUE = "catalogue.sqlite"
_DESCRIPTION = "snapshot.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TEMPORARY = ".tmp-"


class UnknownSnapshotError(SnapshotError):
    """There is no snapshot of that name."""


class SnapshotExistsError(SnapshotError):
    """There is a snapshot of that name already."""


class SnapshotModelError(SnapshotError):
    """The snapshot holds embeddings of another model than the store."""


@dataclass(frozen=True)
class Snapshot:
    """``count`` entries with embeddings of ``model_digest``, as of the write ``sequence``.

    ``created`` is ISO 8601 in UTC, ``size`` in bytes, ``files`` each file's SHA-256.
    """

    name: str
    format_version: int
    count: int
    model_digest: str | None
    sequence: int
    corpus: str | None
    created: str
    size: int
    files: Mapping[str, str]


def create(root: Path, catalogue: Catalogue, name: str | None = None) -> Snapshot:
    """Write a snapshot of one state of the catalogue, while others read and write.

    Without a name it is called after the time. Raises IndexInputError for a name that is not
    letters, digits, dots, hyphens and underscores, SnapshotExistsError for one that is taken.
    """
    now = datetime.now(UTC)
    name = _checked(name if name is not None else now.strftime("%Y%m%dT%H%M%S.%fZ"))
    folder = root / "snapshots"
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / name).exists():
        raise SnapshotExistsError(f"there is a snapshot {name!r} already; use another name")
    temporary = folder / f"{_TEMPORARY}{name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        catalogue.backup(temporary / _CATALOGUE)
        with Catalogue(temporary / _CATALOGUE) as copy:
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
        # Only after it was closed: opening a catalogue sets its journal mode.
        files = {_CATALOGUE: sha256_of(temporary / _CATALOGUE)}
        content = {**asdict(description), "files": files}
        text = json.dumps({**content, "checksum": checksum_of(content)}, indent=2) + "\n"
        (temporary / _DESCRIPTION).write_text(text, encoding="utf-8")
        for file in (_CATALOGUE, _DESCRIPTION):
            fsync_file(temporary / file)
        fsync_folder(temporary)
        try:
            temporary.rename(folder / name)
        except OSError as error:
            raise SnapshotExistsError(f"there is a snapshot {name!r} already") from error
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
    """What a snapshot says about itself; reads no large file.

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
        raise SnapshotCorruptError(f"{path}: cannot be read ({error}); use another one") from error
    if checksum_of(content) != expected:
        raise SnapshotCorruptError(f"{path}: its checksum does not fit; use another snapshot")
    if content.get("format_version") != FORMAT_VERSION:
        raise SnapshotFormatError(
            f"{path}: has format version {content.get('format_version')}, and this Lookalike reads "
            f"{FORMAT_VERSION}; use the Lookalike that wrote it"
        )
    if set(content) != {field.name for field in fields(Snapshot)} or content["name"] != name:
        raise SnapshotCorruptError(f"{path}: describes another snapshot; use another one")
    return Snapshot(**content)


def verify(root: Path, name: str) -> Snapshot:
    """Check every checksum of a snapshot, and the copy of the catalogue; return what it holds.

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


def restore(root: Path, catalogue: Catalogue, name: str) -> tuple[Snapshot, int, int]:
    """Put a snapshot's entries in the place of the present ones; searches go on meanwhile.

    All of it is one write: visible to the next search, durable, and nothing of it if it fails.
    Returns the snapshot, how many entries were stored or changed, and how many deleted.

    Raises SnapshotModelError if the snapshot's embeddings are of another model than the store's,
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
    # Renamed first, so that no half-removed folder is ever taken for a snapshot.
    doomed = folder.with_name(f"{_TEMPORARY}{name}")
    folder.rename(doomed)
    shutil.rmtree(doomed)
    fsync_folder(folder.parent)


def content_hashes(root: Path) -> set[str]:
    """The content hashes of added pictures that any snapshot names.

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
