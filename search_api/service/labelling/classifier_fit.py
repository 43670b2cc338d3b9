"""Fitting the store's classifier on its labels and stored embeddings; no picture is read."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embed.classes.classifier import MIN_PER_CLASS, TooFewLabelsError, fit_classifier
from embed.classes.novelty import Novelty, fit_novelty
from embed.encoder import PictureEncoder
from index.contract import (
    CancelledError,
    Ids,
    JobControl,
    Members,
    ModelChangedError,
    SearchState,
    Store,
    UnknownIdError,
    Vectors,
)
from search_api.service.labelling.classes import ClassStore, StoredClasses
from search_api.stores.classifier_store import (
    ClassifierRecord,
    Sample,
    pack,
    read_record,
    write_record,
)

log = logging.getLogger(__name__)

STAGE = "fitting the classifier"
MIN_NOVELTY = 50
"""Stored pictures from which it is measured what is usual: of fewer, the lowest 5 % are chance."""
CHANGED_SHARE = 0.05
"""Share of the labels that must have changed before the classifier is fitted again by itself. Fewer
move its accuracy by less than the cross-validation can tell; more would let a renamed or corrected
class be answered wrongly for long. A class that appears or vanishes does not wait for that."""

_MAX_NUMBERS = 64_000_000
"""Numbers in the embeddings that are read at once: 256 MB."""
_SAMPLED = 2_000
"""Pictures whose labels are compared: 5 % of them are 5 % of all, give or take a half."""
_ATTEMPTS = 3
_REST_SECONDS, _REST = 1.0, 20.0


@dataclass(frozen=True)
class _Labelled:
    """The labels of what is indexed.

    Attributes:
        names: all labels.
        counts: pictures of each, int64 ``(len(names),)``.
        ids: of the labelled pictures, int64 ``(n,)``.
        codes: positions in ``names``, int64 ``(n,)``.
        total: number of pictures in the index, with and without labels.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    ids: Ids
    codes: NDArray[np.int64]
    total: int

    @property
    def learnt(self) -> set[str]:
        """The labels with enough pictures to be learnt."""
        return _learnt(dict(zip(self.names, self.counts.tolist(), strict=True)))


