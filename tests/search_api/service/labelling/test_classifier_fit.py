"""Fitting the classifier: at builds, when it is due, and what happens when it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embed.classes.novelty import Novelty
from embed.corpus import FolderCorpus
from index.contract import CancelledError, JobControl, StoreBusyError
from index.local.lock import store_lock
from search_api.service.engine import SearchEngine
from search_api.service.ingest import Upload
from search_api.service.labelling import classifier_fit
from search_api.service.labelling.classifier_fit import fit_now
from search_api.stores.classifier_store import ClassifierRecord, read_record
from tests.search_api.conftest import MeanColour, colour, compact, png, rebuild
from tests.search_api.helpers import EACH, KINDS, ODD, OTHER, Wider, garden, tint


@pytest.fixture
def own(tmp_path: Path) -> Iterator[SearchEngine]:
    """An engine over 60 pictures whose labels are no classes of the network."""
    engine = SearchEngine(MeanColour(), FolderCorpus(garden(tmp_path / "garden")), tmp_path / "own")
    rebuild(engine)
    yield engine
    engine.close()


def again(engine: SearchEngine) -> SearchEngine:
    """Another process on the same store."""
    return SearchEngine(MeanColour(), engine.corpus, engine.var)


def record_of(engine: SearchEngine) -> ClassifierRecord:
    record = read_record(engine.catalogue)
    assert record is not None
    return record


def files(engine: SearchEngine) -> list[str]:
    return sorted(path.stem for path in (engine.var / "classifiers").glob("*.npz"))


def relabel(engine: SearchEngine, of: str, to: str | None, number: int) -> None:
    ids = [e.id for e in engine.catalogue.page(-1, 1000) if e.label == of]
    engine.catalogue.update(ids[:number], label=to)


def test_a_build_fits_the_labels(own: SearchEngine) -> None:
    classifier = own.classes.current().classifier
    assert classifier is not None
    assert classifier.classes == KINDS
    assert classifier.counts == dict.fromkeys(KINDS, EACH)
    assert classifier.left_out == {}
    assert classifier.accuracy == 1.0
    assert classifier.model == "sha256:mean-colour"
    record = record_of(own)
    assert (record.labelled, record.reason, record.pending) == (60, None, False)
    assert record.sequence == own.served.current().sequence
    assert files(own) == [record.file]
    result = own.search(png(tint("sea", 3)))
    assert result.prediction is not None
    assert (result.prediction.label, result.prediction.source) == ("sea", "store")
    assert own.encoder.encoded == 61  # no picture was read for the classifier


def test_a_build_reports_the_stage_and_may_leave_it_out(own: SearchEngine) -> None:
    before = record_of(own)
    seen: list[tuple[str, int, int]] = []
    rebuild(own, JobControl(lambda *progress: seen.append(progress)))
    # Nothing has changed, so it was not fitted again.
    assert seen[-2:] == [(classifier_fit.STAGE, 0, 60), (classifier_fit.STAGE, 60, 60)]
    assert record_of(own) == before
    own.ingest.add([Upload(png(tint("rose", 4)), label="rose")])
    seen.clear()
    compact_with(own, JobControl(lambda *progress: seen.append(progress)))
    steps = [done for stage, done, _ in seen if stage == classifier_fit.STAGE]
    assert steps[0] == 0 and steps[-1] == 61 and len(steps) > 3 and steps == sorted(steps)
    classifier = own.classes.current().classifier
    assert classifier is not None and classifier.counts["rose"] == 21
    assert files(own) == [record_of(own).file]


def compact_with(engine: SearchEngine, control: JobControl) -> None:
    engine.builder.compact(engine.encoder, control)


def test_too_few_labels_are_said(own: SearchEngine) -> None:
    for kind in ("rose", "sea"):
        relabel(own, kind, None, EACH)
    assert own.fitter.due(now=True)
    compact(own)
    stored = own.classes.current()
    assert stored.classifier is None
    assert "1 of 1 classes can be learnt; expected at least 2" in (stored.reason or "")
    assert not own.fitter.due(now=True)
    assert files(own) == []
    result = own.search(png(tint("rose", 3)))
    assert result.prediction is not None
    assert (result.prediction.label, result.prediction.source) == ("red", "network")


def test_labels_that_the_network_knows_need_no_classifier(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = engine.classes.current()
    assert stored.classifier is None
    assert stored.reason == "the model's own classes contain every label"
    assert stored.novelty is None  # of 24 pictures it is not measured
    assert stored.record is not None and stored.record.file is None
    monkeypatch.setattr(classifier_fit, "MIN_NOVELTY", 20)
    fit_now(engine.store, engine.fitter, engine.encoder)
    novelty = again(engine).classes.current().novelty
    assert isinstance(novelty, Novelty) and novelty.pictures == 24
    # A few stray labels change nothing; a class that can be learnt does.
    assert not engine.fitter.due(now=True)
    engine.ingest.add([Upload(png(ODD), str(number), "white") for number in range(4)])
    assert not engine.fitter.due(now=True)
    engine.ingest.add([Upload(png(ODD), "4", "white")])
    assert engine.fitter.due(now=True)
    fitted = fit_now(engine.store, engine.fitter, engine.encoder).classifier
    assert fitted is not None and fitted.classes == ("blue", "green", "red", "white")


def test_what_the_network_was_trained_on_is_not_measured(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures of the split `train` are nearer to each other than any new picture is."""
    monkeypatch.setattr(classifier_fit, "MIN_NOVELTY", 6)
    test = [entry.id for entry in engine.catalogue.page(-1, 100) if entry.split == "test"]
    given: list[list[int]] = []
    original = classifier_fit.fit_novelty

    def fit(xb: np.ndarray, *, held_out: np.ndarray) -> Novelty:
        given.append(engine.served.current().index.ids()[held_out].tolist())
        return original(xb, held_out=held_out)

    monkeypatch.setattr(classifier_fit, "fit_novelty", fit)
    novelty = fit_now(engine.store, engine.fitter, engine.encoder).novelty
    assert novelty is not None
    assert given == [test]
    assert len(test) == 6


