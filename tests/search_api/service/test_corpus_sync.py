"""Following a corpus: new, removed, moved and unreadable pictures, labels, and tags."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embed.corpus import ArrayCorpus, CorpusError, FolderCorpus, Scan, open_corpus
from embed.folders.kinds import Skipped
from embed.folders.options import FolderOptions
from embed.preprocess import Preprocess
from index.contract import BlobError, CancelledError, JobControl
from index.filters import parse_filter
from index.records import PayloadBounds, Record
from search_api.service import corpus_sync
from search_api.service.corpus_sync import batches, embed_missing, sync_corpus
from search_api.service.engine import SearchEngine
from search_api.service.following.comparison import RemovalError
from search_api.service.ingest import Upload
from search_api.service.page import Page
from tests.embed.decoding.test_facts import PLACE, photograph
from tests.search_api.conftest import MeanColour, colour, plain, png, rebuild, source_of, unit
from tests.search_api.helpers import NEW, OTHER, Wider

PICTURES = np.stack([np.full((4, 4, 3), 40 * n, np.uint8) for n in range(4)])
XB = np.eye(3, dtype=np.float32)[:1]
OLD = (10, 20, 200)
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


def test_a_new_store_has_the_tags(tmp_path: Path) -> None:
    engine = SearchEngine(MeanColour(), corpus(True), tmp_path)
    rebuild(engine)
    assert payloads(engine) == TAGGED
    (found,) = engine.catalogue.ids(FIRE)
    assert engine.catalogue.get([found])[0].source == "train/00001"
    engine.close()


def test_an_older_store_gets_the_tags_once_without_embedding(tmp_path: Path) -> None:
    engine = SearchEngine(MeanColour(), corpus(False), tmp_path)
    rebuild(engine)
    ids = {entry.source: entry.id for entry in engine.catalogue.page(-1, 10)}
    engine.ingest.update(ids["train/00002"], payload={"tags": ["mine"]})
    engine.ingest.update(ids["train/00003"], label="lynx", payload={"price": 9.5})
    engine.close()

    encoder = MeanColour()
    engine = SearchEngine(encoder, corpus(True), tmp_path)
    rebuild(engine)
    assert encoder.encoded == 0
    expected = {
        **TAGGED,
        "train/00002": {"tags": ["mine"]},
        "train/00003": {"price": 9.5, "tags": ["tabby"]},
    }
    assert payloads(engine) == expected
    assert engine.catalogue.get([ids["train/00003"]])[0].label == "lynx"
    # Tags removed by hand are not added again.
    engine.ingest.update(ids["train/00001"], payload={}, replace_payload=True)
    rebuild(engine)
    assert payloads(engine) == {**expected, "train/00001": {}}
    engine.close()


def test_a_moved_picture_changes_its_label_without_embedding(
    engine: SearchEngine, encoder: MeanColour, folder: Path
) -> None:
    class Relabelled(FolderCorpus):
        def scan(self) -> Scan:
            found = super().scan()
            items = (
                replace(item, split="val", label="crimson") if item.label == "red" else item
                for item in found.items
            )
            return replace(found, items=tuple(items))

    embedded = encoder.encoded
    engine.corpus = Relabelled(folder)
    rebuild(engine)
    assert encoder.encoded == embedded
    assert engine.catalogue.label_counts() == {"blue": 8, "crimson": 8, "green": 8}
    assert engine.catalogue.split_counts() == {"test": 4, "train": 12, "val": 8}


def test_new_and_removed_pictures(engine: SearchEngine, encoder: MeanColour, folder: Path) -> None:
    (folder / "train" / "red" / "new.png").write_bytes(png(NEW))
    (folder / source_of("blue", 0)).unlink()
    (folder / source_of("blue", 1)).unlink()
    progress: list[tuple[str, int, int]] = []
    counts = sync_corpus(
        encoder,
        FolderCorpus(folder),
        engine.catalogue,
        JobControl(lambda *values: progress.append(values)),
    )
    assert (counts.total, counts.embedded, counts.kept, counts.removed) == (23, 1, 22, 2)
    assert progress == [("embedding", 0, 1), ("embedding", 1, 1)]
    (entry,) = [e for e in engine.catalogue.page(-1, 100) if e.source == "train/red/new.png"]
    assert (entry.label, entry.split, entry.origin) == ("red", "train", "corpus")
    ids, xb = engine.catalogue.embeddings(encoder.digest)
    np.testing.assert_allclose(xb[ids.tolist().index(entry.id)], unit(NEW), atol=1e-6)


def test_changes_by_hand_are_kept(engine: SearchEngine, folder: Path) -> None:
    ids = engine.catalogue.all_sources()
    engine.ingest.delete(ids[source_of("red", 0)])
    engine.ingest.update(ids[source_of("red", 1)], label="mine")
    engine.ingest.add([Upload(png(NEW), "extra")])
    counts = sync_corpus(engine.encoder, FolderCorpus(folder), engine.catalogue, JobControl())
    assert (counts.total, counts.embedded, counts.removed) == (23, 0, 0)
    left = {entry.source: entry.label for entry in engine.catalogue.page(-1, 100)}
    assert source_of("red", 0) not in left
    assert left[source_of("red", 1)] == "mine"
    assert left["key:extra"] is None


def test_a_corpus_picture_with_the_name_of_an_added_one_is_skipped(
    engine: SearchEngine, folder: Path
) -> None:
    (id_,) = engine.ingest.add([Upload(png(NEW), "red/a.png", label="mine")])
    assert isinstance(id_, int)
    seen: dict[str, str] = {}
    (folder / "key:red").mkdir()
    (folder / "key:red" / "a.png").write_bytes(png((1, 2, 3)))
    corpus = FolderCorpus(folder, options=FolderOptions(splits="yes"))
    counts = sync_corpus(engine.encoder, corpus, engine.catalogue, JobControl(skip=seen.update))
    assert seen == counts.skipped == {"key:red/a.png": "an added picture has this name"}
    assert counts.embedded == 0
    assert engine.catalogue.get([id_])[0].label == "mine"


def test_what_did_not_change_is_not_written(engine: SearchEngine, encoder: MeanColour) -> None:
    """Every server on the store would have to replay the change."""
    before = engine.served.current().sequence
    counts = sync_corpus(encoder, engine.corpus, engine.catalogue, JobControl(), reembed=True)
    assert counts.embedded == 24
    assert engine.served.current().sequence == before


def test_cancelling_keeps_finished_batches(
    engine: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_sync, "BATCH", 10)
    encoder = MeanColour()
    engine.catalogue.delete(engine.catalogue.ids())
    with pytest.raises(CancelledError, match="stopped after 20 of 24 pictures"):
        sync_corpus(
            encoder,
            FolderCorpus(folder),
            engine.catalogue,
            JobControl(cancelled=lambda: encoder.encoded >= 20),
        )
    assert engine.catalogue.count() == 20


def test_the_first_pictures_of_a_build_can_be_searched_soon(
    engine: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_sync, "_FIRST", 2)
    monkeypatch.setattr(corpus_sync, "BATCH", 10)
    engine.catalogue.delete(engine.catalogue.ids())
    done: list[int] = []
    control = JobControl(progress=lambda stage, at, of: done.append(at))
    sync_corpus(MeanColour(), FolderCorpus(folder), engine.catalogue, control)
    assert done == [0, 2, 6, 14, 24]


def test_missing_embeddings_are_staged_until_the_model_is_in_use(engine: SearchEngine) -> None:
    other = Wider()
    unreadable = engine.catalogue.all_sources()[source_of("red", 5)]
    reasons: dict[str, str] = {}

    def read(entry, at_least: Preprocess):
        assert at_least == other.preprocess
        if entry.id == unreadable:
            raise CorpusError("it is gone")
        return engine.picture(entry, at_least)

    counts = embed_missing(other, engine.catalogue, read, JobControl(skip=reasons.update))
    assert (counts.total, counts.embedded, counts.kept) == (24, 23, 0)
    assert reasons == counts.skipped == {source_of("red", 5): "it is gone"}
    assert engine.catalogue.staging.counts() == {OTHER: 23}
    assert OTHER not in engine.catalogue.model_digests()
    engine.catalogue.staging.promote(OTHER)
    counts = embed_missing(other, engine.catalogue, engine.picture, JobControl())
    assert (counts.embedded, counts.kept) == (1, 23)
    assert engine.catalogue.model_digests() == {OTHER: 24}


def test_missing_bytes_of_an_added_picture_are_skipped(engine: SearchEngine) -> None:
    def read(entry, at_least: Preprocess):
        raise BlobError("missing")

    assert set(embed_missing(Wider(), engine.catalogue, read, JobControl()).skipped) == set(
        engine.catalogue.all_sources()
    )


def before(monkeypatch: pytest.MonkeyPatch, target: Any, name: str, act: Callable[[], Any]) -> None:
    """Let others ``act`` once, just before ``target`` does ``name``."""
    method = getattr(target, name)

    def first_act(*args: Any, **more: Any) -> Any:
        monkeypatch.setattr(target, name, method)
        act()
        return method(*args, **more)

    monkeypatch.setattr(target, name, first_act)


@pytest.mark.parametrize("when", ["known_sources", "upsert"])
def test_a_deletion_during_the_sync_is_not_undone(
    engine: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """After the tombstones were read, or while the batch was embedded."""
    catalogue, source = engine.catalogue, source_of("red", 0)
    id_ = catalogue.all_sources()[source]
    if when == "upsert":  # as after a rebuild that saw the picture for the first time
        catalogue.delete([id_])
        (new,) = [item for item in FolderCorpus(folder).items if item.source == source]

        def act() -> None:
            ids = catalogue.upsert([Record(new.source, new.split)], XB, engine.encoder.digest)
            catalogue.delete(ids, tombstone=True)
    else:

        def act() -> None:
            engine.ingest.delete(id_)

    before(monkeypatch, catalogue, when, act)
    sync_corpus(engine.encoder, FolderCorpus(folder), catalogue, JobControl())
    assert source not in catalogue.all_sources()
    assert catalogue.tombstones() == {source}


def test_what_is_restored_during_the_sync_stays_as_it_was(
    engine: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, source = engine.catalogue, source_of("red", 0)
    id_ = catalogue.all_sources()[source]
    engine.ingest.update(id_, label="by hand", payload={"mine": 1})
    engine.store.snapshots.create("edited")
    (entry,) = catalogue.get([id_])
    catalogue.delete([id_])
    before(monkeypatch, catalogue, "upsert", lambda: engine.store.snapshots.restore("edited"))
    sync_corpus(engine.encoder, FolderCorpus(folder), catalogue, JobControl())
    assert catalogue.get([id_]) == [entry]


def test_a_label_set_by_hand_during_the_sync_is_kept(
    engine: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = engine.catalogue
    ids = [catalogue.all_sources()[source_of("red", n)] for n in (0, 1, 2)]
    catalogue.update(ids, label="outdated")

    def others() -> None:
        engine.ingest.update(ids[0], label="by hand")
        engine.ingest.delete(ids[1])

    before(monkeypatch, catalogue, "update", others)
    counts = sync_corpus(engine.encoder, FolderCorpus(folder), catalogue, JobControl())
    assert counts.embedded == 0
    assert [entry.label for entry in catalogue.find(ids)] == ["by hand", "red"]


@pytest.mark.parametrize("in_use", [False, True])
def test_a_picture_replaced_while_it_is_embedded_keeps_the_new_one(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch, in_use: bool
) -> None:
    catalogue, other = engine.catalogue, Wider()
    (id_,) = engine.ingest.add([Upload(png(OLD), "k")])
    assert isinstance(id_, int)
    if in_use:  # the store has switched, and only this picture is missing
        missing = [int(i) for i in catalogue.ids() if i != id_]
        catalogue.staging.add(missing, np.eye(4, dtype=np.float32)[[0] * len(missing)], OTHER)
        catalogue.staging.promote(OTHER)

    def replaced() -> None:
        encoder = other if in_use else engine.encoder
        ingest = replace(engine.ingest, encoder=lambda: encoder)
        ingest.add([Upload(png(NEW), "k")], replace=True)

    target, name = (catalogue, "embed") if in_use else (catalogue.staging, "add")
    before(monkeypatch, target, name, replaced)
    embed_missing(other, catalogue, engine.picture, JobControl())
    if not in_use:
        catalogue.staging.promote(OTHER)
    ids, xb = catalogue.embeddings(OTHER)
    expected = other.encode([np.full((4, 4, 3), NEW, np.uint8)]).embeddings[0]
    np.testing.assert_allclose(xb[ids.tolist().index(id_)], expected, atol=1e-6)
    assert catalogue.get([id_])[0].content_hash == f"sha256:{hashlib.sha256(png(NEW)).hexdigest()}"


def test_batches_keep_the_order_and_read_little_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_sync, "BATCH", 4)
    monkeypatch.setattr(corpus_sync, "_CHUNK", 3)
    drawn: list[int] = []

    def read(number: int):
        return f"reason {number}" if number % 5 == 0 else plain((number, 0, 0), (1, 1))

    def numbers():
        for number in range(18):
            drawn.append(number)
            yield number

    found = batches(numbers(), read)
    first = next(found)
    assert [number for number, _ in first] == [0, 1, 2, 3]
    assert len(drawn) == 8  # this batch and the next
    rest = [pair for batch in found for pair in batch]
    assert [number for number, _ in first + rest] == list(range(18))
    for number, picture in first + rest:
        if number % 5 == 0:
            assert picture == f"reason {number}"
        else:
            assert not isinstance(picture, str) and picture[0, 0, 0] == number


def test_a_table_owns_the_payload_that_it_names(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, value in (("a.png", 10), ("b.png", 20)):
        (folder / name).write_bytes(png((value, value, value)))
    table = folder / "labels.csv"
    table.write_text("file;label;tags;price\na.png;cup;red, new;1.5\nb.png;cup;;2\n")
    corpus = open_corpus(table, options=FolderOptions(table_payload=True))
    engine = SearchEngine(MeanColour(), corpus, tmp_path / "var")
    rebuild(engine)

    def stored() -> dict[str, dict[str, Any]]:
        found = payloads(engine)
        assert [found[name].pop("file")["name"] for name in sorted(found)] == ["a.png", "b.png"]
        return found

    assert stored() == {
        "a.png": {"tags": ["red", "new"], "price": 1.5},
        "b.png": {"tags": [], "price": 2.0},
    }
    ids = engine.catalogue.all_sources()
    engine.ingest.update(ids["a.png"], payload={"price": 9, "mine": 1})
    table.write_text("file,label,price,tags\na.png,cup,3,old\nb.png,cup,,\n")
    rebuild(engine)
    assert stored() == {
        "a.png": {"tags": ["old"], "price": 3, "mine": 1},
        "b.png": {"tags": [], "price": None},
    }
    sequence = engine.served.current().sequence
    rebuild(engine)
    assert engine.served.current().sequence == sequence  # nothing was written
    table.write_text(f"file,label\na.png,mug\nb.png,{'x' * 2000}\n")
    _, counts = rebuild(engine)
    assert [entry.label for entry in engine.catalogue.page(-1, 9)] == ["mug", "cup"]
    assert "2,000 characters; expected at most 1,000" in counts.skipped["b.png"]
    engine.close()


@pytest.mark.parametrize("place", [False, True])
def test_photographs_say_when_and_with_what_they_were_taken(tmp_path: Path, place: bool) -> None:
    data = photograph(
        base={271: "Canon", 272: "EOS", 274: 6}, exif={36867: "2024:05:01 10:20:30"}, gps=PLACE
    )
    folder = tmp_path / "pictures"
    (folder / "cats").mkdir(parents=True)
    (folder / "cats" / "IMG_1.JPG").write_bytes(data)
    corpus = FolderCorpus(folder, options=FolderOptions(gps_place=place))
    engine = SearchEngine(MeanColour(), corpus, tmp_path / "var")
    rebuild(engine)
    (added,) = engine.ingest.add([Upload(data, filename="IMG_1.JPG")])
    exif = {"taken": "2024-05-01T10:20:30", "camera": "Canon EOS", "orientation": 6, "gps": True}
    if place:
        exif["place"] = {"lat": 48.1375, "lon": 11.575}
    file = {"name": "IMG_1.JPG", "bytes": len(data), "format": "JPEG", "width": 30, "height": 40}
    assert set(payloads(engine)) == {"cats/IMG_1.JPG", engine.catalogue.get([added])[0].source}
    assert all(found == {"file": file, "exif": exif} for found in payloads(engine).values())
    camera = parse_filter({"must": [{"key": "exif.camera", "match": {"value": "Canon EOS"}}]})
    assert len(engine.catalogue.ids(camera)) == 2
    engine.close()


def test_one_that_cannot_be_stored_is_left_out_alone(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for label in ("x" * 200, "short"):
        (folder / label).mkdir(parents=True)
        (folder / label / "a.png").write_bytes(png(NEW))
    engine = SearchEngine(MeanColour(), FolderCorpus(folder), tmp_path / "var")
    engine.catalogue.bounds = PayloadBounds(chars=100)
    _, counts = rebuild(engine)
    assert list(payloads(engine)) == ["short/a.png"]
    assert "200 characters; expected at most 100" in str(counts.skipped)
    engine.close()


def test_a_replaced_file_is_embedded_again_and_keeps_what_was_done_by_hand(
    engine: SearchEngine, encoder: MeanColour, folder: Path
) -> None:
    catalogue, source = engine.catalogue, source_of("red", 0)
    id_ = catalogue.all_sources()[source]
    engine.ingest.update(id_, label="mine", payload={"price": 9.5})
    (folder / source).write_bytes(png(NEW))
    embedded = encoder.encoded
    counts = sync_corpus(encoder, engine.corpus, catalogue, JobControl())
    assert (counts.changed, counts.embedded, counts.kept, counts.total) == (1, 1, 23, 24)
    assert encoder.encoded == embedded + 1
    (entry,) = catalogue.get([id_])
    assert (entry.source, entry.label, entry.payload["price"]) == (source, "mine", 9.5)
    ids, xb = catalogue.embeddings(encoder.digest)
    np.testing.assert_allclose(xb[ids.tolist().index(id_)], unit(NEW), atol=1e-6)
    counts = sync_corpus(encoder, engine.corpus, catalogue, JobControl())
    assert (counts.changed, counts.embedded, counts.kept) == (0, 0, 24)


def test_a_file_with_another_time_alone_is_not_written(
    engine: SearchEngine, encoder: MeanColour, folder: Path
) -> None:
    before_ = engine.served.current().sequence
    os.utime(folder / source_of("red", 0), (1e9, 1e9))
    embedded = encoder.encoded
    counts = sync_corpus(encoder, engine.corpus, engine.catalogue, JobControl())
    assert (counts.changed, counts.embedded, counts.kept) == (0, 0, 24)
    assert encoder.encoded == embedded
    assert engine.served.current().sequence == before_
    id_ = engine.catalogue.all_sources()[source_of("red", 0)]
    assert engine.catalogue.stamps()[id_].modified_ns == 10**18


def test_a_store_of_an_earlier_version_is_not_read_again(
    engine: SearchEngine, encoder: MeanColour, folder: Path
) -> None:
    class Unread(FolderCorpus):
        def content(self, source: str) -> bytes:
            assert source == source_of("red", 0)
            return super().content(source)

    catalogue, embedded = engine.catalogue, encoder.encoded
    for path in folder.rglob("*.png"):
        os.utime(path, (1e9, 1e9))
    with catalogue._database.write() as connection:
        connection.execute("DROP TABLE stamps")
        connection.execute("DELETE FROM meta WHERE key = 'corpus_stamps'")
    (folder / source_of("red", 0)).write_bytes(png(NEW))
    os.utime(folder / source_of("red", 0), (2e9, 2e9))  # after the index was built
    engine.corpus = Unread(folder)
    _, counts = rebuild(engine)
    assert (counts.changed, counts.embedded, encoder.encoded) == (1, 1, embedded + 1)
    assert len(catalogue.stamps()) == 24
    (folder / source_of("red", 0)).write_bytes(png(OLD))
    assert rebuild(engine)[1].changed == 1


def test_a_renamed_folder_keeps_ids_embeddings_and_labels_set_by_hand(
    engine: SearchEngine, encoder: MeanColour, folder: Path
) -> None:
    catalogue = engine.catalogue
    ids = catalogue.all_sources()
    engine.ingest.update(ids[source_of("red", 1)], label="mine")
    engine.ingest.delete(ids[source_of("red", 2)])
    (folder / "train" / "red" / "2.png").unlink()
    _, before_ = catalogue.embeddings(encoder.digest)
    (folder / "train" / "red").rename(folder / "train" / "crimson")
    embedded = encoder.encoded
    counts = sync_corpus(encoder, engine.corpus, catalogue, JobControl())
    assert (counts.moved, counts.embedded, counts.removed, counts.kept) == (5, 0, 0, 18)
    assert (counts.total, encoder.encoded) == (23, embedded)
    for shade in (0, 1, 3, 4, 5):
        (entry,) = catalogue.get([ids[source_of("red", shade)]])
        assert entry.source == f"train/crimson/{shade}.png"
        assert entry.label == ("mine" if shade == 1 else "crimson")
    np.testing.assert_array_equal(catalogue.embeddings(encoder.digest)[1], before_)
    (point,) = engine.search(png(colour("red", 0)), Page(1)).points
    assert (point.entry.source, point.entry.id) == (
        "train/crimson/0.png",
        ids[source_of("red", 0)],
    )
    counts = sync_corpus(encoder, engine.corpus, catalogue, JobControl())
    assert (counts.moved, counts.kept) == (0, 23)


def test_a_picture_moved_over_another_replaces_it(
    engine: SearchEngine, encoder: MeanColour, folder: Path
) -> None:
    ids = engine.catalogue.all_sources()
    (folder / source_of("red", 0)).replace(folder / source_of("red", 1))
    counts = sync_corpus(encoder, engine.corpus, engine.catalogue, JobControl())
    assert (counts.moved, counts.removed, counts.embedded, counts.total) == (1, 1, 0, 23)
    after = engine.catalogue.all_sources()
    assert after[source_of("red", 1)] == ids[source_of("red", 0)]
    assert ids[source_of("red", 1)] not in after.values()


def test_what_cannot_be_looked_at_stays(
    engine: SearchEngine, encoder: MeanColour, folder: Path
) -> None:
    """Only what was looked at and is not there is removed."""

    class Unreachable(FolderCorpus):
        def scan(self) -> Scan:
            found = super().scan()
            items = tuple(i for i in found.items if not i.source.startswith("train/red/"))
            why = {"train/red": Skipped("unreachable", "cannot be read: Permission denied")}
            return replace(found, items=items, unreachable=("train/red",), skipped=why)

    (folder / source_of("blue", 0)).unlink()
    corpus, seen = Unreachable(folder), dict[str, str]()
    counts = sync_corpus(encoder, corpus, engine.catalogue, JobControl(skip=seen.update))
    assert (counts.total, counts.kept, counts.removed, counts.unreachable) == (23, 23, 1, 6)
    assert seen == counts.skipped == {"train/red": "cannot be read: Permission denied"}
    assert counts.kinds == {"unreachable": 1}
    assert source_of("red", 0) in engine.catalogue.all_sources()


@pytest.mark.parametrize("error", [CorpusError("cannot be read: Input/output error"), None])
@pytest.mark.parametrize("reembed", [False, True])
def test_a_stored_picture_whose_file_is_damaged_or_unreadable_now_stays(
    engine: SearchEngine, folder: Path, error: CorpusError | None, reembed: bool
) -> None:
    source = source_of("red", 0)

    class Failing(FolderCorpus):
        def content(self, name: str) -> bytes:
            if name == source and error is not None:
                raise error
            return super().content(name)

    id_ = engine.catalogue.all_sources()[source]
    (entry,) = engine.catalogue.get([id_])
    (folder / source).write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    corpus = Failing(folder)
    counts = sync_corpus(engine.encoder, corpus, engine.catalogue, JobControl(), reembed=reembed)
    assert (counts.total, counts.removed, counts.unreachable) == (24, 0, 1)
    assert list(counts.skipped) == [source]
    assert engine.catalogue.get([id_]) == [entry]
    # It is noticed again each time, and read once it can be.
    counts = sync_corpus(engine.encoder, corpus, engine.catalogue, JobControl())
    assert (counts.unreachable, list(counts.skipped)) == (1, [source])
    (folder / source).write_bytes(png(NEW))
    counts = sync_corpus(engine.encoder, FolderCorpus(folder), engine.catalogue, JobControl())
    assert (counts.changed, counts.unreachable, counts.total) == (1, 0, 24)


def test_too_many_removals_stop_before_anything_is_done(
    engine: SearchEngine, encoder: MeanColour, folder: Path
) -> None:
    for shade in range(3):
        (folder / source_of("red", shade)).unlink()
    (folder / "train" / "red" / "new.png").write_bytes(png(NEW))
    embedded, sources = encoder.encoded, engine.catalogue.all_sources()
    with pytest.raises(RemovalError, match="would remove 3 of the 24 pictures"):
        sync_corpus(encoder, engine.corpus, engine.catalogue, JobControl())
    assert (encoder.encoded, engine.catalogue.all_sources()) == (embedded, sources)
    counts = sync_corpus(encoder, engine.corpus, engine.catalogue, JobControl(), allow_removal=True)
    assert (counts.removed, counts.embedded, counts.total) == (3, 1, 22)


def test_moved_pictures_are_not_removed(engine: SearchEngine, folder: Path) -> None:
    (folder / "train").rename(folder / "val")
    counts = sync_corpus(engine.encoder, engine.corpus, engine.catalogue, JobControl())
    assert (counts.moved, counts.removed, counts.embedded) == (18, 0, 0)


def test_an_empty_folder_removes_nothing(engine: SearchEngine, folder: Path) -> None:
    """A drive that is not mounted leaves an empty folder."""
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(CorpusError, match=r"pictures of it that are stored \(24\) stay"):
        sync_corpus(engine.encoder, engine.corpus, engine.catalogue, JobControl())
    assert engine.catalogue.count() == 24


def test_a_part_of_the_corpus_is_followed_alone(
    engine: SearchEngine, encoder: MeanColour, folder: Path
) -> None:
    (folder / source_of("red", 0)).unlink()
    (folder / source_of("blue", 0)).unlink()
    (folder / source_of("blue", 1)).rename(folder / "train" / "blue" / "moved.png")
    (folder / "train" / "blue" / "new.png").write_bytes(png(NEW))
    (folder / "train" / "red" / "new.png").write_bytes(png(OLD))

    def blue(source: str) -> bool:
        return source.startswith("train/blue/")

    scan = engine.corpus.scan()
    part = replace(scan, items=tuple(item for item in scan.items if blue(item.source)))
    counts = sync_corpus(
        encoder, engine.corpus, engine.catalogue, JobControl(), scan=part, within=blue
    )
    assert (counts.embedded, counts.moved, counts.removed, counts.total) == (1, 1, 1, 24)
    left = engine.catalogue.all_sources()
    assert {source_of("red", 0), "train/blue/moved.png", "train/blue/new.png"} <= left.keys()
    assert not {source_of("blue", 0), "train/red/new.png"} & left.keys()


def test_a_file_replaced_while_it_is_read_is_noticed_later(
    engine: SearchEngine, folder: Path
) -> None:
    source = source_of("red", 0)

    class Replaced(FolderCorpus):
        def scan(self) -> Scan:
            found = super().scan()
            (folder / source).write_bytes(png(OLD, (20, 20)))
            return found

    (folder / source).write_bytes(png(NEW))
    sync_corpus(engine.encoder, Replaced(folder), engine.catalogue, JobControl())
    (folder / source).write_bytes(png(colour("red", 7)))
    counts = sync_corpus(engine.encoder, FolderCorpus(folder), engine.catalogue, JobControl())
    assert counts.changed == 1
    id_ = engine.catalogue.all_sources()[source]
    ids, xb = engine.catalogue.embeddings(engine.encoder.digest)
    np.testing.assert_allclose(xb[ids.tolist().index(id_)], unit(colour("red", 7)), atol=1e-6)


def test_a_table_whose_paths_are_wrong_removes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = [f"{n}.png" for n in range(6)]
    for n, name in enumerate(names):
        (folder / name).write_bytes(png((40 * n, 10, 200)))
    table = folder / "labels.csv"

    def write(files: list[str]) -> None:
        table.write_text("file,label\n" + "".join(f"{file},x\n" for file in files))

    write(names)
    engine = SearchEngine(MeanColour(), open_corpus(table), tmp_path / "var")
    rebuild(engine)
    write([f"wrong/{name}" for name in names])
    with pytest.raises(CorpusError, match=r"pictures of it that are stored \(6\) stay as they are"):
        rebuild(engine)
    write([*names[:3], *(f"wrong/{name}" for name in names[3:])])
    with pytest.raises(RemovalError, match="would remove 3 of the 6"):
        rebuild(engine)
    assert engine.catalogue.count() == 6
    # What the table names and is not there is not taken, and said so.
    write(names)
    (folder / "0.png").unlink()
    _, counts = rebuild(engine)
    assert (counts.total, counts.removed, counts.kinds) == (5, 1, {"missing files": 1})
    assert counts.skipped == {"0.png": "a table names it, but there is no such file"}
    engine.close()


def test_embedding_again_finds_what_stamps_do_not_tell(engine: SearchEngine, folder: Path) -> None:
    source = source_of("red", 0)
    stamp = (folder / source).stat()
    os.utime(folder / source, (1e9, 1e9))
    rebuild(engine)
    data = png(NEW, (9, 7))
    (folder / source).write_bytes(data + bytes(stamp.st_size - len(data)))
    os.utime(folder / source, (1e9, 1e9))
    _, counts = rebuild(engine)
    assert (counts.changed, counts.embedded) == (0, 0)
    _, counts = rebuild(engine, reembed=True)
    assert (counts.changed, counts.embedded) == (1, 24)
    (entry,) = engine.catalogue.of_sources([source]).values()
    assert entry.payload["file"]["width"] == 9  # type: ignore[index, call-overload]


def test_what_a_file_says_of_itself_follows_it(
    engine: SearchEngine, folder: Path, encoder: MeanColour
) -> None:
    def file_of(source: str) -> Any:
        return engine.catalogue.get([engine.catalogue.all_sources()[source]])[0].payload["file"]

    catalogue, source, other = engine.catalogue, source_of("red", 0), source_of("red", 1)
    id_ = catalogue.all_sources()[source]
    engine.ingest.update(id_, payload={"exif": {"camera": "mine"}, "price": 2})
    (folder / source).write_bytes(png(NEW, (64, 48)))
    (folder / other).rename(folder / "train" / "red" / "other name.png")
    rebuild(engine)
    found = file_of(source)
    assert (found["name"], found["width"], found["height"]) == ("0.png", 64, 48)
    assert found["bytes"] == len(png(NEW, (64, 48)))
    assert file_of("train/red/other name.png")["name"] == "other name.png"
    assert catalogue.get([id_])[0].payload["exif"] is None  # of another picture
    assert catalogue.get([id_])[0].payload["price"] == 2
    # What an earlier version did not store is added when everything is embedded again.
    ids = catalogue.all_sources()
    engine.ingest.update(ids[source_of("blue", 0)], payload={"mine": 1}, replace_payload=True)
    engine.ingest.update(ids[source_of("blue", 1)], payload={"file": "mine"})
    rebuild(engine)
    assert "file" not in catalogue.get([ids[source_of("blue", 0)]])[0].payload
    rebuild(engine, reembed=True)
    assert file_of(source_of("blue", 0))["name"] == "0.png"
    assert file_of(source_of("blue", 1)) == "mine"
    sequence = catalogue.sequence()
    rebuild(engine, reembed=True)
    assert catalogue.sequence() == sequence


def test_pictures_on_a_drive_that_is_gone_stay(engine: SearchEngine, folder: Path) -> None:
    class Mounted(FolderCorpus):
        mounts: tuple[str, ...] = ("test/red",)

        def scan(self) -> Scan:
            return replace(super().scan(), mounts=self.mounts)

    engine.corpus = corpus = Mounted(folder)
    rebuild(engine)
    for path in (folder / "test" / "red").iterdir():
        path.unlink()
    corpus.mounts = ()
    for _ in range(2):
        _, counts = rebuild(engine)
        assert (counts.unreachable, counts.removed, counts.total) == (2, 0, 24)
        assert "is not" in counts.skipped["test/red"]
    corpus.mounts = ("test/red",)  # it is back, and really empty
    assert rebuild(engine)[1].removed == 2
