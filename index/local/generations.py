"""Generations: versioned, checksummed index files with an atomic switch.

::

    root/CURRENT                          the number of the current generation
    root/generations/000001/index.faiss
    root/generations/000001/manifest.json
    root/generations/000002.foreign          of another history; removed by the next publisher

A generation is written under a temporary name, made durable, renamed, and only then named in
CURRENT, so a crash at any point leaves a complete generation current. The catalogue is the source
of truth: a damaged generation costs a rebuild, but no data.
"""

import fcntl
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
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
from index.local.history import History, Moment
from index.local.manifest import MANIFEST_FILE, REBUILD, from_json, to_json
from index.temporaries import remove_orphans, temporary_folder

log = logging.getLogger(__name__)

KEPT_PREVIOUS = 2
_CURRENT = "CURRENT"
_LOCK = ".lock"
_NUMBER = re.compile(r"[0-9]{6,18}")
_FOREIGN = ".foreign"
_NOT_KNOWN = Moment("", 0)

Proven: TypeAlias = Callable[[Searchable, Manifest], bool]
"""Whether a generation that names no epoch agrees with the catalogue."""

Stamp: TypeAlias = tuple[int, int]
"""Modification time and inode of CURRENT."""


def publish(
    root: Path,
    index: Searchable,
    model_digest: str,
    moment: Moment = _NOT_KNOWN,
    purged: int = 0,
) -> Manifest:
    """Write ``index`` as the next generation and make it current; return its manifest.

    ``moment`` is the state of the catalogue that the index holds. The generation is
    read back before the switch; if anything raises before then, the current one stays current. Its
    two predecessors are kept, but for those that hold no write up to ``purged``, because they may
    hold what has been purged since; older generations and what a crash left behind are removed.
    Publishers in several processes wait for each other.
    """
    generations = root / "generations"
    make_folder(generations)
    with _locked(root):
        remove_orphans(generations)
        remove_orphans(root)
        foreign = list(generations.glob(f"*{_FOREIGN}"))
        number = 1 + max([*_numbers(root), *(int(path.stem) for path in foreign)], default=0)
        with temporary_folder(generations) as temporary:
            manifest = _write(temporary, index, number, model_digest, moment)
            temporary.rename(_folder(root, number))
        fsync_folder(generations)
        write_atomically(root / _CURRENT, lambda path: _write_number(path, number))
        *olds, _ = sorted(_numbers(root))
        for old in olds:
            if old in olds[:-KEPT_PREVIOUS] or _sequence_of(root, old) < purged:
                _remove(_folder(root, old))
        for path in foreign:
            _remove(path)
    return manifest


def _remove(folder: Path) -> None:
    """Remove what is no longer needed; the new generation serves, even if that is impossible."""
    try:
        remove_folder(folder)
    except OSError as error:
        log.warning("%s: cannot be removed: %s", folder, error.strerror)


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
    root: Path, model_digest: str, history: Callable[[], History], proven: Proven
) -> tuple[Searchable, Manifest, str | None]:
    """Load the current generation or, if it is unusable, its latest good predecessor.

    The catalogue's changes since then make up for the difference. A generation is unusable, too, if
    the catalogue was never in the state that it holds, because either was put back or copied; such
    generations are set apart at once, as `discard_foreign` says.

    Args:
        root: the store's folder.
        model_digest: the model that must have made it.
        history: reads the catalogue's history; called after reading a manifest.
        proven: see `Proven`; such a generation then gets the catalogue's epoch.

    Returns:
        The index, its manifest, and what is wrong with the current one, or None if nothing is.

    Raises:
        As `load_current` does, and GenerationAheadError, if no generation can be used.
    """
    foreign = discard_foreign(root, history)
    try:
        return *load_own(root, model_digest, history, proven), foreign
    except (GenerationCorruptError, GenerationFormatError, GenerationAheadError) as error:
        problem = foreign or str(error)
        for number in sorted(_numbers(root), reverse=True):
            try:
                manifest = _read_manifest(root, number)
                _check_model(root, manifest, model_digest)
                index, manifest = _load_own(root, manifest, history, proven)
            except GenerationAheadError as other:
                _discard(root, {number: str(other)})
            except GenerationError:
                continue
            else:
                _write_epoch(root, manifest)
                return index, manifest, problem
        if foreign is not None:
            raise GenerationAheadError(foreign) from error
        raise


def discard_foreign(root: Path, history: Callable[[], History]) -> str | None:
    """Set apart the generations of other histories, which are renamed until the next is published.

    CURRENT then names the newest of the others, if there are any. Returns what was wrong with the
    current one, or None.
    """
    problems = {
        manifest.generation: problem
        for manifest in manifests(root)
        if (problem := foreign_problem(root, manifest, history())) is not None
    }
    if not problems:
        return None
    current = _current_or_none(root)
    _discard(root, problems)
    return problems.get(current or max(problems))


