"""The engine without HTTP: loading, other models and corpora, other processes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from embed.bundle import Bundle
from embed.corpus import ArrayCorpus, CorpusError, FolderCorpus
from embed.pictures import PictureError
from index.contract import BlobError, ModelChangedError, ModelMismatchError, NoGenerationError
from index.local.catalogue import SqliteCatalogue
from index.local.store import CacheSizes, catalogue_path
from search_api.service.engine import (
    SearchEngine,
    engine_over,
    open_engine,
)
from search_api.service.ingest import Upload
from search_api.service.page import Page
from search_api.service.recommend import ExampleSet
from search_api.service.search import PictureQuery
from search_api.settings import StoreLocation
from search_api.stores.model_store import keep_model, model_folder
from search_api.stores.store_corpus import CorpusMismatchError
from tests.search_api.conftest import (
    MeanColour,
    colour,
    compact,
    plain,
    png,
    rebuild,
    source_of,
    unit,
)
from tests.search_api.helpers import NEW, OTHER, Wider
from tests.search_api.service.conftest import OLD


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
    manifest, counts = rebuild(other)
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


def test_a_server_loads_what_another_process_built(engine: SearchEngine, folder: Path) -> None:
    assert engine.search(png(colour("red", 0))).generation == 1
    (folder / "train" / "red" / "new.png").write_bytes(png((255, 9, 9)))
    (folder / source_of("red", 1)).unlink()
    other = SearchEngine(MeanColour(), FolderCorpus(folder), engine.var)
    rebuild(other)
    other.close()
    end = time.monotonic() + 60
    while True:
        # Changes are visible at once, also while the new generation is being loaded.
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
    rebuild(other)
    other.close()
    result = engine.search(png(colour("red", 0)))
    assert (result.generation, result.model) == (1, "sha256:mean-colour")


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
    assert "index.faiss: has SHA-256" in fresh.load_report
    assert "Rebuilt from the catalogue: generation 2 with 24 pictures" in fresh.load_report
    assert encoder.encoded == embedded
    assert sources(fresh, colour("blue", 2)) == expected
    fresh.close()


def test_a_start_says_what_it_fell_back_to(engine: SearchEngine, encoder: MeanColour) -> None:
    expected = sources(engine, colour("blue", 2))
    good = SearchEngine(encoder, engine.corpus, engine.var)
    good.load()
    assert good.load_report == "Index: generation 1 with 24 pictures, all checksums valid."
    compact(engine)
    (engine.var / "generations" / "000002" / "index.faiss").write_bytes(b"rubbish")
    fallen = SearchEngine(encoder, engine.corpus, engine.var)
    assert fallen.load().generation == 1
    assert "000002/index.faiss: has SHA-256" in fallen.load_report
    last = "Fell back to generation 1 with 24 pictures, all checksums valid."
    assert fallen.load_report.endswith(last)
    assert sources(fallen, colour("blue", 2)) == expected
    (engine.var / "CURRENT").unlink()
    fallen = SearchEngine(encoder, engine.corpus, engine.var)
    assert fallen.load().generation == 1
    assert "CURRENT: is missing" in fallen.load_report
    assert fallen.load_report.endswith(last)
    findings = {f.part: f.problem for f in engine.store.verify()}
    assert set(findings) == {"generation 1", "generation 2", "CURRENT", "catalogue"}
    assert [part for part, problem in findings.items() if problem] == ["generation 2", "CURRENT"]


def test_the_catalogue_is_the_source_of_truth(engine: SearchEngine) -> None:
    catalogue = SqliteCatalogue(catalogue_path(engine.var))
    assert catalogue.count() == 24
    assert catalogue.get_meta("corpus") == engine.corpus.name
    ids, xb = catalogue.embeddings(engine.encoder.digest)
    assert ids.shape == (24,)
    assert xb.shape == (24, 3)
    catalogue.close()


def test_two_servers_that_start_after_a_crash_build_one_index(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one builds, the other waits; then it loads what was built, or builds."""
    shutil.rmtree(engine.var / "generations" / "000001")
    second = SearchEngine(engine.encoder, engine.corpus, engine.var)
    locked = engine.store.lock()
    locked.__enter__()
    slept: list[float] = []

    def others_end(seconds: float) -> None:
        slept.append(seconds)
        locked.__exit__(None, None, None)
        compact(engine)

    monkeypatch.setattr("search_api.service.engine.time.sleep", others_end)
    manifest = second.load()
    assert (len(slept), manifest) == (1, engine.manifest)
    second.close()


