"""Versioned, checksummed index files with an atomic switch.

::

    root/CURRENT                          the number of the generation that is served
    root/generations/000001/index.faiss
    root/generations/000001/manifest.json

A generation is written beside the others under a temporary name, made durable, renamed, and only
then named in CURRENT, so a crash at any point leaves a complete generation in service. The
catalogue is the truth: a damaged generation costs a rebuild and no data.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from index import kinds
from index.files import fsync_file, fsync_folder, sha256_of, write_atomically
from index.local import IndexFileError
from index.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    REBUILD,
    Manifest,
    SnapshotAheadError,
    SnapshotCorruptError,
    SnapshotError,
    SnapshotFormatError,
    from_json,
    to_json,
)
from index.neighbours import Searchable

__all__ = [
    "Finding",
    "Manifest",
    "ModelMismatchError",
    "NoGenerationError",
    "SnapshotAheadError",
    "SnapshotCorruptError",
    "SnapshotError",
    "SnapshotFormatError",
    "Stamp",
    "check_current",
    "load_current",
    "load_good",
    "publish",
    "read_manifest",
    "stamp",
    "verify",
]

KEPT_PREVIOUS = 2
_CURRENT = "CURRENT"
_LOCK = ".lock"
_TEMPORARY = ".tmp-"
_NUMBER = re.compile(r"[0-9]{6,18}")


class NoGenerationError(SnapshotError):
    """Nothing has been published under this root."""


class ModelMismatchError(SnapshotError):
    """The generation was made by another model than the one asked for."""


Stamp: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Finding:
    """What `verify` found out about one generation; ``problem`` is None where it is ok."""

    generation: int
    ok: bool
    problem: str | None


def publish(root: Path, index: Searchable, model_digest: str, sequence: int = 0) -> Manifest:
    """Write ``index`` as the next generation and make it the current one; return its manifest.

    ``sequence`` is the number of the catalogue's last write that the index holds.
    Keeps the current and the two generations before it; removes older ones and what a crash
    left behind. Publishers in several processes wait for each other. If anything raises before
    the switch, the generation that was current still is. What is published is read back once
    before the switch.
    """
    generations = root / "generations"
    generations.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        _remove_temporaries(root)
        number = max(_numbers(root), default=0) + 1
        temporary = generations / f"{_TEMPORARY}{number:06d}"
        try:
            manifest = _write(temporary, index, number, model_digest, sequence)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        temporary.rename(_folder(root, number))
        fsync_folder(generations)
        fsync_folder(root)
        write_atomically(root / _CURRENT, lambda path: _write_number(path, number))
        for old in sorted(_numbers(root))[: -1 - KEPT_PREVIOUS]:
            # Renamed first, so that no half-removed folder is ever taken for a generation.
            doomed = generations / f"{_TEMPORARY}{old:06d}"
            _folder(root, old).rename(doomed)
            shutil.rmtree(doomed)
    return manifest


def read_manifest(root: Path) -> Manifest:
    """The manifest of the current generation; reads no index file.

    Raises NoGenerationError, SnapshotCorruptError or SnapshotFormatError.
    """
    return _read_manifest(root, _current(root))


def load_current(root: Path, model_digest: str) -> tuple[Searchable, Manifest]:
    """Load the current generation, having checked the model and every file's checksum.

    Raises NoGenerationError if nothing was published, ModelMismatchError if another model made
    it, SnapshotCorruptError if a file is missing or damaged, SnapshotFormatError if a newer
    Lookalike wrote it.
    """
    manifest = read_manifest(root)
    _check_model(root, manifest, model_digest)
    return _load(root, manifest), manifest


def load_good(
    root: Path, model_digest: str, sequence: int
) -> tuple[Searchable, Manifest, str | None]:
    """Load the current generation or, where that is damaged, the last good one before it.

    The catalogue's changes since make an older one as good as the newest. ``sequence`` is the
    catalogue's: a generation that is ahead of it is of no use, as it holds writes that the
    catalogue, perhaps put back from a backup, does not know.

    Returns the index, its manifest, and what is wrong with the current one, or None.

    Raises as `load_current` does, and SnapshotAheadError, if no generation can be used.
    """
    try:
        manifest = read_manifest(root)
        _check_model(root, manifest, model_digest)
        return _load_checked(root, manifest, sequence), manifest, None
    except (SnapshotCorruptError, SnapshotFormatError, SnapshotAheadError) as error:
        for number in sorted(_numbers(root), reverse=True):
            try:
                manifest = _read_manifest(root, number)
                _check_model(root, manifest, model_digest)
                return _load_checked(root, manifest, sequence), manifest, str(error)
            except SnapshotError:
                continue
        raise


def _load_checked(root: Path, manifest: Manifest, sequence: int) -> Searchable:
    if manifest.sequence > sequence:
        raise SnapshotAheadError(
            f"{_folder(root, manifest.generation)}: holds the catalogue's writes up to "
            f"{manifest.sequence}, and the catalogue has {sequence}: it is older than its index; "
            f"{REBUILD}"
        )
    return _load(root, manifest)


def _check_model(root: Path, manifest: Manifest, model_digest: str) -> None:
    if manifest.model_digest != model_digest:
        raise ModelMismatchError(
            f"{_folder(root, manifest.generation)}: was made by the model "
            f"{manifest.model_digest}, and the model in use is {model_digest}; {REBUILD}"
        )


def stamp(root: Path) -> Stamp | None:
    """Changes whenever any process publishes a generation; None before the first. Costs a stat."""
    try:
        stat = (root / _CURRENT).stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_ino


def verify(root: Path) -> list[Finding]:
    """Check every generation, ascending: manifest, checksums, and that the index loads.

    Raises NoGenerationError if there is none.
    """
    numbers = sorted(_numbers(root))
    if not numbers:
        raise NoGenerationError(_nothing(root))
    findings = []
    for number in numbers:
        try:
            _load(root, _read_manifest(root, number))
        except SnapshotError as error:
            # A publisher may have removed an old one meanwhile.
            if _folder(root, number).exists():
                findings.append(Finding(number, False, str(error)))
        else:
            findings.append(Finding(number, True, None))
    return findings


def check_current(root: Path) -> None:
    """Check that CURRENT names a generation that is there; reads no index file.

    Raises NoGenerationError if there is none, SnapshotCorruptError.
    """
    number = _current(root)
    if number not in _numbers(root):
        raise SnapshotCorruptError(
            f"{root / _CURRENT}: names generation {number}, which is missing; {REBUILD}"
        )


def _write(
    folder: Path, index: Searchable, number: int, model_digest: str, sequence: int
) -> Manifest:
    """Fill a new folder with the index and its manifest, durably."""
    folder.mkdir()
    names = kinds.save(index, folder)
    built = kinds.description(index)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        generation=number,
        count=kinds.load(folder, index.kind, built.parameters).count(),
        dimension=index.dimension,
        metric="cosine",
        kind=index.kind,
        model_digest=model_digest,
        sequence=sequence,
        parameters=built.parameters,
        recall=built.recall,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files={name: sha256_of(folder / name) for name in names},
    )
    (folder / MANIFEST_FILE).write_text(to_json(manifest), encoding="utf-8")
    for name in (*names, MANIFEST_FILE):
        fsync_file(folder / name)
    fsync_folder(folder)
    return manifest


def _load(root: Path, manifest: Manifest) -> Searchable:
    folder = _folder(root, manifest.generation)
    for name, expected in manifest.files.items():
        try:
            found = sha256_of(folder / name)
        except OSError as error:
            raise SnapshotCorruptError(
                f"{folder / name}: cannot be read ({error.strerror}); {REBUILD}"
            ) from error
        if found != expected:
            raise SnapshotCorruptError(
                f"{folder / name}: has SHA-256 {found}; the manifest says {expected}; {REBUILD}"
            )
    try:
        index = kinds.load(folder, manifest.kind, manifest.parameters, manifest.recall)
    except kinds.UnknownKindError as error:
        raise SnapshotFormatError(f"{folder / MANIFEST_FILE}: {error}; {REBUILD}") from error
    except IndexFileError as error:
        raise SnapshotCorruptError(f"{error}; {REBUILD}") from error
    if (index.count(), index.dimension) != (manifest.count, manifest.dimension):
        raise SnapshotCorruptError(
            f"{folder}: has {index.count()} vectors of {index.dimension}; the "
            f"manifest says {manifest.count} of {manifest.dimension}; {REBUILD}"
        )
    return index


def _read_manifest(root: Path, number: int) -> Manifest:
    path = _folder(root, number) / MANIFEST_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SnapshotCorruptError(f"{path}: cannot be read ({error}); {REBUILD}") from error
    return from_json(text, path, number)


def _current(root: Path) -> int:
    path = root / _CURRENT
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        if _numbers(root):
            raise SnapshotCorruptError(
                f"{path}: is missing, and there are generations; {REBUILD}"
            ) from error
        raise NoGenerationError(_nothing(root)) from error
    except OSError as error:
        raise SnapshotCorruptError(f"{path}: cannot be read ({error}); {REBUILD}") from error
    text = content.decode("ascii", "replace").removesuffix("\n")
    if not _NUMBER.fullmatch(text):
        raise SnapshotCorruptError(f"{path}: says {text!r}; expected six digits; {REBUILD}")
    return int(text)


def _numbers(root: Path) -> list[int]:
    generations = root / "generations"
    if not generations.is_dir():
        return []
    return [int(path.name) for path in generations.iterdir() if _NUMBER.fullmatch(path.name)]


def _folder(root: Path, number: int) -> Path:
    return root / "generations" / f"{number:06d}"


def _nothing(root: Path) -> str:
    return f"{root}: has no index yet; run `lookalike index build`"


def _write_number(path: Path, number: int) -> None:
    path.write_text(f"{number:06d}\n", encoding="ascii")


def _remove_temporaries(root: Path) -> None:
    for path in (root / "generations").glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path)
    for path in root.glob(f".{_CURRENT}.*.tmp"):
        path.unlink()


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the publishers' lock; the kernel lets it go if the process dies."""
    handle = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
