"""Building generations: rebuilds, compactions, and switching to another model."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from embed.corpus import FolderCorpus
from index.contract import (
    CancelledError,
    IndexInputError,
    JobControl,
    Manifest,
    ModelChangedError,
    StoreBusyError,
)
from index.local.lock import store_lock
from search_api.service.engine import SearchEngine
from search_api.service.ingest import Upload
from search_api.service.model_migration import encoder_of
from search_api.service.page import Page
from tests.search_api.conftest import MeanColour, colour, compact, png, rebuild, source_of
from tests.search_api.helpers import NEW, OTHER, Wider
from tests.search_api.service.conftest import OLD, opened

NEWEST = "sha256:" + "d" * 64


def test_a_cancelled_rebuild_continues_where_it_stopped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.service.corpus_sync.BATCH", 10)
    encoder = MeanColour()
    engine = SearchEngine(encoder, FolderCorpus(folder), tmp_path / "var")
    with pytest.raises(CancelledError, match="10 of 24"):
        rebuild(engine, JobControl(cancelled=lambda: encoder.encoded >= 10))
    assert engine.catalogue.count() == 10
    seen: list[tuple[str, int, int]] = []
    manifest, counts = rebuild(engine, JobControl(lambda *progress: seen.append(progress)))
    assert (counts.embedded, counts.kept, manifest.count) == (14, 10, 24)
    assert encoder.encoded == 24
    assert seen == [
        ("embedding", 0, 14),
        ("embedding", 10, 14),
        ("embedding", 14, 14),
        ("indexing", 0, 24),
        ("indexing", 24, 24),
        ("fitting the classifier", 0, 24),
        ("fitting the classifier", 24, 24),
    ]
    engine.close()


def test_two_builders_at_once(engine: SearchEngine) -> None:
    with store_lock(engine.var), pytest.raises(StoreBusyError, match="another process"):
        rebuild(engine)
    rebuild(engine)


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
        rebuild(engine)
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert generations
    assert max(generations) <= 6


def test_a_switch_interrupted_before_the_new_index_is_completed(
    store: SearchEngine, folder: Path
) -> None:
    store.builder.embed(encoder_of(store, OTHER))
    store.catalogue.staging.promote(OTHER)
    # The old model is still in use here; a new process builds the index from the catalogue.
    assert store.search(png(colour("red", 1))).model == OLD
    fresh = opened(folder, store.var, Wider())
    assert fresh.load().model_digest == OTHER
    assert "Rebuilt from the catalogue" in fresh.load_report
    assert store.served.current().manifest.model_digest == OTHER
    result = store.search(png(colour("red", 1)), Page(1))
    assert (result.model, result.points[0].entry.source) == (OTHER, source_of("red", 1))
    fresh.close()


def test_a_switch_keeps_and_names_what_cannot_be_read(store: SearchEngine) -> None:
    (one,) = store.ingest.add([Upload(png(NEW), "k")])
    assert isinstance(one, int)
    (path,) = store.var.glob("pictures/??/*")
    path.unlink()
    manifest, counts = store.builder.switch(encoder_of(store, OTHER))
    assert list(counts.skipped) == ["key:k"]
    assert manifest.count == 24
    assert store.catalogue.get([one])[0].source == "key:k"
    assert store.catalogue.model_digests() == {OLD: 1, OTHER: 24}


def test_a_rebuild_with_another_model_serves_the_old_one_until_it_ends(
    store: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.service.corpus_sync.BATCH", 10)
    encoder = Wider(NEWEST)
    other = opened(folder, store.var, encoder)
    with pytest.raises(CancelledError):
        rebuild(other, JobControl(cancelled=lambda: encoder.encoded >= 20))
    assert store.search(png(colour("red", 1)), Page(24)).model == OLD
    assert store.catalogue.model_digests() == {OLD: 24}
    _, counts = rebuild(other)
    assert (counts.embedded, counts.total) == (4, 24)
    assert encoder.encoded == 24
    other.close()


def test_pictures_added_during_the_switch_are_found(
    store: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server may add pictures between the last check and the switch."""
    second = opened(folder, store.var)
    second.load()
    promote = store.catalogue.staging.promote
    late: list[object] = []

    def add_first(digest: str) -> int:
        if not late:
            late.extend(second.ingest.add([Upload(png(NEW), "late"), Upload(png((9, 99, 9)))]))
        return promote(digest)

    monkeypatch.setattr(store.catalogue.staging, "promote", add_first)
    manifest, counts = store.builder.switch(encoder_of(store, OTHER))
    assert (manifest.count, counts.embedded, counts.total) == (26, 26, 26)
    found = store.search(png(NEW), Page(1))
    assert (found.model, found.points[0].entry.source) == (OTHER, "key:late")
    assert store.catalogue.model_digests() == {OTHER: 26}
    store.catalogue.delete([int(str(i)) for i in late])
    second.close()


