"""Tags of a corpus become payload, also in a store that was built before there were any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embed.corpus import ArrayCorpus
from index.filters import parse_filter
from search_api.engine import SearchEngine
from search_api.shards import Shard, embed_shard, import_shards
from tests.search_api.conftest import MeanColour

PICTURES = np.stack([np.full((4, 4, 3), 40 * n, np.uint8) for n in range(4)])
FIRE = parse_filter({"must": [{"key": "tags", "match": {"value": "fire engine"}}]})


def corpus(tagged: bool) -> ArrayCorpus:
    def load():
        return {"train": (PICTURES, np.array([0, 1, 1, 0]))}

    def tags(splits):
        return {"train": ["", "fire engine", "van", "tabby"]}

    return ArrayCorpus("four", ("cat", "truck"), load, tags=tags if tagged else None)


def payloads(engine: SearchEngine) -> dict[str, dict]:
    return {entry.source: dict(entry.payload) for entry in engine.catalogue.page(-1, 10)}


TAGGED = {
    "train/00000": {},
    "train/00001": {"tags": ["fire engine"]},
    "train/00002": {"tags": ["van"]},
    "train/00003": {"tags": ["tabby"]},
}


def test_a_new_store_has_them(tmp_path: Path) -> None:
    engine = SearchEngine(MeanColour(), corpus(True), tmp_path)
    engine.rebuild()
    assert payloads(engine) == TAGGED
    (found,) = engine.catalogue.ids(FIRE)
    assert engine.catalogue.get([found])[0].source == "train/00001"
    engine.close()


def test_an_older_store_gets_them_once_without_embedding(tmp_path: Path) -> None:
    engine = SearchEngine(MeanColour(), corpus(False), tmp_path)
    engine.rebuild()
    ids = {entry.source: entry.id for entry in engine.catalogue.page(-1, 10)}
    engine.writer.update(ids["train/00002"], payload={"tags": ["mine"]})
    engine.writer.update(ids["train/00003"], label="lynx", payload={"price": 9.5})
    engine.close()

    encoder = MeanColour()
    engine = SearchEngine(encoder, corpus(True), tmp_path)
    engine.rebuild()
    assert encoder.encoded == 0
    expected = {
        **TAGGED,
        "train/00002": {"tags": ["mine"]},
        "train/00003": {"price": 9.5, "tags": ["tabby"]},
    }
    assert payloads(engine) == expected
    assert engine.catalogue.get([ids["train/00003"]])[0].label == "lynx"
    # What somebody takes away stays away.
    engine.writer.update(ids["train/00001"], payload={}, replace_payload=True)
    engine.rebuild()
    assert payloads(engine) == {**expected, "train/00001": {}}
    engine.close()


@pytest.mark.parametrize("tagged", [True, False])
def test_shards_carry_them(tmp_path: Path, tagged: bool) -> None:
    engine = SearchEngine(MeanColour(), corpus(True), tmp_path / "var")
    shard = Shard(1, 1)
    embed_shard(engine.encoder, corpus(tagged), shard, tmp_path)
    import_shards(engine.catalogue, [shard.folder(tmp_path)], engine.encoder.digest, "four")
    assert payloads(engine) == (TAGGED if tagged else {source: {} for source in TAGGED})
    engine.close()
