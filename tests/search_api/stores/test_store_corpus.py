"""The corpus of a store: remembered, found again, and never replaced without being told to."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import pytest

from embed.corpus import ArrayCorpus, Corpus, CorpusError, FolderCorpus, TableCorpus, sample
from embed.folders.options import FolderOptions
from index.contract import IndexInputError
from search_api.service.engine import SearchEngine
from search_api.service.following.contents import same_pictures
from search_api.settings import StoreLocation
from search_api.stores import store_corpus
from search_api.stores.store_corpus import (
    CorpusMismatchError,
    MissingCorpus,
    corpus_of_store,
    record_of,
    remember,
    remembered,
    resolved,
)
from tests.search_api.conftest import MeanColour, colour, png, rebuild, source_of


def find(
    engine: SearchEngine,
    data: Path | None,
    *,
    options: FolderOptions = FolderOptions(),
    building: bool = False,
    replacing: bool = False,
) -> tuple[Corpus, list[str]]:
    """The corpus of the engine's store, and what was said."""
    said: list[str] = []
    corpus = corpus_of_store(
        data,
        StoreLocation(engine.var),
        partial(same_pictures, at_least=32),
        said.append,
        options=options,
        building=building,
        replacing=replacing,
    )
    return corpus, said


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A folder of other pictures under the same names."""
    root = tmp_path / "other"
    for label in ("red", "green", "blue"):
        for shade in range(8):
            path = root / source_of(label, shade)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png((7 * shade, 9, 30)))
    return root


def test_a_store_remembers_its_folder_and_its_options(engine: SearchEngine, folder: Path) -> None:
    record = remembered(engine.catalogue)
    assert record is not None
    assert (record.kind, record.place) == ("folder", folder)
    assert engine.catalogue.get_meta("corpus") == str(folder)

    engine.corpus = FolderCorpus(folder, options=FolderOptions.chosen(hidden=True, splits="no"))
    rebuild(engine)
    corpus, said = find(engine, None)
    assert isinstance(corpus, FolderCorpus)
    assert (corpus.root, corpus.options.hidden, corpus.options.splits) == (folder, True, "no")
    corpus, _ = find(engine, folder, options=FolderOptions.chosen(hidden=False))
    assert isinstance(corpus, FolderCorpus)
    assert (corpus.options.hidden, corpus.options.splits) == (False, "no")
    assert said == []


@pytest.mark.parametrize("way", ["link", "relative", "slash", "dots", "home"])
def test_paths_are_compared_resolved(
    engine: SearchEngine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    written = {
        "link": Path("link"),
        "relative": Path("pictures"),
        "slash": Path(f"{folder}/"),
        "dots": folder / ".." / "pictures" / ".",
        "home": Path("~/pictures"),
    }[way]
    never = partial(find, engine, written)
    monkeypatch.setattr(store_corpus, "_has_moved", lambda *_: pytest.fail("it was compared"))
    corpus, said = never()
    assert corpus.name == str(folder)
    assert said == []


def test_a_table_and_its_folder_are_different_corpora(engine: SearchEngine, folder: Path) -> None:
    table = folder / "labels.csv"
    table.write_text(f"file,label\n{source_of('red', 0)},x\n")
    with pytest.raises(CorpusMismatchError):
        find(engine, table)
    record = record_of(TableCorpus(table))
    assert (record.kind, record.place) == ("table", table)
    assert resolved(folder / "." / "labels.csv") == table


def test_another_corpus_is_refused_unless_it_is_to_replace_the_stores(
    engine: SearchEngine, folder: Path, other: Path
) -> None:
    for building in (False, True):
        with pytest.raises(CorpusMismatchError) as error:
            find(engine, other, building=building)
        assert str(folder) in str(error.value)
        assert str(other) in str(error.value)
        assert "--replace-corpus" in str(error.value)
    corpus, _ = find(engine, other, building=True, replacing=True)
    with pytest.raises(CorpusMismatchError):
        engine.builder.rebuild(engine.encoder, corpus)
    assert engine.catalogue.count() == 24
    assert find(engine, None)[0].name == str(folder)
    engine.builder.rebuild(engine.encoder, corpus, replace_corpus=True)
    assert find(engine, None)[0].name == str(other)


def test_a_moved_folder_is_recognised_and_keeps_its_ids(
    engine: SearchEngine, folder: Path, encoder: MeanColour, tmp_path: Path
) -> None:
    engine.store.snapshots.create("before")
    ids = engine.catalogue.all_sources()
    new = tmp_path / "elsewhere" / "photos"
    new.parent.mkdir()
    folder.rename(new)
    corpus, said = find(engine, new)
    assert corpus.name == str(new)
    assert said == [f"moved: the corpus of this store was {folder} and is now {new}"]
    # From now on it need not be named.
    corpus, said = find(engine, None)
    assert (corpus.name, said) == (str(new), [])
    encoder.encoded = 0
    _, counts = engine.builder.rebuild(engine.encoder, corpus)
    assert (counts.embedded, counts.kept, counts.removed) == (0, 24, 0)
    assert encoder.encoded == 0
    assert engine.catalogue.all_sources() == ids
    # A snapshot from before is still one of this corpus.
    engine.catalogue.delete([1, 2])
    assert engine.store.snapshots.restore("before")[1:] == (2, 0)


def test_a_server_follows_a_corpus_that_another_process_found(
    engine: SearchEngine, folder: Path, tmp_path: Path
) -> None:
    (entry,) = engine.catalogue.get([1])
    folder.rename(tmp_path / "moved")
    with pytest.raises(CorpusError):
        engine.picture(entry)
    find(engine, tmp_path / "moved")
    assert engine.picture(entry).shape == (32, 32, 3)
    assert engine.corpus.name == str(tmp_path / "moved")


def test_a_folder_that_was_moved_with_its_store_is_found(
    engine: SearchEngine, folder: Path, tmp_path: Path
) -> None:
    engine.close()
    (tmp_path / "new").mkdir()
    for name in ("pictures", "var"):
        (tmp_path / name).rename(tmp_path / "new" / name)
    again = SearchEngine(MeanColour(), FolderCorpus(tmp_path / "new"), tmp_path / "new" / "var")
    corpus, said = find(again, None)
    assert corpus.name == str(tmp_path / "new" / "pictures")
    assert said[0].startswith("moved: ")
    again.close()


def test_what_is_next_to_a_moved_store_must_be_the_same_pictures(
    engine: SearchEngine, folder: Path, other: Path, tmp_path: Path
) -> None:
    folder.rename(tmp_path / "away")
    record = json.loads(engine.catalogue.get_meta("corpus_record") or "")
    record["nearby"] = "../other"
    engine.catalogue.set_meta("corpus_record", json.dumps(record))
    corpus, said = find(engine, None)
    assert isinstance(corpus, MissingCorpus)
    assert said == []


def test_a_folder_that_is_away_is_missing_until_it_is_back(
    engine: SearchEngine, folder: Path, tmp_path: Path
) -> None:
    folder.rename(tmp_path / "away")
    for data in (None, folder):
        corpus, said = find(engine, data)
        assert isinstance(corpus, MissingCorpus)
        assert (corpus.name, said) == (str(folder), [])
    with pytest.raises(CorpusError, match=r"test/red/6.png cannot be read: the folder of the"):
        corpus.read(source_of("red", 6))
    with pytest.raises(CorpusError) as error:
        engine.builder.rebuild(engine.encoder, corpus)
    assert str(folder) in str(error.value)
    assert "--data" in str(error.value)
    assert engine.catalogue.count() == 24
    (tmp_path / "away").rename(folder)
    assert len(corpus.items) == 24
    assert corpus.read(source_of("red", 6)).shape == (32, 32, 3)
    assert corpus.content(source_of("red", 0)) == png(colour("red", 0))


def test_without_a_store_nothing_is_looked_for_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_corpus, "find_corpus", lambda *_: pytest.fail("it looked"))
    location = StoreLocation(tmp_path / "none")
    with pytest.raises(IndexInputError, match="lookalike index build --data"):
        corpus_of_store(None, location, lambda *_: 1.0, print)
    assert list(tmp_path.iterdir()) == []
    SearchEngine(MeanColour(), sample(), tmp_path / "none").close()
    with pytest.raises(IndexInputError, match="nothing has been built"):
        corpus_of_store(None, location, lambda *_: 1.0, print)


def test_a_new_store_looks_for_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sample()
    monkeypatch.setattr(store_corpus, "find_corpus", lambda *_: found)
    location = StoreLocation(tmp_path / "none")
    assert corpus_of_store(None, location, lambda *_: 1.0, print, building=True) is found


def test_stores_of_earlier_versions_know_a_name_alone(
    engine: SearchEngine, folder: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.catalogue.set_meta("corpus", "pictures")
    assert remembered(engine.catalogue) == store_corpus.CorpusRecord(
        "folder", "pictures", Path("pictures")
    )
    monkeypatch.chdir(tmp_path)
    corpus, said = find(engine, None)
    assert (corpus.name, said) == (str(folder), [])
    # Elsewhere it means another folder, or none.
    (tmp_path / "cwd").mkdir()
    other.rename(tmp_path / "cwd" / "pictures")
    monkeypatch.chdir(tmp_path / "cwd")
    corpus, _ = find(engine, None)
    with pytest.raises(CorpusError, match="an earlier version kept its path as 'pictures'"):
        corpus.scan()
    corpus, said = find(engine, folder)
    assert corpus.name == str(folder)
    assert said == [f"moved: the corpus of this store was pictures and is now {folder}"]
    assert find(engine, None)[0].name == str(folder)


def test_what_another_version_wrote_counts(engine: SearchEngine, other: Path) -> None:
    """An earlier version that builds with another corpus leaves our record as it was."""
    engine.catalogue.set_meta("corpus", str(other))
    corpus, _ = find(engine, None)
    assert corpus.name == str(other)


@pytest.mark.parametrize(("name", "sampled"), [("CIFAR-10", "no"), ("rendered sample", "yes")])
def test_corpora_without_a_folder_are_known_by_name(
    engine: SearchEngine, name: str, sampled: str
) -> None:
    engine.catalogue.set_meta("corpus", name)
    engine.catalogue.set_meta("corpus_is_sample", sampled)
    assert find(engine, None)[0].name == name


def test_the_rendered_sample_may_be_replaced_when_building(
    engine: SearchEngine, folder: Path
) -> None:
    remember(engine.catalogue, sample(), engine.var)
    corpus, _ = find(engine, folder, building=True)
    assert corpus.name == str(folder)
    engine.builder.rebuild(engine.encoder, corpus)
    assert find(engine, None)[0].name == str(folder)
    remember(engine.catalogue, sample(), engine.var)
    with pytest.raises(CorpusMismatchError, match="rendered sample"):
        find(engine, folder)


def test_the_rendered_sample_stays_unless_another_corpus_is_named(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CIFAR-10 may have turned up since."""
    monkeypatch.setattr(store_corpus, "find_corpus", lambda *_: pytest.fail("it looked"))
    remember(engine.catalogue, sample(), engine.var)
    corpus, said = find(engine, None, building=True)
    assert (corpus.name, said) == ("rendered sample", [])


