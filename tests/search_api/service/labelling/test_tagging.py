"""Classes and tags of many files, and the vote of the neighbours on the tags."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from embed.encoder import Encoding
from index.ann.quick_lists import QuickLists
from search_api.service.engine import SearchEngine
from search_api.service.labelling.classes import Predicted
from search_api.service.labelling.tagging import (
    NeighbourTags,
    StoreJudge,
    count,
    tag_files,
    tags_of,
    words,
)
from search_api.service.page import Page
from search_api.service.results import Tags
from tests.search_api.conftest import CLASSES, MeanColour, colour, compact, png


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "new"
    root.mkdir()
    (root / "red.png").write_bytes(png(colour("red", 0)))
    (root / "bad.png").write_bytes(b"rubbish")
    return root


def test_votes_by_hand() -> None:
    voters = [("van", "red"), ("van",), ("van",), ("red",), ("tabby",), (), (), (), (), ("red",)]
    assert count(voters) == (("red", 0.3), ("van", 0.3))
    assert count([("van",), ("van",), *[()] * 8]) == ()  # 0.2 is too few
    assert count([("a",), ("a", "b"), ("b",), ()]) == (("a", 0.5), ("b", 0.5))
    assert count([]) == ()
    assert words(["van", "van", 3, "", "red"]) == ("van", "red")
    assert words("van") == ("van",)
    assert words(None) == words({"a": 1}) == words(7) == ()


def test_neighbours_vote_with_their_payload(engine: SearchEngine) -> None:
    reds = [e.id for e in engine.catalogue.page(-1, 100) if e.label == "red"]
    for id_ in reds[:6]:
        engine.ingest.update(id_, payload={"tags": ["fire engine"]})
    engine.ingest.update(reds[6], payload={"tags": "scarlet"})
    vote = NeighbourTags(engine.served, engine.catalogue)
    embeddings = MeanColour().encode([np.full((2, 2, 3), colour("red", 3), np.uint8)]).embeddings
    assert vote(embeddings) == [(("fire engine", 0.6),)]


def test_tags_of_a_search(engine: SearchEngine) -> None:
    for entry in engine.catalogue.page(-1, 100):
        engine.ingest.update(entry.id, payload={"tags": [entry.label or "", "plain"]})
    points = engine.search(png(colour("red", 3)), Page(10)).points
    assert tags_of(points) == (("plain", 1.0), ("red", 0.8))
    assert tags_of(()) == ()


def test_pictures_deleted_in_between_have_no_vote(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [e.id for e in engine.catalogue.page(-1, 100) if e.label == "red"]
    for id_ in ids:
        engine.ingest.update(id_, payload={"tags": ["scarlet"]})
    vote = NeighbourTags(engine.served, engine.catalogue)
    state = engine.served.current()
    for id_ in ids[:4]:
        engine.ingest.delete(id_)
    monkeypatch.setattr(engine.served, "current", lambda: state)
    embeddings = MeanColour().encode([np.full((2, 2, 3), colour("red", 3), np.uint8)]).embeddings
    # All eight are among the ten nearest in the state before the deletions.
    assert vote(embeddings) == [(("scarlet", 0.4),)]


def test_many_queries_are_voted_on_by_inverted_lists(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.service.labelling.tagging.MANY_QUERIES", 3)
    monkeypatch.setattr("search_api.service.labelling.tagging.MANY_STORED", 24)
    for entry in engine.catalogue.page(-1, 100):
        engine.ingest.update(entry.id, payload={"tags": [f"plain {entry.label}"]})
    searched: list[int] = []
    nearest = QuickLists.nearest
    monkeypatch.setattr(
        QuickLists, "nearest", lambda *values: (searched.append(values[2]), nearest(*values))[1]
    )
    shades = [np.full((2, 2, 3), colour(name, 3), np.uint8) for name in ("red", "green", "blue")]
    embeddings = MeanColour().encode(shades).embeddings
    few = NeighbourTags(engine.served, engine.catalogue, 2)(embeddings)
    assert not searched
    many = NeighbourTags(engine.served, engine.catalogue, 3)(embeddings)
    assert searched == [10]
    assert [tags[0][0] for tags in many] == ["plain red", "plain green", "plain blue"]
    assert [tags[0] for tags in few] == [(f"plain {c}", 0.8) for c in ("red", "green", "blue")]


def test_an_approximate_index_needs_no_inverted_lists(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.service.labelling.tagging.MANY_QUERIES", 1)
    monkeypatch.setattr("search_api.service.labelling.tagging.MANY_STORED", 24)
    monkeypatch.setattr(QuickLists, "__init__", lambda *values: pytest.fail("built"))
    compact(engine, "hnsw")
    embeddings = MeanColour().encode([np.full((2, 2, 3), colour("red", 3), np.uint8)]).embeddings
    assert NeighbourTags(engine.served, engine.catalogue, 1)(embeddings) == [()]


def test_results_come_in_the_order_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.service.corpus_sync.BATCH", 2)
    names = ["red", "green", "blue", "red", "red", "blue", "green"]
    files = [tmp_path / f"{n}.png" for n in range(7)]
    for file, name in zip(files, names, strict=True):
        file.write_bytes(png(colour(name, 2)))
    files[2:4] = [tmp_path / "one.png", tmp_path / "two.png"]  # a batch without any picture
    votes = []
    alone = StoreJudge(MeanColour())

    def judge(encoding: Encoding) -> list[tuple[Predicted, Tags]]:
        votes.append(len(encoding.embeddings))
        tags = [((CLASSES[int(row.argmax())], 1.0),) for row in encoding.embeddings[:, ::-1]]
        return [(one, own) for (one, _), own in zip(alone(encoding), tags, strict=True)]

    found = list(tag_files(MeanColour(), files, judge))
    assert [len(batch) for batch in found] == [2, 2, 2, 1]
    results = [result for batch in found for result in batch]
    assert [result.path for result in results] == files
    assert [r.prediction.label if r.prediction else None for r in results] == [
        "red", "green", None, None, "red", "blue", "green"
    ]  # fmt: skip
    assert [r.tags[0][0] for r in results if r.tags] == ["red", "green", "red", "blue", "green"]
    assert sorted(votes) == [1, 2, 2]


def test_each_file_has_its_own_result(pictures: Path) -> None:
    files = [pictures / "bad.png", pictures / "red.png", pictures / "missing.png", pictures]
    alone = StoreJudge(MeanColour())
    (batch,) = tag_files(
        MeanColour(), files, lambda found: [(one, (("van", 0.5),)) for one, _ in alone(found)]
    )
    assert [result.path for result in batch] == files
    assert [bool(result.error) for result in batch] == [True, False, True, True]
    assert "not a picture" in (batch[0].error or "")
    assert batch[1].prediction is not None and batch[1].prediction.label == "red"
    assert batch[1].tags == (("van", 0.5),)


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    ((result,),) = tag_files(MeanColour(), [tmp_path / "pipe.png"], StoreJudge(MeanColour()))
    assert result.error == "it is not a file"