def test_it_is_due_when_enough_labels_have_changed(own: SearchEngine) -> None:
    assert not own.fitter.due(now=True)
    relabel(own, "rose", "sea", 4)  # of 60, under 5 % but for the least of five
    assert not own.fitter.due(now=True)
    relabel(own, "rose", "sea", 1)
    assert own.fitter.due(now=True)
    assert not own.fitter.due()  # this soon, it is not looked at again
    fit_now(own.store, own.fitter, own.encoder)
    assert not own.fitter.due(now=True)
    own.ingest.add([Upload(png(tint("leaf", n)), str(n), "leaf") for n in range(5)])
    assert own.fitter.due(now=True)


def test_it_is_due_when_a_class_appears_or_vanishes(own: SearchEngine) -> None:
    relabel(own, "rose", "tulip", 4)
    assert not own.fitter.due(now=True)  # four cannot be learnt
    own.ingest.add([Upload(png(tint("rose", 2)), "one", "tulip")])
    assert own.fitter.due(now=True)
    fit_now(own.store, own.fitter, own.encoder)
    relabel(own, "tulip", "rose", 1)
    assert own.fitter.due(now=True)
    stored = fit_now(own.store, own.fitter, own.encoder)
    assert stored.classifier is not None
    assert stored.classifier.left_out == {"tulip": 4}
    assert stored.classifier.counts == {"leaf": 20, "rose": 17, "sea": 20}