def test_names_mean_nothing_when_a_corpus_is_replaced(
    engine: SearchEngine, folder: Path, other: Path
) -> None:
    """Labels by hand, deletions and embeddings belong to pictures, not to those of their name."""
    kept, labelled, deleted = (source_of("red", shade) for shade in (0, 1, 2))
    ids = engine.catalogue.all_sources()
    engine.catalogue.update([ids[kept], ids[labelled]], label="mine", by_hand=True)
    engine.catalogue.delete([ids[deleted]], tombstone=True)
    for source in (kept, labelled, deleted):
        stamp = (folder / source).stat()
        if source == kept:
            (other / source).write_bytes((folder / source).read_bytes())
        data = (other / source).read_bytes()
        # As large and as old as the other corpus's file of this name.
        (other / source).write_bytes(data + bytes(max(0, stamp.st_size - len(data))))
        os.utime(other / source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    corpus, _ = find(engine, other, building=True, replacing=True)
    _, counts = engine.builder.rebuild(engine.encoder, corpus, replace_corpus=True)
    assert (counts.total, counts.embedded, counts.kept, counts.removed) == (24, 23, 1, 22)
    found = engine.catalogue.of_sources([kept, labelled, deleted])
    assert [found[source].label for source in (kept, labelled, deleted)] == ["mine", "red", "red"]
    assert found[kept].id == ids[kept]
    assert found[labelled].id not in ids.values()
    points = engine.search((other / labelled).read_bytes()).points
    assert labelled in {point.entry.source for point in points if point.score > 0.999999}


def test_pictures_without_files_are_compared_when_they_replace_others(
    encoder: MeanColour, tmp_path: Path
) -> None:
    """The sample's train/00000 is not CIFAR-10's."""
    first = sample(5)
    splits = {
        split: (pictures.copy(), labels) for split, (pictures, labels) in first.splits.items()
    }
    splits["test"][0][1:] = 255 - splits["test"][0][1:]
    engine = SearchEngine(encoder, first, tmp_path / "arrays")
    rebuild(engine)
    ids = engine.catalogue.all_sources()
    second = ArrayCorpus("another", first.classes, lambda: splits)
    _, counts = engine.builder.rebuild(encoder, second, replace_corpus=True)
    assert (counts.embedded, counts.kept, counts.removed) == (9, 41, 9)
    now = engine.catalogue.all_sources()
    assert [s for s in ids if now[s] != ids[s]] == [f"test/{n:05d}" for n in range(1, 10)]


def test_a_first_build_that_was_interrupted_remembers_its_corpus(
    folder: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = SearchEngine(MeanColour(), FolderCorpus(folder), tmp_path / "fresh")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MeanColour, "encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rebuild(engine)
    assert find(engine, None, building=True)[0].name == str(folder)
    # Nothing of it is stored yet, so nothing is lost by another choice.
    corpus, _ = find(engine, other, building=True)
    engine.builder.rebuild(engine.encoder, corpus)
    assert find(engine, None)[0].name == str(other)
    engine.close()
