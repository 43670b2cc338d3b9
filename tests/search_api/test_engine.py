"""The engine without HTTP: rebuilding, model and corpus changes, other processes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from embed.corpus import FolderCorpus
from index.catalogue import Catalogue
from index.snapshots import ModelMismatchError, NoGenerationError
from search_api.engine import CorpusMismatchError, SearchEngine, catalogue_path
from search_api.ingest import CancelledError
from search_api.results import Page
from search_api.store import StoreBusyError, store_lock
from tests.search_api.conftest import MeanColour, colour, png, source_of


def sources(engine: SearchEngine, rgb: tuple[int, int, int], limit: int = 3) -> list[str]:
    return [p.entry.source for p in engine.search(png(rgb), Page(limit)).points]


def test_a_new_process_serves_what_was_built(engine: SearchEngine, folder: Path) -> None:
    encoder = MeanColour()
    again = SearchEngine(encoder, FolderCorpus(folder), engine.var)
    manifest = again.load()
    assert (manifest.generation, manifest.count) == (1, 24)
    assert encoder.encoded == 0
    assert sources(again, colour("green", 4)) == sources(engine, colour("green", 4))
    again.close()


def test_nothing_built_yet(folder: Path, tmp_path: Path) -> None:
    engine = SearchEngine(MeanColour(), FolderCorpus(folder), tmp_path / "new")
    assert not engine.ready
    with pytest.raises(NoGenerationError, match="index build"):
        engine.load()
    with pytest.raises(NoGenerationError, match="index build"):
        engine.search(png((1, 2, 3)))


def test_another_models_index_is_refused_with_both_digests(
    engine: SearchEngine, folder: Path
) -> None:
    other = SearchEngine(MeanColour("sha256:other"), FolderCorpus(folder), engine.var)
    with pytest.raises(ModelMismatchError) as error:
        other.load()
    assert "sha256:other" in str(error.value)
    assert "sha256:mean-colour" in str(error.value)
    assert "lookalike index build" in str(error.value)
    manifest, counts = other.rebuild()
    assert manifest.model_digest == "sha256:other"
    assert (counts.embedded, counts.kept) == (24, 0)
    assert other.catalogue.model_digests() == {"sha256:other": 24}
    other.close()


def test_another_corpus_is_refused(engine: SearchEngine, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = SearchEngine(MeanColour(), FolderCorpus(elsewhere), engine.var)
    with pytest.raises(CorpusMismatchError) as error:
        other.check_corpus()
    assert str(elsewhere) in str(error.value)
    assert engine.corpus.name in str(error.value)
    other.close()


def test_a_server_takes_up_what_another_process_built(engine: SearchEngine, folder: Path) -> None:
    assert engine.search(png(colour("red", 0))).generation == 1
    (folder / "train" / "red" / "new.png").write_bytes(png((255, 9, 9)))
    (folder / source_of("red", 1)).unlink()
    other = SearchEngine(MeanColour(), FolderCorpus(folder), engine.var)
    other.rebuild()
    other.close()
    end = time.monotonic() + 60
    while True:
        # What has changed is known at once, also while the new generation is loaded aside.
        result = engine.search(png((255, 9, 9)), Page(24))
        found = [point.entry.source for point in result.points]
        assert found[0] == "train/red/new.png"
        assert source_of("red", 1) not in found
        if result.generation == 2:
            break
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_index_of_another_model_does_not_stop_a_server(
    engine: SearchEngine, folder: Path
) -> None:
    other = SearchEngine(MeanColour("sha256:other"), FolderCorpus(folder), engine.var)
    other.rebuild()
    other.close()
    result = engine.search(png(colour("red", 0)))
    assert (result.generation, result.model) == (1, "sha256:mean-colour")


def test_cancelled_rebuild_goes_on_where_it_stopped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.ingest.BATCH", 10)
    encoder = MeanColour()
    engine = SearchEngine(encoder, FolderCorpus(folder), tmp_path / "var")
    with pytest.raises(CancelledError, match="10 of 24"):
        engine.rebuild(cancelled=lambda: encoder.encoded >= 10)
    assert engine.catalogue.count() == 10
    seen: list[tuple[str, int, int]] = []
    manifest, counts = engine.rebuild(lambda *progress: seen.append(progress))
    assert (counts.embedded, counts.kept, manifest.count) == (14, 10, 24)
    assert encoder.encoded == 24
    assert seen == [
        ("embedding", 0, 14),
        ("embedding", 10, 14),
        ("embedding", 14, 14),
        ("indexing", 0, 24),
        ("indexing", 24, 24),
    ]
    engine.close()


def test_moved_picture_changes_its_label_without_embedding(
    engine: SearchEngine, encoder: MeanColour, folder: Path
) -> None:
    class Relabelled(FolderCorpus):
        def _item(self, path: Path):
            item = super()._item(path)
            return type(item)(item.source, "val", "crimson") if item.label == "red" else item

    embedded = encoder.encoded
    engine.corpus = Relabelled(folder)
    engine.rebuild()
    assert encoder.encoded == embedded
    assert engine.catalogue.label_counts() == {"blue": 8, "crimson": 8, "green": 8}
    assert engine.catalogue.split_counts() == {"test": 4, "train": 12, "val": 8}


def test_two_builders_at_once(engine: SearchEngine) -> None:
    with store_lock(engine.var), pytest.raises(StoreBusyError, match="another process"):
        engine.rebuild()
    engine.rebuild()


def test_damaged_index_is_rebuilt_from_the_catalogue(
    engine: SearchEngine, encoder: MeanColour
) -> None:
    expected = sources(engine, colour("blue", 2))
    (path,) = engine.var.glob("generations/*/index.faiss")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    embedded = encoder.encoded
    fresh = SearchEngine(encoder, engine.corpus, engine.var)
    assert fresh.load().generation == 2
    assert "index.faiss: has SHA-256" in fresh.loaded
    assert "Rebuilt from the catalogue: generation 2 with 24 pictures" in fresh.loaded
    assert encoder.encoded == embedded
    assert sources(fresh, colour("blue", 2)) == expected
    fresh.close()


def test_a_start_says_what_it_fell_back_to(engine: SearchEngine, encoder: MeanColour) -> None:
    expected = sources(engine, colour("blue", 2))
    good = SearchEngine(encoder, engine.corpus, engine.var)
    good.load()
    assert good.loaded == "Index: generation 1 with 24 pictures, every checksum good."
    engine.compact()
    (engine.var / "generations" / "000002" / "index.faiss").write_bytes(b"rubbish")
    fallen = SearchEngine(encoder, engine.corpus, engine.var)
    assert fallen.load().generation == 1
    assert "000002/index.faiss: has SHA-256" in fallen.loaded
    last = "Fell back to generation 1 with 24 pictures, every checksum good."
    assert fallen.loaded.endswith(last)
    assert sources(fallen, colour("blue", 2)) == expected
    (engine.var / "CURRENT").unlink()
    fallen = SearchEngine(encoder, engine.corpus, engine.var)
    assert fallen.load().generation == 1
    assert "CURRENT: is missing" in fallen.loaded
    assert fallen.loaded.endswith(last)
    findings = {f.part: f.problem for f in engine.store.verify()}
    assert set(findings) == {"generation 1", "generation 2", "CURRENT", "catalogue"}
    assert [part for part, problem in findings.items() if problem] == ["generation 2", "CURRENT"]


def test_searches_during_rebuilds_see_one_generation_each(engine: SearchEngine) -> None:
    errors: list[Exception] = []
    generations: set[int] = set()
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            try:
                result = engine.search(png(colour("red", 3)), Page(24))
                assert len({p.entry.id for p in result.points}) == 24
                assert result.points[0].entry.source == source_of("red", 3)
                generations.add(result.generation)
            except Exception as error:  # noqa: BLE001
                errors.append(error)
                return

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        engine.rebuild()
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert generations
    assert max(generations) <= 6


def test_catalogue_is_the_record(engine: SearchEngine) -> None:
    catalogue = Catalogue(catalogue_path(engine.var))
    assert catalogue.count() == 24
    assert catalogue.get_meta("corpus") == engine.corpus.name
    ids, xb = catalogue.embeddings(engine.encoder.digest)
    assert ids.shape == (24,)
    assert xb.shape == (24, 3)
    catalogue.close()