class ClassifierFitter:
    """Fits the classifier of one store, and knows when that is due; thread-safe."""

    def __init__(self, store: Store[PictureEncoder], classes: ClassStore) -> None:
        """Fit for ``store``; ``classes`` holds what was fitted last and its files."""
        self._store = store
        self._classes = classes
        self._checking = threading.Lock()
        self._resume = 0.0
        self._seen = -1

    def fit(
        self, encoder: PictureEncoder, control: JobControl = JobControl(), *, again: bool = True
    ) -> StoredClasses:
        """Fit the classifier; only for who holds the store's lock.

        Where the network's own classes contain every label that could be learnt, none is fitted:
        the network answers, and only what is usual among the pictures is measured. Too few labels
        are recorded with the reason; an earlier classifier is then no longer used.

        Args:
            encoder: the model in use.
            control: receives progress and can cancel.
            again: also if neither labels nor embeddings have changed since the last time.

        Raises:
            CancelledError: ``control`` cancelled it; what was in use stays.
            ModelChangedError: another model is in use.
        """
        catalogue = self._store.catalogue
        state = self._store.served.current()
        if state.manifest.model_digest != encoder.digest:
            raise ModelChangedError(
                f"the model in use is {state.manifest.model_digest}, expected {encoder.digest}"
            )
        control.progress(STAGE, 0, state.index.count())
        before = read_record(catalogue)
        if before is None or before.model != encoder.digest:
            # If this process dies now, others know that there is something left to do.
            before = None
            record = _record(encoder, state, reason="its fit has not ended yet", pending=True)
            write_record(catalogue, record)
        labelled = self._labelled(state, catalogue.members("label"))
        drawn, codes = _drawn(labelled, _most(state))
        ids, xb = _vectors(state, drawn)
        codes = codes[np.isin(drawn, ids)]
        facts: dict[str, Any] = {
            "fingerprint": _fingerprint(encoder, labelled, ids, codes, xb),
            "learnt": _code(labelled.learnt),
            "labelled": int(labelled.counts.sum()),
        }
        if not again and before is not None and self._unchanged(before, facts["fingerprint"]):
            control.progress(STAGE, labelled.total, labelled.total)
            return self._classes.refresh()
        try:
            record = self._fitted(encoder, state, labelled, ids, codes, xb, facts, control)
        except CancelledError:
            raise
        except Exception as error:
            record = _record(encoder, state, **facts, reason=f"the last fit failed: {error}")
            if before is not None:
                record = replace(record, file=before.file, novelty=before.novelty)
            write_record(catalogue, record)
            raise
        write_record(catalogue, record)
        stored = self._classes.refresh()
        self._classes.files.sweep(record.file)
        control.progress(STAGE, labelled.total, labelled.total)
        return stored

    def fit_after_build(self, encoder: PictureEncoder, control: JobControl) -> None:
        """As `fit`, if something has changed; never raises, for the new index serves already."""
        try:
            self.fit(encoder, control, again=False)
        except CancelledError as error:
            log.info("the classifier was not fitted: %s", error)
        except Exception as error:
            log.exception("the classifier was not fitted: %s", error)

    def due(self, *, now: bool = False) -> bool:
        """Whether the labels have changed enough since the last fit for a new one.

        That is, if a class has come to be learnt or to have too few pictures, if the number of
        labelled pictures has changed by 5 %, or 5 % of their labels; also if the last fit was
        interrupted or its file is gone. Never for a store that no version with a classifier has
        built. Looks only now and then, unless ``now``, because this reads the catalogue.
        """
        started = time.monotonic()
        if (not now and started < self._resume) or not self._checking.acquire(blocking=now):
            return False
        try:
            return self._due()
        finally:
            ended = time.monotonic()
            self._resume = ended + _REST_SECONDS + _REST * (ended - started)
            self._checking.release()

    def _due(self) -> bool:
        catalogue = self._store.catalogue
        stored = self._classes.refresh()
        record = stored.record
        state = self._store.served.current(wait=False)
        model = state.manifest.model_digest
        if record is None or model != catalogue.model():
            return False
        if record.pending or record.model != model or stored.problem is not None:
            return True
        if state.sequence in (self._seen, record.sequence):
            return False  # nothing has been written since
        due = self._changed(stored, record)
        if not due:
            self._seen = state.sequence
        return due

    def _changed(self, stored: StoredClasses, record: ClassifierRecord) -> bool:
        """Whether enough labels have changed since the fit."""
        catalogue = self._store.catalogue
        counts = catalogue.label_counts()
        if record.learnt != _code(_learnt(counts)):
            return True
        if stored.sample is None:
            return False  # whether there is a classifier depends on nothing else
        grown: int = abs(sum(counts.values()) - record.labelled)
        least = max(MIN_PER_CLASS, CHANGED_SHARE * record.labelled)
        if grown >= least:
            return True
        if record.reason is not None:
            return False  # the sample is of the fit before the one that failed
        was = dict(zip(stored.sample.ids.tolist(), stored.sample.labels.tolist(), strict=True))
        entries = catalogue.find(stored.sample.ids)
        changed: int = sum(_code([entry.label]) != was[entry.id] for entry in entries)
        return bool(grown + changed * record.labelled / len(was) >= least)

    @staticmethod
    def _labelled(state: SearchState[PictureEncoder], members: Members) -> _Labelled:
        every = state.index.ids()
        kept = np.isin(members.ids, every)
        codes = members.codes[kept]
        names = tuple(str(value) for value in members.values)
        counts = np.bincount(codes, minlength=len(names))
        return _Labelled(names, counts, members.ids[kept], codes, len(every))

    def _unchanged(self, before: ClassifierRecord, fingerprint: str) -> bool:
        if before.pending or before.fingerprint != fingerprint:
            return False
        return self._classes.refresh().problem is None

    def _fitted(
        self,
        encoder: PictureEncoder,
        state: SearchState[PictureEncoder],
        labelled: _Labelled,
        ids: Ids,
        codes: NDArray[np.int64],
        xb: Vectors,
        facts: dict[str, Any],
        control: JobControl,
    ) -> ClassifierRecord:
        learnt = labelled.learnt
        novelty = self._novelty(state, labelled, ids, xb)
        members = None if novelty is None else asdict(novelty)
        if learnt and learnt <= set(encoder.classes):
            reason = "the model's own classes contain every label"
            return _record(encoder, state, **facts, reason=reason, novelty=members)

        def progress(done: int, steps: int) -> None:
            if control.cancelled():
                raise CancelledError("stopped while fitting the classifier; nothing has changed")
            control.progress(STAGE, labelled.total * done // max(steps, 1), labelled.total)

        names = [labelled.names[code] for code in codes.tolist()]
        try:
            classifier = fit_classifier(xb, names, encoder.digest, progress=progress)
        except TooFewLabelsError as error:
            return _record(encoder, state, **facts, reason=str(error), novelty=members)
        counts = dict(zip(labelled.names, labelled.counts.tolist(), strict=True))
        classifier = replace(
            classifier,
            novelty=novelty,
            counts={name: counts[name] for name in classifier.counts},
            left_out={name: n for name, n in counts.items() if name not in classifier.counts},
        )
        file = self._classes.files.put(pack(classifier, _sample(ids, names)))
        return _record(encoder, state, **facts, file=file)

    def _novelty(
        self, state: SearchState[PictureEncoder], labelled: _Labelled, ids: Ids, xb: Vectors
    ) -> Novelty | None:
        if labelled.total < MIN_NOVELTY:
            return None
        if labelled.total > len(labelled.ids):
            # What is not labelled is usual, too.
            every = state.index.ids()
            rows = np.random.default_rng(0).permutation(len(every))[: _most(state)]
            ids, xb = _vectors(state, every[np.sort(rows)])
        # The network may have been trained on the others.
        of = self._store.catalogue.members("split")
        test = [of.of(code) for code, split in enumerate(of.values) if split != "train"]
        rows = np.flatnonzero(np.isin(ids, np.concatenate([np.empty(0, np.int64), *test])))
        return fit_novelty(xb, held_out=rows if len(rows) >= MIN_NOVELTY else None)


def fit_now(
    store: Store[PictureEncoder],
    fitter: ClassifierFitter,
    encoder: PictureEncoder,
    control: JobControl = JobControl(),
) -> StoredClasses:
    """Fit the classifier of a store that nobody is building in.

    Raises:
        StoreBusyError: another process is building in this store.
        CancelledError, ModelChangedError: as `ClassifierFitter.fit`.
    """
    with store.lock(control.job):
        return fitter.fit(encoder, control)


def _record(
    encoder: PictureEncoder, state: SearchState[PictureEncoder], **more: Any
) -> ClassifierRecord:
    facts = {"fingerprint": "", "learnt": 0, "labelled": 0, **more}
    return ClassifierRecord(
        model=encoder.digest,
        sequence=state.sequence,
        fitted=datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
    )


def _most(state: SearchState[PictureEncoder]) -> int:
    return max(_MAX_NUMBERS // state.index.dimension, 1)


def _drawn(labelled: _Labelled, most: int) -> tuple[Ids, NDArray[np.int64]]:
    """About ``most`` labelled pictures, an equal share of each label but enough to be learnt."""
    ids, codes = labelled.ids, labelled.codes
    if len(ids) > most:
        order = np.random.default_rng(0).permutation(len(ids))
        by_label = order[np.argsort(codes[order], kind="stable")]
        ends = np.cumsum(labelled.counts)
        rank = np.arange(len(ids)) - np.repeat(ends - labelled.counts, labelled.counts)
        kept = np.maximum(np.ceil(labelled.counts * (most / len(ids))), MIN_PER_CLASS)
        rows = by_label[rank < kept[codes[by_label]]]
        ids, codes = ids[rows], codes[rows]
    order = np.argsort(ids)
    return ids[order], codes[order]


def _vectors(state: SearchState[PictureEncoder], ids: Ids) -> tuple[Ids, Vectors]:
    """The embeddings of pictures; without those that were deleted in between."""
    for _ in range(_ATTEMPTS):
        try:
            return ids, state.index.vectors(ids)
        except UnknownIdError as error:
            ids = np.setdiff1d(ids, np.asarray(error.ids, np.int64))
    return ids, state.index.vectors(ids)


def _sample(ids: Ids, names: Sequence[str]) -> Sample:
    rows = np.sort(np.random.default_rng(0).permutation(len(ids))[:_SAMPLED])
    labels = np.array([_code([names[row]]) for row in rows.tolist()], np.int64)
    return Sample(ids[rows], labels)


def _learnt(counts: dict[str, int]) -> set[str]:
    return {name for name, count in counts.items() if count >= MIN_PER_CLASS}


def _code(labels: set[str] | Sequence[str | None]) -> int:
    """The CRC-32 of some labels, in any order."""
    return zlib.crc32("\0".join(sorted(map(str, labels))).encode("utf-8", "surrogatepass"))


def _fingerprint(
    encoder: PictureEncoder,
    labelled: _Labelled,
    ids: Ids,
    codes: NDArray[np.int64],
    xb: Vectors,
) -> str:
    """What the outcome of a fit depends on."""
    about = (encoder.digest, encoder.classes, labelled.names, labelled.total)
    digest = hashlib.sha256(repr((about, labelled.counts.tolist())).encode())
    for array in (ids, codes, xb):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