def _discard(root: Path, problems: Mapping[int, str]) -> None:
    """Rename these generations, and let CURRENT name one of the others."""
    try:
        with _locked(root):
            for number, problem in problems.items():
                folder = _folder(root, number)
                if folder.exists():  # else another process was first
                    log.warning("%s. It is no longer used", problem)
                    renamed = folder.with_name(f"{folder.name}{_FOREIGN}")
                    shutil.rmtree(renamed, ignore_errors=True)
                    folder.rename(renamed)
            left = _numbers(root)
            if left and _current_or_none(root) not in left:
                write_atomically(root / _CURRENT, lambda path: _write_number(path, max(left)))
    except OSError as error:  # they are refused all the same
        log.warning("%s: cannot rename a generation: %s", root, error)


def foreign_problem(root: Path, manifest: Manifest, history: History) -> str | None:
    """Why the catalogue was never in the state that a generation holds; None if it was.

    For a generation that names no epoch, only its number is compared.
    """
    folder, moment = _folder(root, manifest.generation), Moment(manifest.epoch, manifest.sequence)
    if history.ahead(Moment(manifest.epoch or history.now.epoch, manifest.sequence)):
        return (
            f"{folder}: holds the catalogue's writes up to {manifest.sequence}, and the catalogue "
            f"has {history.now.sequence}: it is older than its index; {REBUILD}"
        )
    if manifest.epoch and not history.holds(moment):
        return (
            f"{folder}: holds writes of another history than the catalogue's, which was put back "
            f"or copied since, or replaced by another one; {REBUILD}"
        )
    return None


def manifests(root: Path) -> list[Manifest]:
    """The manifests that can be read, by number; reads no index file."""
    found = []
    for number in sorted(_numbers(root)):
        with suppress(GenerationError):
            found.append(_read_manifest(root, number))
    return found


def load_own(
    root: Path, model_digest: str, history: Callable[[], History], proven: Proven
) -> tuple[Searchable, Manifest]:
    """As `load_current`, after checking that the generation belongs to the catalogue's history.

    Raises GenerationAheadError if it does not.
    """
    manifest = read_manifest(root)
    _check_model(root, manifest, model_digest)
    index, manifest = _load_own(root, manifest, history, proven)
    _write_epoch(root, manifest)
    return index, manifest


def _load_own(
    root: Path, manifest: Manifest, history: Callable[[], History], proven: Proven
) -> tuple[Searchable, Manifest]:
    now = history()
    problem = foreign_problem(root, manifest, now)
    if problem is not None:
        raise GenerationAheadError(problem)
    index = _load(root, manifest)
    if manifest.epoch:
        return index, manifest
    if not proven(index, manifest):
        raise GenerationAheadError(
            f"{_folder(root, manifest.generation)}: does not agree with the catalogue, which was "
            f"put back since; {REBUILD}"
        )
    return index, replace(manifest, epoch=now.now.epoch)


def _write_epoch(root: Path, manifest: Manifest) -> None:
    """So that a generation that named no epoch is not compared again at the next start."""
    path = _folder(root, manifest.generation) / MANIFEST_FILE
    with suppress(OSError, GenerationError):
        if not _read_manifest(root, manifest.generation).epoch:
            write_atomically(path, lambda new: _write_text(new, to_json(manifest)))


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


def verify(
    root: Path, history: Callable[[], History] | None = None, proven: Proven = lambda *_: True
) -> list[Finding]:
    """Check every generation in order: its manifest, its checksums, and that the index loads.

    With ``history``, also that the catalogue was in the state that it holds; see `load_good`.

    Raises NoGenerationError if there is none.
    """
    numbers = sorted(_numbers(root))
    if not numbers:
        raise NoGenerationError(_no_index(root))
    findings = []
    for number in numbers:
        try:
            manifest = _read_manifest(root, number)
            if history is None:
                _load(root, manifest)
            else:
                _load_own(root, manifest, history, proven)
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
    folder: Path, index: Searchable, number: int, model_digest: str, moment: Moment
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
        sequence=moment.sequence,
        parameters=built.parameters,
        recall=built.recall,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files={name: sha256_of(folder / name) for name in names},
        epoch=moment.epoch,
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


def _sequence_of(root: Path, number: int) -> int:
    """The last write that a generation holds; -1 if its manifest cannot be read."""
    try:
        return _read_manifest(root, number).sequence
    except GenerationError:
        return -1


def _current(root: Path) -> int:
    path = root / _CURRENT
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        if any((root / "generations").glob("[0-9]*")):
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


def _current_or_none(root: Path) -> int | None:
    try:
        return _current(root)
    except GenerationError:
        return None


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


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the publishers' lock; the kernel releases it if the process dies."""
    handle = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
