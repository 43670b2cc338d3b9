"""Whose classes a picture gets, and how a process notices a new classifier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embed.corpus import FolderCorpus
from embed.encoder import Encoding
from index.contract import CatalogueError
from index.filters import parse_filter
from search_api.schemas.search import Classes
from search_api.service.engine import SearchEngine
from search_api.service.labelling import classes as module
from search_api.service.labelling.classes import NoClassesError
from search_api.service.labelling.classifier_fit import fit_now
from search_api.service.page import Page
from search_api.service.results import Prediction
from search_api.service.search import PictureQuery
from tests.search_api.conftest import MeanColour, plain, png, rebuild
from tests.search_api.helpers import ODD, garden, tint

SEA = png(tint("sea", 3))
OF_LEAVES = parse_filter({"must": [{"key": "label", "match": {"value": "leaf"}}]})


class Nameless(MeanColour):
    """A network without classes, as an image tower."""

    classes = ()

    def encode(self, pictures, *, spare=False):
        embeddings = super().encode(pictures).embeddings
        return Encoding(np.empty((len(embeddings), 0), np.float32), embeddings)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[SearchEngine]:
    """An engine over 60 pictures whose labels are no classes of the network."""
    engine = SearchEngine(MeanColour(), FolderCorpus(garden(tmp_path / "garden")), tmp_path / "own")
    rebuild(engine)
    yield engine
    engine.close()


def predicted(
    engine: SearchEngine, data: bytes, page: Page = Page(), classes: Classes = "auto"
) -> Prediction:
    found = engine.search(data, page, classes).prediction
    assert found is not None
    return found


def test_whose_classes(own: SearchEngine) -> None:
    both = own.search(SEA, classes="both")
    assert both.predictions is not None
    store, network = both.predictions.store, both.predictions.network
    assert store is not None and network is not None
    assert (store.label, store.source, set(store.probabilities)) == (
        "sea", "store", {"leaf", "rose", "sea"},
    )  # fmt: skip
    assert (network.label, network.source) == ("blue", "network")
    assert network.probabilities == {
        "blue": pytest.approx(241 / 261), "green": pytest.approx(1 / 261),
        "red": pytest.approx(19 / 261),
    }  # fmt: skip
    assert both.prediction == store
    for wanted in ("auto", "store"):
        one = own.search(SEA, classes=wanted)  # type: ignore[arg-type]
        assert (one.prediction, one.predictions) == (store, None)
    assert predicted(own, SEA, classes="network") == network


def test_a_picture_unlike_the_stored_ones_is_none_of_them(own: SearchEngine) -> None:
    for page in (
        Page(3),
        Page(1, offset=30),
        Page(3, filter=OF_LEAVES),
        Page(3, diversity=0.5),
        Page(3, group_by="label"),
    ):
        for classes in ("store", "network"):
            odd = predicted(own, png(ODD), page, classes)  # type: ignore[arg-type]
            assert odd.label is None
            assert odd.nearest_class in odd.probabilities
            assert odd.confidence < 0.2 < max(odd.probabilities.values())
        # A filter hides neighbours, but does not make a picture odd.
        known = predicted(own, SEA, page)
        assert known.label == "sea"
        assert known.confidence > 0.5
        assert known.grade != odd.grade
        assert known == predicted(own, SEA)


def test_of_a_batch_each_gets_what_it_asked_for(own: SearchEngine) -> None:
    sea, odd = plain(tint("sea", 3)), plain(ODD)
    queries = [
        PictureQuery(sea),
        PictureQuery(odd, None),
        PictureQuery(sea, Page(2, filter=OF_LEAVES), classes="network"),
        PictureQuery(sea, None, classes=None),
        PictureQuery(odd, Page(40), classes="both"),
    ]
    found = own.search_batch(queries)
    labels = [result.prediction and result.prediction.label for result in found]
    assert labels == ["sea", None, "blue", None, None]
    assert found[1].prediction is not None
    assert found[3].prediction is None and found[3].vector is not None
    assert [result.predictions is None for result in found] == [True, True, True, True, False]
    assert "search" in found[1].time and "search" not in found[3].time


def test_classes_that_do_not_exist_are_refused(engine: SearchEngine, own: SearchEngine) -> None:
    with pytest.raises(NoClassesError, match=r"own classes contain every label.*classifier fit"):
        engine.search(SEA, classes="store")
    both = engine.search(SEA, classes="both").predictions
    assert both is not None and both.store is None and both.network is not None
    nameless = SearchEngine(Nameless(), own.corpus, own.var)
    assert predicted(nameless, SEA).label == "sea"
    with pytest.raises(NoClassesError, match="no classes of its own"):
        nameless.search(SEA, classes="network")
    nameless.catalogue.set_meta("classifier", "")
    nameless.classes.refresh()
    assert nameless.search(SEA).prediction is None
    with pytest.raises(NoClassesError, match="none has been fitted yet"):
        nameless.search(SEA, classes="store")
    nameless.close()


def test_a_network_without_classes_gets_a_classifier(own: SearchEngine, tmp_path: Path) -> None:
    engine = SearchEngine(Nameless(), own.corpus, tmp_path / "nameless")
    rebuild(engine)
    assert predicted(engine, SEA).label == "sea"
    assert engine.classes.source(engine.encoder) == "store"
    engine.close()


def test_other_processes_notice_a_new_classifier(
    own: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SearchEngine(MeanColour(), own.corpus, own.var)
    assert predicted(other, SEA).label == "sea"
    ids = [entry.id for entry in own.catalogue.page(-1, 100) if entry.label == "sea"]
    own.catalogue.update(ids, label="lake")
    fit_now(own.store, own.fitter, own.encoder)
    assert predicted(own, SEA).label == "lake"
    now = [module.time.monotonic()]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    read: list[str] = []
    monkeypatch.setattr(
        other.catalogue, "get_meta", lambda key: (read.append(key), own.catalogue.get_meta(key))[1]
    )
    other.classes.refresh()
    read.clear()
    for _ in range(5):
        assert predicted(other, SEA).label == "lake"
    assert read == []  # within a second, nothing is read
    own.catalogue.update(ids, label="pond")
    fit_now(own.store, own.fitter, own.encoder)
    now[0] += 1.1
    for _ in range(5):
        assert predicted(other, SEA).label == "pond"
    assert read == ["classifier"]
    other.close()


def test_a_classifier_replaced_while_it_is_read(own: SearchEngine) -> None:
    """Its file is gone, but the record names the next one by then."""
    other = SearchEngine(MeanColour(), own.corpus, own.var)
    ids = [entry.id for entry in own.catalogue.page(-1, 100) if entry.label == "sea"]
    get_meta = other.catalogue.get_meta
    first = get_meta("classifier")
    own.catalogue.update(ids, label="lake")
    fit_now(own.store, own.fitter, own.encoder)
    texts = [first, get_meta("classifier")]
    other.catalogue.get_meta = lambda key: texts.pop(0)  # type: ignore[method-assign]
    stored = other.classes.refresh()
    assert stored.problem is None
    assert stored.classifier is not None and "lake" in stored.classifier.classes
    other.close()


def test_a_catalogue_that_cannot_be_read_does_not_stop_searches(
    own: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = own.classes.current()
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.0)

    def fail(key: str) -> str:
        raise CatalogueError("away")

    own.classes.refresh()
    monkeypatch.setattr(own.catalogue, "get_meta", fail)
    assert own.classes.current().classifier is before.classifier


def test_the_classes_survive_a_restart(own: SearchEngine) -> None:
    again = SearchEngine(MeanColour(), own.corpus, own.var)
    again.load()
    assert predicted(again, SEA) == predicted(own, SEA)
    assert again.summary()["classifier"] == own.summary()["classifier"]
    assert own.summary()["classifier"]["classes"] == 3
    again.close()
