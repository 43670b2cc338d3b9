"""The classifier of a store, kept in the store: a record in the catalogue and a file in ``var``.

The file is named by its SHA-256, so a reader gets all of one classifier or nothing. It is not in
the catalogue itself, whose settings are read and checked as a whole at every write. With Milvus,
the servers of one store share the file wherever they share added pictures.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
import time
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embed.classes.classifier import Classifier, ClassifierError
from embed.classes.novelty import Novelty
from index.blobs.objects import ObjectBlobs
from index.contract import BlobError, Catalogue, IndexInputError
from index.files import write_atomically
from search_api.settings import StoreLocation
from search_api.stores.opening import shared_objects

KEY = "classifier"
"""The record's key among the catalogue's settings."""

_NAME = re.compile(r"([0-9a-f]{64})\.npz")
_KEPT_SECONDS = 86_400.0
_DAMAGED = (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


class ClassifierFileError(Exception):
    """The file of a classifier is missing or damaged; the message names it."""


class Sample(NamedTuple):
    """Some of the pictures that a classifier was fitted on, and the labels that they had.

    ``ids`` int64 ``(n,)``; ``labels`` int64 ``(n,)``, the CRC-32 of each label.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class ClassifierRecord:
    """What the catalogue says of the store's classifier.

    Attributes:
        model: digest of the model whose embeddings it was fitted on.
        sequence: number of the last write that it reflects.
        fitted: when, ISO 8601, UTC.
        fingerprint: SHA-256 of the labels and embeddings that it was fitted on.
        learnt: CRC-32 of the names of all classes with enough pictures to be learnt.
        labelled: number of labelled pictures.
        file: SHA-256 of its file; None if there is no classifier.
        reason: why there is none, or why an older one is still in use; None otherwise.
        novelty: the members of a `Novelty` where there is no file that has one.
        pending: whether the fit has begun and has not ended yet.
    """

    model: str
    sequence: int
    fitted: str
    fingerprint: str
    learnt: int
    labelled: int
    file: str | None = None
    reason: str | None = None
    novelty: Mapping[str, Any] | None = None
    pending: bool = False


def read_record(catalogue: Catalogue) -> ClassifierRecord | None:
    """The record; None before the first fit, and if a newer version wrote it."""
    return parse_record(catalogue.get_meta(KEY))


def parse_record(text: str | None) -> ClassifierRecord | None:
    """The record from its JSON; None without one, and if a newer version wrote it."""
    if text is None:
        return None
    try:
        return ClassifierRecord(**json.loads(text))
    except (ValueError, TypeError):
        return None


def write_record(catalogue: Catalogue, record: ClassifierRecord) -> None:
    """Replace the record, durably; all processes on the store see it."""
    catalogue.set_meta(KEY, json.dumps(asdict(record), ensure_ascii=False))


def pack(classifier: Classifier, sample: Sample) -> bytes:
    """The content of a file, in NumPy's format ``.npz``."""
    buffer = io.BytesIO()
    data = np.frombuffer(classifier.to_bytes(), np.uint8)
    np.savez_compressed(buffer, classifier=data, ids=sample.ids, labels=sample.labels)
    return buffer.getvalue()


def unpack(data: bytes) -> tuple[Classifier, Sample]:
    """The reverse of `pack`.

    Raises:
        ClassifierError: damaged, or in a newer format.
    """
    try:
        # Without pickles, a file cannot run code.
        with np.load(io.BytesIO(data), allow_pickle=False) as parts:
            sample = Sample(parts["ids"], parts["labels"])
            content = parts["classifier"].tobytes()
    except (*_DAMAGED, AttributeError, TypeError) as error:
        raise ClassifierError(f"the file of the classifier cannot be read ({error})") from error
    return Classifier.from_bytes(content), sample


def novelty_of(record: ClassifierRecord) -> Novelty | None:
    """The `Novelty` in the record itself."""
    return None if record.novelty is None else Novelty(**record.novelty)


@dataclass(frozen=True)
class ClassifierFiles:
    """The files of classifiers of the store at ``location``."""

    location: StoreLocation

    def put(self, data: bytes) -> str:
        """Store ``data`` durably, for all servers of the store; return its name, its SHA-256."""
        name = hashlib.sha256(data).hexdigest()
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(name), lambda temporary: _write(temporary, data))
        shared = self._shared()
        if shared is not None:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / self._path(name).name).write_bytes(data)
                shared.upload(Path(folder), f"classifiers/{name}")
        return name

    def get(self, name: str) -> bytes:
        """The bytes of a file, fetched from the other servers if needed.

        Raises:
            ClassifierFileError: it is missing or damaged.
        """
        path = self._path(name)
        data = _read(path)
        if _is(data, name):
            return data or b""
        problem = f"{path} is missing" if data is None else f"{path} is damaged"
        fetched = self._fetch(name)
        if fetched is None or not _is(fetched, name):
            raise ClassifierFileError(problem)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: _write(temporary, fetched))
        self._sweep_folder({name}, _KEPT_SECONDS)  # this process may never fit one itself
        return fetched

    def sweep(self, keep: str | None) -> None:
        """Remove all files but ``keep``; only for who holds the store's lock."""
        names = self._sweep_folder({keep} if keep else set())
        shared = self._shared()
        if shared is not None:
            for name in names:
                shared.remove(f"classifiers/{name}")

    def _sweep_folder(self, keep: set[str], older_than: float = 0.0) -> list[str]:
        if not self._folder.is_dir():
            return []
        removed = []
        for path in self._folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is None or match[1] in keep:
                continue
            if older_than and path.stat().st_mtime > time.time() - older_than:
                continue
            path.unlink(missing_ok=True)
            removed.append(match[1])
        return removed

    def _fetch(self, name: str) -> bytes | None:
        shared = self._shared()
        if shared is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            try:
                if shared.download(f"classifiers/{name}", Path(folder)):
                    return _read(Path(folder) / self._path(name).name)
            except (OSError, BlobError):
                pass  # it has just been replaced by another one
        return None

    def _shared(self) -> ObjectBlobs | None:
        return shared_objects(self.location)

    @property
    def _folder(self) -> Path:
        return self.location.var / "classifiers"

    def _path(self, name: str) -> Path:
        path = self._folder / f"{name}.npz"
        if not _NAME.fullmatch(path.name):
            raise IndexInputError(
                f"the classifier's name is {name[:100]!r}; expected 64 hex digits"
            )
        return path


def _is(data: bytes | None, name: str) -> bool:
    return data is not None and hashlib.sha256(data).hexdigest() == name


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
