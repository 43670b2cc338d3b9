"""Whose classes a picture gets: those of the store's classifier or the network's own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embed.classes.classifier import Classifier, ClassifierError
from embed.classes.novelty import Novelty
from embed.encoder import PictureEncoder
from index.contract import Catalogue, CatalogueError
from search_api.schemas.search import Classes, Source
from search_api.service.results import Prediction, Predictions
from search_api.stores.classifier_store import (
    KEY,
    ClassifierFileError,
    ClassifierFiles,
    ClassifierRecord,
    Sample,
    novelty_of,
    parse_record,
    unpack,
)

log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_RETRY_SECONDS = 60.0


class NoClassesError(LookupError):
    """The classes that were asked for do not exist."""


class Predicted(NamedTuple):
    """The prediction for one picture, and both if both were asked for; see `SearchResult`."""

    prediction: Prediction | None = None
    predictions: Predictions | None = None


@dataclass(frozen=True)
class StoredClasses:
    """What the store knows of its classes.

    Attributes:
        record: of the last fit; None before the first.
        classifier: predicts the store's labels; None if there is none.
        novelty: what is usual among the stored pictures; None if it has not been measured.
        sample: some of the pictures that the classifier was fitted on; None without one.
        problem: why the classifier's file cannot be used; None if it can, or if there is none.
    """

    record: ClassifierRecord | None = None
    classifier: Classifier | None = None
    novelty: Novelty | None = None
    sample: Sample | None = None
    problem: str | None = None

    @property
    def reason(self) -> str | None:
        """Why there is no classifier, or still an older one; None otherwise."""
        if self.record is None:
            return "none has been fitted yet"
        return self.problem or self.record.reason

    def predict(
        self,
        encoder: PictureEncoder,
        probabilities: NDArray[np.float32],
        embeddings: NDArray[np.float32],
        similarities: NDArray[np.float32] | None,
        wanted: Sequence[Classes | None],
    ) -> list[Predicted]:
        """The predictions for pictures.

        Args:
            encoder: embedded them.
            probabilities: of the encoder's own classes, float32 ``(n, classes)``.
            embeddings: float32 ``(n, d)``.
            similarities: to the nearest stored pictures, float32 ``(n, k)``, -inf where there are
                fewer; None if not known.
            wanted: whose classes, for each; None for no prediction.
        """
        known: list[float | None] = [None] * len(wanted)
        if self.novelty is not None and similarities is not None:
            known = self.novelty.known(self.novelty.score(similarities)).tolist()
        own = None if self.classifier is None else self.classifier.probabilities(embeddings)
        found = []
        for row, source in enumerate(wanted):
            store = network = None
            if own is not None and self.classifier and source not in (None, "network"):
                store = Prediction.of(self.classifier.classes, own[row], "store", known[row])
            if encoder.classes and (
                source in ("network", "both") or (source == "auto" and own is None)
            ):
                network = Prediction.of(encoder.classes, probabilities[row], "network", known[row])
            both = Predictions(store, network) if source == "both" else None
            found.append(Predicted(store or network, both))
        return found


NOTHING_STORED = StoredClasses()


class ClassStore:
    """The classes of one store, always those that any process on it fitted last; thread-safe.

    The record in the catalogue is read again at most once a second, the file only if the record
    names another one, so that a search pays nothing.
    """

    def __init__(self, catalogue: Catalogue, files: ClassifierFiles) -> None:
        """Prepare; nothing is read yet."""
        self.files = files
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._text: str | None = None
        self._stored: StoredClasses | None = None
        self._next = 0.0
        self._retry = 0.0

    def of(self, model: str) -> StoredClasses:
        """What is known with the embeddings of this model; nothing if it is of another one."""
        stored = self.current()
        if stored.record is None or stored.record.model != model:
            return NOTHING_STORED
        return stored

    def current(self) -> StoredClasses:
        """What is known, not older than a second."""
        stored = self._stored
        if stored is None:
            return self.refresh()
        if time.monotonic() >= self._next and self._lock.acquire(blocking=False):
            try:
                stored = self._read(retry=time.monotonic() >= self._retry)
            except CatalogueError as error:
                log.warning("cannot tell whether there is a new classifier: %s", error)
            finally:
                self._lock.release()
        return stored

    def refresh(self) -> StoredClasses:
        """What is known now."""
        with self._lock:
            return self._read(retry=True)

    def check(self, wanted: Classes, encoder: PictureEncoder) -> None:
        """Check that the classes that were asked for exist.

        Raises:
            NoClassesError: they do not; says why and what to do.
        """
        if wanted == "store" and (stored := self.of(encoder.digest)).classifier is None:
            raise NoClassesError(
                f"the store has no classifier of its own: {stored.reason}. Give labels to its"
                " pictures and run `lookalike classifier fit`, or ask for the classes `auto`"
            )
        if wanted == "network" and not encoder.classes:
            raise NoClassesError(
                "the model in use has no classes of its own; ask for the classes `auto`"
            )

    def source(self, encoder: PictureEncoder) -> Source | None:
        """Whose classes `auto` gives; None if there are none."""
        if self.of(encoder.digest).classifier is not None:
            return "store"
        return "network" if encoder.classes else None

    def summary(self, model: str) -> dict[str, Any] | None:
        """The classifier in brief, as `search_api.schemas.ClassifierSummary`; None without one."""
        stored = self.of(model)
        if stored.classifier is None or stored.record is None:
            return None
        return {
            "classes": len(stored.classifier.classes),
            "pictures": sum(stored.classifier.counts.values()),
            "accuracy": stored.classifier.accuracy,
            "ece": stored.classifier.ece,
            "fitted": stored.record.fitted,
        }

    def _read(self, *, retry: bool) -> StoredClasses:
        """What is known now; with ``retry``, a file that could not be used is read again."""
        text = self._catalogue.get_meta(KEY)
        now = time.monotonic()
        problem = None if self._stored is None else self._stored.problem
        if self._stored is None or text != self._text or (retry and problem is not None):
            before = text
            stored = self._load(text)
            if stored.problem is not None:
                # The file may be gone because another process has just replaced the classifier.
                text = self._catalogue.get_meta(KEY)
                stored = stored if text == before else self._load(text)
            if stored.problem is not None:
                self._retry = now + _RETRY_SECONDS
                if stored.problem != problem:
                    log.warning("the model's own classes are used instead: %s", stored.problem)
            self._stored, self._text = stored, text
        self._next = now + _POLL_SECONDS
        return self._stored

    def _load(self, text: str | None) -> StoredClasses:
        record = parse_record(text)
        if record is None:
            return NOTHING_STORED
        if record.file is None:
            return StoredClasses(record, novelty=novelty_of(record))
        try:
            classifier, sample = unpack(self.files.get(record.file))
            if classifier.model != record.model:
                raise ClassifierError(f"it is of the model {classifier.model}")
        except (ClassifierFileError, ClassifierError) as error:
            problem = f"its file cannot be used ({error})"
            return StoredClasses(record, problem=problem)
        return StoredClasses(record, classifier, classifier.novelty, sample)


def description(stored: StoredClasses) -> dict[str, Any]:
    """What is known, as the members of `search_api.schemas.ClassifierInfo` about it."""
    record, classifier, novelty = stored.record, stored.classifier, stored.novelty
    return {
        "digest": None if classifier is None else classifier.digest,
        "reason": stored.reason,
        "fitted": None if record is None else record.fitted,
        "fitted_sequence": None if record is None else record.sequence,
        "classes": {} if classifier is None else classifier.counts,
        "left_out": {} if classifier is None else classifier.left_out,
        "accuracy": None if classifier is None else classifier.accuracy,
        "ece": None if classifier is None else classifier.ece,
        "temperature": None if classifier is None else classifier.temperature,
        "novelty": None
        if novelty is None
        else {
            "threshold": novelty.threshold,
            "lowest": novelty.lowest,
            "pictures": novelty.pictures,
        },
    }