def test_a_compaction_embeds_pictures_that_can_be_read_again(store: SearchEngine) -> None:
    (one,) = store.ingest.add([Upload(png(NEW), "k")])
    (path,) = store.var.glob("pictures/??/*")
    data = path.read_bytes()
    path.unlink()
    assert store.builder.switch(encoder_of(store, OTHER))[0].count == 24
    path.write_bytes(data)
    assert compact(store).count == 25
    assert store.search(png(NEW), Page(1)).points[0].entry.id == one


def test_a_rebuild_cancelled_after_the_switch_still_builds_an_index(
    store: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.service.corpus_sync.BATCH", 10)
    (folder / "train" / "red" / "new.png").write_bytes(png((250, 5, 5)))
    encoder = Wider(NEWEST)
    other = opened(folder, store.var, encoder)
    with pytest.raises(CancelledError):
        rebuild(other, JobControl(cancelled=lambda: encoder.encoded >= 24))
    assert other.search(png(colour("red", 1)), Page(30)).model == encoder.digest
    assert other.served.current().index.count() == 24
    other.close()


def test_a_rebuild_reports_what_it_skipped(engine: SearchEngine, folder: Path) -> None:
    (folder / "train" / "red" / "broken.png").write_bytes(b"no picture")
    (folder / source_of("red", 0)).unlink()
    seen: dict[str, str] = {}
    manifest, counts = rebuild(engine, JobControl(skip=seen.update))
    assert (manifest.generation, manifest.count) == (2, 23)
    assert (counts.total, counts.embedded, counts.kept, counts.removed) == (23, 0, 23, 1)
    assert list(counts.skipped) == ["train/red/broken.png"]
    assert seen == counts.skipped == json.loads((engine.var / "skipped.json").read_text())


def test_pictures_known_to_be_unreadable_are_not_reported_again(store: SearchEngine) -> None:
    store.ingest.add([Upload(png(NEW), "k")])
    for path in store.var.glob("pictures/??/*"):
        path.unlink()
    seen: dict[str, str] = {}
    other = encoder_of(store, OTHER)
    _, counts = store.builder.rebuild(other, store.corpus, JobControl(skip=seen.update))
    assert list(seen) == list(counts.skipped) == ["key:k"]
    assert (counts.total, counts.embedded) == (24, 24)
    seen.clear()
    rebuild(store, JobControl(skip=seen.update))
    assert seen == {}


def test_a_rebuild_that_has_switched_models_is_not_cancelled_any_more(
    store: SearchEngine, folder: Path
) -> None:
    encoder = Wider(NEWEST)
    other = opened(folder, store.var, encoder)
    manifest, _ = rebuild(other, JobControl(cancelled=lambda: other.catalogue.model() == NEWEST))
    assert (manifest.model_digest, manifest.count) == (NEWEST, 24)
    other.close()


def test_a_rebuild_records_the_corpus(engine: SearchEngine, folder: Path) -> None:
    class Sample(FolderCorpus):
        notice = "rendered"

    assert engine.catalogue.get_meta("corpus") == str(folder)
    assert engine.catalogue.get_meta("corpus_is_sample") == "no"
    engine.builder.rebuild(engine.encoder, Sample(folder))
    assert engine.catalogue.get_meta("corpus_is_sample") == "yes"


def test_files_that_changed_under_the_same_name_are_embedded_again(
    engine: SearchEngine, encoder: MeanColour, folder: Path
) -> None:
    (folder / source_of("red", 0)).write_bytes(png(NEW))
    _, counts = rebuild(engine)
    assert (counts.embedded, counts.changed, counts.kept, counts.total) == (1, 1, 23, 24)
    assert engine.search(png(NEW), Page(1)).points[0].entry.source == source_of("red", 0)
    _, counts = rebuild(engine, reembed=True)
    assert (counts.embedded, counts.changed, counts.total) == (24, 0, 24)
    assert engine.search(png(NEW), Page(1)).points[0].entry.source == source_of("red", 0)


def test_a_compaction_includes_changes_and_ignores_the_corpus(
    engine: SearchEngine, encoder: MeanColour, folder: Path
) -> None:
    (folder / "train" / "red" / "unseen.png").write_bytes(png((250, 5, 5)))
    engine.ingest.add([Upload(png(NEW), "new")])
    engine.ingest.delete(1)
    engine.ingest.delete(2)
    embedded = encoder.encoded
    manifest = compact(engine)
    assert (manifest.generation, manifest.count) == (2, 23)
    assert encoder.encoded == embedded
    assert engine.pending() == 0


def test_a_compaction_deletes_unused_bytes(engine: SearchEngine) -> None:
    one, two = engine.ingest.add([Upload(png(NEW), "one"), Upload(png((9, 99, 9)), "two")])
    assert isinstance(one, int) and isinstance(two, int)
    engine.store.snapshots.create("with-both")
    engine.ingest.delete(one)
    engine.trash.purge(None)
    compact(engine)
    assert len(engine.blobs.names()) == 2  # the snapshot refers to it
    engine.store.snapshots.remove("with-both")
    compact(engine)
    (left,) = engine.blobs.names()
    assert engine.catalogue.get([two])[0].content_hash == left


def test_a_compaction_of_another_models_store_is_refused(store: SearchEngine) -> None:
    with pytest.raises(ModelChangedError, match=f"of the model {OLD}, expected {OTHER}"):
        store.builder.compact(Wider())


def test_a_cancelled_compaction_leaves_the_old_index(store: SearchEngine) -> None:
    store.ingest.delete(1)
    with pytest.raises(CancelledError, match="the old one stays in use"):
        store.builder.compact(store.encoder, JobControl(cancelled=lambda: True))
    assert store.manifest.generation == 1
    assert store.pending() == 1


def test_embedding_ahead_changes_nothing_and_the_switch_uses_it(store: SearchEngine) -> None:
    other = store.model(OTHER)
    assert isinstance(other, Wider)
    counts = store.builder.embed(other)
    assert (counts.total, counts.embedded, counts.kept) == (24, 24, 0)
    assert store.catalogue.model_digests() == {OLD: 24}
    assert store.search(png(colour("red", 1))).model == OLD
    assert store.builder.embed(other).embedded == 0  # resumes: nothing is missing
    manifest, counts = store.builder.switch(other)
    assert (manifest.model_digest, manifest.dimension, manifest.count) == (OTHER, 4, 24)
    assert (counts.embedded, other.encoded) == (0, 24)
    assert store.search(png(colour("red", 1))).model == OTHER


def test_the_kind_of_index_is_kept(engine: SearchEngine) -> None:
    assert engine.builder.kind() == "auto"
    assert compact(engine, "hnsw").kind == "hnsw"
    assert engine.builder.kind() == "hnsw"
    assert rebuild(engine)[0].kind == "hnsw"
    builder, encoder = engine.builder, engine.encoder
    assert builder.rebuild(encoder, engine.corpus, kind="ivf")[0].kind == "ivf"
    assert engine.builder.kind() == "ivf"
    assert compact(engine, "auto").kind == "exact"


def test_a_kind_that_cannot_be_built_is_not_kept(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    compact(engine, "hnsw")
    builder, encoder = engine.builder, engine.encoder
    for kind in ("nonsense", "", "IVF4,PQ2x24", "IVF8,Flat"):
        with pytest.raises(IndexInputError, match="kind is"):
            compact(engine, kind)
    with pytest.raises(IndexInputError, match="nonsense"):
        builder.rebuild(encoder, engine.corpus, kind="nonsense")
    # Only once everything is embedded, the number of pictures is known.
    with pytest.raises(IndexInputError, match="8 lists for 24 pictures"):
        builder.rebuild(encoder, engine.corpus, kind="IVF8,Flat")
    with pytest.raises(CancelledError):
        builder.compact(encoder, JobControl(cancelled=lambda: True), kind="ivf")
    monkeypatch.setattr("index.local.generations.publish", _fails)
    with pytest.raises(OSError, match="no space"):
        compact(engine, "ivf")
    assert builder.kind() == "hnsw"


def test_a_kept_kind_that_no_longer_suits_the_store(
    engine: SearchEngine, caplog: pytest.LogCaptureFixture
) -> None:
    assert compact(engine, "IVF6,Flat").parameters["factory"] == "IVF6,Flat"
    engine.catalogue.delete([entry.id for entry in engine.catalogue.page(-1, 4)])
    assert compact(engine).kind == "exact"
    assert "building the kind auto instead: kind is 'IVF6,Flat'; 6 lists for 20" in caplog.text
    # What version 0.3 accepted and kept without building it.
    engine.catalogue.set_meta("kind", "IVF4,PQ2x24")
    assert compact(engine).kind == "exact"


def _fails(*values: object) -> Manifest:
    raise OSError("no space left on device")
