"""Labels of an earlier version that look alike."""

from __future__ import annotations

import pytest

from index.payload import nfc
from search_api.service.engine import SearchEngine
from search_api.service.ingest import Upload
from search_api.service.labelling.spelling import compose_labels
from tests.search_api.conftest import compact, png, rebuild

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.fixture
def added(engine: SearchEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of two pictures whose labels an earlier version stored as they were given."""
    with monkeypatch.context() as earlier:
        earlier.setattr("index.payload.nfc", lambda text: text)
        (one,) = engine.ingest.add([Upload(png((9, 8, 7)), "a", DECOMPOSED)])
    (two,) = engine.ingest.add([Upload(png((7, 8, 9)), "b", DECOMPOSED)])
    assert isinstance(one, int) and isinstance(two, int)
    assert [entry.label for entry in engine.catalogue.get([one, two])] == [DECOMPOSED, COMPOSED]
    return [one, two]


def test_labels_that_look_alike_become_one(engine: SearchEngine, added: list[int]) -> None:
    assert compose_labels(engine.catalogue) == 1
    assert compose_labels(engine.catalogue) == 0
    assert [entry.label for entry in engine.catalogue.get(added)] == [COMPOSED, COMPOSED]
    assert all(nfc(label) == label for label in engine.catalogue.label_counts())


def test_the_next_build_does_it(engine: SearchEngine, added: list[int]) -> None:
    rebuild(engine)
    assert engine.catalogue.label_counts()[COMPOSED] == 2


def test_the_next_compaction_does_it(engine: SearchEngine, added: list[int]) -> None:
    compact(engine)
    assert engine.catalogue.label_counts()[COMPOSED] == 2