def test_models_are_those_of_the_store(
    store: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.model(OLD) is store.encoder
    opened: list[Path] = []

    def open_other(path: Path) -> Wider:
        opened.append(path)
        return Wider()

    monkeypatch.setattr(store, "_open_model", open_other)
    other = store.model(OTHER)
    assert isinstance(other, Wider)
    assert store.model(OTHER) is other
    assert opened == [model_folder(store.var, OTHER)]
    assert store.model("sha256:" + "c" * 64) is None
    alone = SearchEngine(MeanColour(OLD), FolderCorpus(folder), store.var)
    assert alone.model(OTHER) is None  # it cannot open bundles
    alone.close()


def test_pending_counts_changes_since_the_generation(engine: SearchEngine) -> None:
    assert engine.pending() == 0
    engine.ingest.add([Upload(png(NEW), "new")])
    engine.ingest.delete(1)
    assert engine.pending() == 2
    compact(engine)
    assert engine.pending() == 0


def test_the_picture_of_an_entry(engine: SearchEngine, folder: Path) -> None:
    (corpus,) = engine.catalogue.get([1])
    np.testing.assert_array_equal(engine.picture(corpus), plain(colour("blue", 6)))
    (id_,) = engine.ingest.add([Upload(png(NEW), "new")])
    assert isinstance(id_, int)
    (added,) = engine.catalogue.get([id_])
    np.testing.assert_array_equal(engine.picture(added), plain(NEW))
    (folder / corpus.source).unlink()
    with pytest.raises(CorpusError):
        engine.picture(corpus)
    for path in (engine.var / "pictures").glob("??/*"):
        path.unlink()
    with pytest.raises(BlobError):
        engine.picture(added)
    engine.warm()  # logs that it cannot be read


def test_search_classifies_and_ranks(engine: SearchEngine) -> None:
    result = engine.search(png(colour("green", 3)), Page(2))
    assert result.prediction is not None
    # Green 3 is (0, 240, 36): shares of (1, 241, 37) / 279.
    assert result.prediction.label == "green"
    assert result.prediction.probabilities == pytest.approx(
        {"blue": 37 / 279, "green": 241 / 279, "red": 1 / 279}
    )
    query = unit(colour("green", 3))
    expected = [
        (source_of("green", shade), unit(colour("green", shade)) @ query) for shade in (3, 4)
    ]
    assert [p.entry.source for p in result.points] == [source for source, _ in expected]
    assert [p.score for p in result.points] == pytest.approx([score for _, score in expected])
    assert result.vote == ("green", 0.8)
    with pytest.raises(PictureError):
        engine.search(b"rubbish")


def test_similar_leaves_the_picture_out(engine: SearchEngine) -> None:
    (entry,) = [e for e in engine.catalogue.page(-1, 100) if e.source == source_of("red", 0)]
    assert sources_of(engine.similar(entry.id, Page(2))) == [
        source_of("red", 1),
        source_of("red", 2),
    ]
    by_example = engine.recommend(ExampleSet((entry.id,)), ExampleSet(), "average_vector", Page(2))
    assert sources_of(by_example) == sources_of(engine.similar(entry.id, Page(2)))


def sources_of(result) -> list[str]:
    return [point.entry.source for point in result.points]


def test_a_switch_of_models_during_a_search_is_followed(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_picture = engine.searches.by_picture
    failures = [ModelChangedError("switched"), ModelChangedError("switched")]

    def switched_twice(encoder: MeanColour, queries: Sequence[PictureQuery]):
        if failures:
            raise failures.pop()
        return by_picture(encoder, queries)

    monkeypatch.setattr(engine.searches, "by_picture", switched_twice)
    assert sources_of(engine.search(png(colour("red", 2)), Page(1))) == [source_of("red", 2)]
    assert not failures


def test_a_switch_of_models_while_an_engine_is_being_opened_is_followed(
    engine: SearchEngine, folder: Path
) -> None:
    known = {"sha256:mean-colour": MeanColour, OTHER: Wider}

    def opened() -> SearchEngine:
        return SearchEngine(
            MeanColour(),
            FolderCorpus(folder),
            engine.var,
            open_model=lambda path: known[str(path)](),
            find_model=Path,
            follow=True,
        )

    switching, opening = opened(), opened()
    switching.load()
    manifest, _ = switching.builder.switch(Wider())
    assert opening.load() == manifest
    assert (manifest.model_digest, opening.encoder.digest) == (OTHER, OTHER)
    assert sources(opening, colour("green", 4))[0] == source_of("green", 4)
    opening.close()
    switching.close()


def test_available_asks_the_store(engine: SearchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine.available()
    monkeypatch.setattr(engine.served, "available", lambda: False)
    assert engine.ready
    assert not engine.available()


def test_summary(engine: SearchEngine) -> None:
    engine.ingest.delete(1)
    summary = engine.summary()
    assert (summary["count"], summary["generation"], summary["kind"]) == (23, 1, "exact")
    assert summary["pending"] == {"added": 0, "deleted": 1}
    assert summary["labels"] == {"blue": 7, "green": 8, "red": 8}
    assert summary["splits"] == {"test": 5, "train": 18}
    assert summary["classes"] == ["blue", "green", "red"]
    assert (summary["model"], summary["sample"]) == ("sha256:mean-colour", False)


def test_open_engine_opens_the_stores_model(
    tiny_bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    tiny_bundle.save(tmp_path / "bundle")
    location = StoreLocation(tmp_path / "store")
    said: list[str] = []
    with open_engine(
        folder, location, tmp_path / "bundle", say=said.append, building=True
    ) as engine:
        assert engine.encoder.digest == tiny_bundle.digest
        assert engine.corpus.name == str(folder)
        assert not engine.ready
        rebuild(engine)
    keep_model(location.var, tmp_path / "bundle", tiny_bundle.digest)
    with open_engine(folder, location, None, cache_sizes=CacheSizes(2, 1)) as engine:
        assert engine.load().model_digest == tiny_bundle.digest


def test_a_corpus_of_arrays_is_kept_in_the_store(tmp_path: Path) -> None:
    pictures = np.stack([plain(colour("red", shade)) for shade in range(4)])
    loads = 0

    def load():
        nonlocal loads
        loads += 1
        return {"train": (pictures, np.zeros(4, np.int64))}

    for _ in range(2):
        corpus = ArrayCorpus("Four reds", ("red",), load)
        with engine_over(corpus, StoreLocation(tmp_path), MeanColour()) as engine:
            rebuild(engine)
    assert loads == 1
    assert (tmp_path / "corpus" / "four-reds").is_dir()
