"""Generations: versioned, checksummed index files with an atomic switch.

::

    root/CURRENT                          the number of the current generation
    root/generations/000001/index.faiss
    root/generations/000001/manifest.json

A generation is written under a temporary name, made durable, renamed, and only then named in
CURRENT, so a crash at any point leaves a complete generation current. The catalogue is the source
of truth: a damaged generation costs a rebuild, but no data.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from index.ann import kinds
from index.contract import (
    MANIFEST_VERSION,
    Finding,
    GenerationAheadError,
    GenerationCorruptError,
    GenerationError,
    GenerationFormatError,
    IndexFileError,
    Manifest,
    ModelMismatchError,
    NoGenerationError,
    Searchable,
    UnknownKindError,
)
from index.files import (
    fsync_file,
    fsync_folder,
    make_folder,
    remove_folder,
    sha256_of,
    write_atomically,
)
from index.local.manifest import MANIFEST_FILE, REBUILD, from_json, to_json
from index.temporaries import remove_orphans, temporary_folder

KEPT_PREVIOUS = 2
_CURRENT = "CURRENT"
_LOCK = ".lock"
_NUMBER = re.compile(r"[0-9]{6,18}")


Stamp: TypeAlias = tuple[int, int]
"""Modification time and inode of CURRENT."""


def publish(root: Path, index: Searchable, model_digest: str, sequence: int = 0) -> Manifest:
    """Write ``index`` as the next generation and make it current; return its manifest.

    ``sequence`` is the number of the catalogue's last write that the index holds. The generation is
    read back before the switch; if anything raises before then, the current one stays current. Its
    two predecessors are kept; older generations and what a crash left behind are removed.
    Publishers in several processes wait for each other.
    """
    generations = root / "generations"
    make_folder(generations)
    with _locked(root):
        remove_orphans(generations)
        remove_orphans(root)
        number = max(_numbers(root), default=0) + 1
        with temporary_folder(generations) as temporary:
            manifest = _write(temporary, index, number, model_digest, sequence)
            temporary.rename(_folder(root, number))
        fsync_folder(generations)
        write_atomically(root / _CURRENT, lambda path: _write_number(path, number))
        for old in sorted(_numbers(root))[: -1 - KEPT_PREVIOUS]:
            remove_folder(_folder(root, old))
    return manifest


def read_manifest(root: Path) -> Manifest:
    """The manifest of the current generation; reads no index file.

    Raises NoGenerationError, GenerationCorruptError or GenerationFormatError.
    """
    return _read_manifest(root, _current(root))


def load_current(root: Path, model_digest: str) -> tuple[Searchable, Manifest]:
    """Load the current generation, after checking its model and every file's checksum.

    Raises NoGenerationError if nothing has been published, ModelMismatchError if another model made
    it, GenerationCorruptError if a file is missing or damaged, GenerationFormatError if a newer
    Lookalike wrote it.
    """
    manifest = read_manifest(root)
    _check_model(root, manifest, model_digest)
    return _load(root, manifest), manifest


def load_good(
    root: Path, model_digest: str, sequence: int
) -> tuple[Searchable, Manifest, str | None]:
    """Load the current generation or, if it is unusable, its latest good predecessor.

    The catalogue's changes since then make up for the difference. ``sequence`` is the catalogue's:
    a generation ahead of it is unusable, because it holds writes that the catalogue, perhaps
    restored from a backup, lacks.

    Returns the index, its manifest, and what is wrong with the current one, or None if nothing is.

    Raises as `load_current` does, and GenerationAheadError, if no generation can be used.
    """
    try:
        manifest = read_manifest(root)
        _check_model(root, manifest, model_digest)
        return _load_checked(root, manifest, sequence), manifest, None
    except (GenerationCorruptError, GenerationFormatError, GenerationAheadError) as error:
        for number in sorted(_numbers(root), reverse=True):
            try:
                manifest = _read_manifest(root, number)
                _check_model(root, manifest, model_digest)
                return _load_checked(root, manifest, sequence), manifest, str(error)
            except GenerationError:
                continue
        raise


def _load_checked(root: Path, manifest: Manifest, sequence: int) -> Searchable:
    if manifest.sequence > sequence:
        raise GenerationAheadError(
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
    """Differs after any process has published a generation; None before the first. Costs a stat."""
    try:
        stat = (root / _CURRENT).stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_ino


def verify(root: Path) -> list[Finding]:
    """Check every generation in order: its manifest, its checksums, and that the index loads.

    Raises NoGenerationError if there is none.
    """
    numbers = sorted(_numbers(root))
    if not numbers:
        raise NoGenerationError(_no_index(root))
    findings = []
    for number in numbers:
        try:
            _load(root, _read_manifest(root, number))
        except GenerationError as error:
            # A publisher may just have removed an old one.
            if _folder(root, number).exists():
                findings.append(Finding(f"generation {number}", str(error)))
        else:
            findings.append(Finding(f"generation {number}"))
    return findings


def check_current(root: Path) -> None:
    """Check that CURRENT names an existing generation; reads no index file.

    Raises NoGenerationError if there is none, GenerationCorruptError.
    """
    number = _current(root)
    if number not in _numbers(root):
        raise GenerationCorruptError(
            f"{root / _CURRENT}: names generation {number}, which is missing; {REBUILD}"
        )


def _write(
    folder: Path, index: Searchable, number: int, model_digest: str, sequence: int
) -> Manifest:
    """Write the index and its manifest into an empty folder, durably."""
    names = kinds.save(index, folder)
    built = kinds.description(index)
    manifest = Manifest(
        format_version=MANIFEST_VERSION,
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
            raise GenerationCorruptError(
                f"{folder / name}: cannot be read ({error.strerror}); {REBUILD}"
            ) from error
        if found != expected:
            raise GenerationCorruptError(
                f"{folder / name}: has SHA-256 {found}; the manifest says {expected}; {REBUILD}"
            )
    try:
        index = kinds.load(folder, manifest.kind, manifest.parameters, manifest.recall)
    except UnknownKindError as error:
        raise GenerationFormatError(f"{folder / MANIFEST_FILE}: {error}; {REBUILD}") from error
    except IndexFileError as error:
        raise GenerationCorruptError(f"{error}; {REBUILD}") from error
    if (index.count(), index.dimension) != (manifest.count, manifest.dimension):
        raise GenerationCorruptError(
            f"{folder}: has {index.count()} vectors of {index.dimension}; the "
            f"manifest says {manifest.count} of {manifest.dimension}; {REBUILD}"
        )
    return index


def _read_manifest(root: Path, number: int) -> Manifest:
    path = _folder(root, number) / MANIFEST_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GenerationCorruptError(f"{path}: cannot be read ({error}); {REBUILD}") from error
    return from_json(text, path, number)


def _current(root: Path) -> int:
    path = root / _CURRENT
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        if _numbers(root):
            raise GenerationCorruptError(
                f"{path}: is missing, and there are generations; {REBUILD}"
            ) from error
        raise NoGenerationError(_no_index(root)) from error
    except OSError as error:
        raise GenerationCorruptError(f"{path}: cannot be read ({error}); {REBUILD}") from error
    text = content.decode("ascii", "replace").removesuffix("\n")
    if not _NUMBER.fullmatch(text):
        raise GenerationCorruptError(f"{path}: says {text!r}; expected six digits; {REBUILD}")
    return int(text)


def _numbers(root: Path) -> list[int]:
    generations = root / "generations"
    if not generations.is_dir():
        return []
    return [int(path.name) for path in generations.iterdir() if _NUMBER.fullmatch(path.name)]


def _folder(root: Path, number: int) -> Path:
    return root / "generations" / f"{number:06d}"


def _no_index(root: Path) -> str:
    return f"{root}: has no index yet; run `lookalike index build`"


def _write_number(path: Path, number: int) -> None:
    path.write_text(f"{number:06d}\n", encoding="ascii")


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the publishers' lock; the kernel releases it if the process dies."""
    handle = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
