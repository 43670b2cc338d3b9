"""A corpus embedded in parts and imported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embed.corpus import ArrayCorpus, FolderCorpus
from search_api.offline.shards import Shard, ShardError, embed_shard, import_shards, shard_folders
from search_api.service.engine import SearchEngine
from tests.search_api.conftest import MeanColour, compact


@pytest.fixture
def shards(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("search_api.offline.shards.BATCH", 3)
    monkeypatch.setattr("search_api.service.corpus_sync.BATCH", 3)
    (folder / "train" / "red" / "broken.png").write_bytes(b"no picture")
    root = tmp_path / "shards"
    skipped = [
        embed_shard(MeanColour(), FolderCorpus(folder), Shard(n, 3), root) for n in (2, 1, 3)
    ]
    assert [list(s) for s in skipped if s] == [["train/red/broken.png"]]
    return root


def imported(engine: SearchEngine, root: Path) -> int:
    return import_shards(
        engine.catalogue, shard_folders(root), engine.encoder.digest, engine.corpus.name
    )


def test_imported_is_what_a_build_makes(
    shards: Path, folder: Path, tmp_path: Path, engine: SearchEngine
) -> None:
    other = SearchEngine(MeanColour(), FolderCorpus(folder), tmp_path / "other")
    assert imported(other, shards) == 24
    assert imported(other, shards) == 0
    assert compact(other).count == 24
    digest = engine.encoder.digest
    ours, theirs = engine.catalogue.all_sources(), other.catalogue.all_sources()
    assert ours.keys() == theirs.keys()
    for source in ours:
        a, b = engine.catalogue.get([ours[source]])[0], other.catalogue.get([theirs[source]])[0]
        assert (a.split, a.label, a.content_hash) == (b.split, b.label, b.content_hash)
    rows = dict(zip(*engine.catalogue.embeddings(digest), strict=True))
    for i, x in zip(*other.catalogue.embeddings(digest), strict=True):
        source = other.catalogue.get([int(i)])[0].source
        np.testing.assert_array_equal(x, rows[ours[source]])
    other.close()


def test_a_shard_continues_where_it_stopped(shards: Path, folder: Path) -> None:
    parts = sorted(Shard(1, 3).folder(shards).glob("part-*"))
    assert len(parts) == 3
    kept = parts[1].read_bytes()
    parts[1].unlink()
    encoder = MeanColour()
    progress: list[tuple[str, int, int]] = []
    embed_shard(
        encoder,
        FolderCorpus(folder),
        Shard(1, 3),
        shards,
        lambda *values: progress.append(values),
    )
    assert encoder.encoded == 3
    assert progress == [("embedding", 6, 9), ("embedding", 9, 9)]
    assert parts[1].read_bytes() == kept


def test_pictures_deleted_by_hand_stay_deleted(shards: Path, engine: SearchEngine) -> None:
    engine.ingest.delete(5)
    assert imported(engine, shards) == 0
    assert engine.catalogue.count() == 23


def test_damaged_missing_and_foreign_shards(
    shards: Path, folder: Path, engine: SearchEngine
) -> None:
    part = sorted(Shard(2, 3).folder(shards).glob("part-*"))[0]
    whole = part.read_bytes()
    part.write_bytes(whole[:-1])
    with pytest.raises(ShardError, match="is damaged"):
        imported(engine, shards)
    part.unlink()
    with pytest.raises(ShardError, match="lacks part 0 of 3"):
        imported(engine, shards)
    part.write_bytes(whole)
    with pytest.raises(ShardError, match="created with model 'sha256:mean-colour'"):
        import_shards(engine.catalogue, shard_folders(shards), "sha256:x", engine.corpus.name)
    with pytest.raises(ShardError, match="created with model"):
        embed_shard(MeanColour("sha256:x"), FolderCorpus(folder), Shard(2, 3), shards)
    (Shard(3, 3).folder(shards)).rename(shards / "away")
    with pytest.raises(ShardError, match="has 2 of 3 shards; create the missing ones"):
        shard_folders(shards)
    with pytest.raises(ShardError, match="index embed"):
        shard_folders(shards / "none")


@pytest.mark.parametrize("text", ["", "3", "0/8", "9/8", "a/b", "-1/2", "1/0", "1/2/3"])
def test_shards_are_parsed(text: str) -> None:
    with pytest.raises(ShardError, match="3/8"):
        Shard.parse(text)
    assert Shard.parse("3/8") == Shard(3, 8)


def test_shards_of_different_divisions_are_refused(
    shards: Path, folder: Path, engine: SearchEngine
) -> None:
    embed_shard(MeanColour(), FolderCorpus(folder), Shard(1, 2), shards)
    with pytest.raises(ShardError, match="different divisions, such as shard-00001-of-00002"):
        imported(engine, shards)


PICTURES = np.stack([np.full((4, 4, 3), 40 * n, np.uint8) for n in range(4)])


def corpus(tagged: bool) -> ArrayCorpus:
    def load():
        return {"train": (PICTURES, np.array([0, 1, 1, 0]))}

    def tags(splits):
        return {"train": ["", "fire engine", "van", "tabby"]}

    return ArrayCorpus("four", ("cat", "truck"), load, tags=tags if tagged else None)


@pytest.mark.parametrize("tagged", [True, False])
def test_shards_carry_tags(tmp_path: Path, tagged: bool) -> None:
    engine = SearchEngine(MeanColour(), corpus(True), tmp_path / "var")
    shard = Shard(1, 1)
    embed_shard(engine.encoder, corpus(tagged), shard, tmp_path)
    import_shards(engine.catalogue, [shard.folder(tmp_path)], engine.encoder.digest, "four")
    payloads = [dict(entry.payload) for entry in engine.catalogue.page(-1, 10)]
    tags = ([], ["fire engine"], ["van"], ["tabby"]) if tagged else ([],) * 4
    assert payloads == [{"tags": words} if words else {} for words in tags]
    engine.close()