def test_a_lost_or_damaged_file_is_replaced(
    own: SearchEngine, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = (own.var / "classifiers").glob("*.npz")
    for damage in (path.unlink, lambda: path.write_bytes(path.read_bytes()[:-1] + b"?")):
        damage()
        other = again(own)
        caplog.clear()
        result = other.search(png(tint("sea", 3)))
        assert result.prediction is not None
        assert (result.prediction.label, result.prediction.source) == ("blue", "network")
        assert "own classes are used instead" in caplog.text
        assert other.fitter.due(now=True)
        compact(other)
        found = other.search(png(tint("sea", 3))).prediction
        assert found is not None and found.label == "sea"
        assert files(own) == [path.stem]
        other.close()


def test_a_store_of_an_earlier_version_waits_for_a_build(own: SearchEngine) -> None:
    own.catalogue.set_meta("classifier", "")
    other = again(own)
    assert not other.fitter.due(now=True)
    assert other.classes.current().reason == "none has been fitted yet"
    found = other.search(png(tint("sea", 3))).prediction
    assert found is not None and found.source == "network"
    compact(other)
    assert other.classes.current().classifier is not None
    other.close()


def test_a_failure_does_not_fail_the_build_and_is_not_repeated(
    own: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("too much")

    monkeypatch.setattr(classifier_fit, "fit_classifier", fail)
    before = record_of(own)
    relabel(own, "rose", "sea", 10)
    assert compact(own).generation == 2
    record = record_of(own)
    assert record.reason == "the last fit failed: too much"
    assert record.file == before.file
    found = own.search(png(tint("leaf", 3))).prediction
    assert found is not None and (found.label, found.source) == ("leaf", "store")
    assert not own.fitter.due(now=True)
    with pytest.raises(MemoryError):
        fit_now(own.store, own.fitter, own.encoder)


def test_a_cancelled_fit_leaves_what_was_there(own: SearchEngine) -> None:
    relabel(own, "rose", "sea", 10)
    before = record_of(own)
    with pytest.raises(CancelledError, match="stopped while fitting"):
        fit_now(own.store, own.fitter, own.encoder, JobControl(cancelled=lambda: True))
    assert record_of(own) == before
    assert own.fitter.due(now=True)


def test_a_first_fit_that_is_interrupted_is_due(tmp_path: Path) -> None:
    engine = SearchEngine(MeanColour(), FolderCorpus(garden(tmp_path / "garden")), tmp_path / "own")
    stages: list[str] = []
    control = JobControl(
        lambda stage, *_: stages.append(stage), lambda: classifier_fit.STAGE in stages
    )
    manifest, _ = rebuild(engine, control)
    assert manifest.count == 60  # the index is complete, and so is the build
    assert record_of(engine).pending
    assert engine.classes.current().classifier is None
    assert engine.fitter.due(now=True)
    fit_now(engine.store, engine.fitter, engine.encoder)
    assert engine.classes.current().classifier is not None
    assert not engine.fitter.due(now=True)
    engine.close()


def test_only_one_process_fits_at_a_time(own: SearchEngine) -> None:
    with store_lock(own.var), pytest.raises(StoreBusyError, match="another process"):
        fit_now(own.store, own.fitter, own.encoder)


def test_a_switch_of_models_fits_for_the_new_one(own: SearchEngine) -> None:
    wider = Wider()
    other = SearchEngine(wider, own.corpus, own.var)
    _, counts = rebuild(other)
    assert counts.embedded == 60
    classifier = other.classes.current().classifier
    assert classifier is not None
    assert (classifier.model, classifier.weight.shape) == (OTHER, (3, 4))
    assert files(own) == [record_of(other).file]
    # A process that still has the old model gets no classes of the new one.
    own.classes.refresh()
    assert own.classes.of("sha256:mean-colour").classifier is None
    other.close()


def test_of_a_large_store_a_sample_of_each_label_is_fitted(
    own: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier_fit, "_MAX_NUMBERS", 3 * 30)
    relabel(own, "rose", "sea", 13)
    fitted: list[int] = []
    original = classifier_fit.fit_classifier

    def fit(xb: np.ndarray, labels: list[str], *rest: object, **more: object) -> object:
        fitted.extend([len(xb), labels.count("rose"), labels.count("leaf"), labels.count("sea")])
        return original(xb, labels, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(classifier_fit, "fit_classifier", fit)
    stored = fit_now(own.store, own.fitter, own.encoder)
    assert fitted == [32, 5, 10, 17]  # at least five of each, half of the others
    assert stored.classifier is not None
    assert stored.classifier.counts == {"leaf": 20, "rose": 7, "sea": 33}


def test_pictures_without_labels_are_usual_too(own: SearchEngine) -> None:
    dark = [(90 + 10 * n, 90 + 10 * n, 95 + 10 * n) for n in range(10)]
    label = own.search(png(ODD)).prediction
    assert label is not None and label.label is None
    own.ingest.add([Upload(png(shade), str(n)) for n, shade in enumerate(dark * 2)][:10])
    compact(own)
    novelty = own.classes.current().novelty
    assert novelty is not None and novelty.pictures == 70
    grey = own.search(png((120, 120, 125))).prediction
    assert grey is not None and grey.label is not None


def test_searches_of_stored_colours(engine: SearchEngine) -> None:
    """Without novelty, the network answers as it always did."""
    found = engine.search(png(colour("red", 3))).prediction
    assert found is not None
    assert (found.label, found.confidence) == ("red", pytest.approx(241 / 279))
