"""What became of stored pictures: changed, moved, gone, out of reach; how many may go."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embed.corpus import ArrayCorpus, CorpusError, FolderCorpus, Scan
from embed.folders.kinds import Skipped
from index.contract import CancelledError, JobControl
from index.records import Stamp
from search_api.service.engine import SearchEngine
from search_api.service.following import comparison
from search_api.service.following.comparison import (
    Comparison,
    RemovalError,
    check_removal,
    compare,
    without_drives,
)
from tests.search_api.conftest import MeanColour, colour, png, rebuild, source_of
from tests.search_api.helpers import NEW

RED = [source_of("red", n) for n in range(8)]
LONG_AGO = 1_600_000_000 * 10**9


@pytest.fixture
def engine(folder: Path, encoder: MeanColour, tmp_path: Path):
    """An engine with the 24 pictures indexed, whose files are old."""
    for path in folder.rglob("*.png"):
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    engine = SearchEngine(encoder, FolderCorpus(folder), tmp_path / "var")
    rebuild(engine)
    yield engine
    engine.close()


def write(folder: Path, source: str, rgb: tuple[int, int, int], size: tuple[int, int] = (32, 32)):
    path = folder / source
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(rgb, size))
    os.utime(path, ns=(LONG_AGO, LONG_AGO + 10**9))


def move(folder: Path, source: str, target: str) -> None:
    path = folder / target
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / source).rename(path)


class Counting(FolderCorpus):
    """Counts the files whose content is read."""

    contents = 0

    def content(self, source: str) -> bytes:
        self.contents += 1
        return super().content(source)


def compared(
    engine: SearchEngine, scan: Scan | None = None, control: JobControl = JobControl()
) -> Comparison:
    scan = scan or engine.corpus.scan()
    stored = engine.catalogue.all_sources("corpus")
    return compare(engine.corpus, engine.catalogue, scan, scan.items, stored, 32, control)


def moves(engine: SearchEngine, found: Comparison) -> dict[str, str]:
    return {engine.catalogue.get([id_])[0].source: item.source for id_, item in found.moved.items()}


def sources(engine: SearchEngine, ids: list[int]) -> list[str]:
    return [entry.source for entry in engine.catalogue.get(ids)]


def test_nothing_is_read_when_nothing_changed(engine: SearchEngine, folder: Path) -> None:
    engine.corpus = corpus = Counting(folder)
    found = compared(engine)
    assert found == Comparison(began=found.began)
    assert corpus.contents == 0


def test_a_new_time_or_size_has_the_content_compared(engine: SearchEngine, folder: Path) -> None:
    os.utime(folder / RED[0], ns=(LONG_AGO, LONG_AGO + 1))
    write(folder, RED[1], NEW)
    os.utime(folder / RED[1], ns=(LONG_AGO, LONG_AGO))
    write(folder, RED[2], NEW, (9, 9))
    os.utime(folder / RED[2], ns=(LONG_AGO, LONG_AGO))
    engine.corpus = corpus = Counting(folder)
    found = compared(engine)
    same_size = (folder / RED[1]).stat().st_size == len(png(colour("red", 1)))
    expected = {RED[2]} if same_size else {RED[1], RED[2]}
    assert {item.source for item in found.changed} == expected
    ids = engine.catalogue.all_sources()
    size = len(png(colour("red", 0)))
    assert found.stamps == {ids[RED[0]]: Stamp(size, LONG_AGO + 1)}
    assert found.contents == {ids[RED[0]]: engine.catalogue.get([ids[RED[0]]])[0].content_hash}
    assert (found.new, found.moved, found.gone, found.overwritten) == ([], {}, [], [])
    assert corpus.contents == 1 + len(expected)


def test_a_file_that_has_only_just_changed_is_compared_again(
    engine: SearchEngine, folder: Path
) -> None:
    """It might change once more without getting another time."""
    found = Comparison()
    (item, *_) = engine.corpus.items
    assert item.stamp is not None
    for ago, known in ((0, -1), (10**9, -1), (-(10**9), -1), (3 * 10**9, None), (-(10**12), None)):
        modified = found.began - ago
        one = replace(item, stamp=item.stamp._replace(modified_ns=modified))
        assert found.kept_stamp(one) == Stamp(item.stamp.size, known or modified)
    assert found.kept_stamp(replace(item, stamp=None)) is None


def test_a_moved_file_and_a_renamed_folder(engine: SearchEngine, folder: Path) -> None:
    move(folder, RED[0], "train/elsewhere/first.png")
    (folder / "test").rename(folder / "val")
    write(folder, "train/elsewhere/new.png", NEW)
    found = compared(engine)
    expected = {RED[0]: "train/elsewhere/first.png"}
    for label in ("red", "green", "blue"):
        for shade in (6, 7):
            expected[source_of(label, shade)] = f"val/{label}/{shade}.png"
    assert moves(engine, found) == expected
    assert [item.source for item in found.new] == ["train/elsewhere/new.png"]
    assert (found.gone, found.overwritten, found.changed) == ([], [], [])


def test_only_files_of_the_right_size_are_read(engine: SearchEngine, folder: Path) -> None:
    move(folder, RED[0], "moved.png")
    write(folder, "large.png", NEW, (200, 100))
    engine.corpus = corpus = Counting(folder)
    found = compared(engine)
    assert moves(engine, found) == {RED[0]: "moved.png"}
    assert corpus.contents == 1


def test_a_copy_is_no_move(engine: SearchEngine, folder: Path) -> None:
    write(folder, "copy.png", colour("red", 0))
    found = compared(engine)
    assert (found.moved, [item.source for item in found.new]) == ({}, ["copy.png"])


def test_each_of_several_copies_is_paired_once(engine: SearchEngine, folder: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write(folder, f"train/old/{name}", NEW)
    rebuild(engine)
    move(folder, "train/old/a.png", "train/new/c.png")
    move(folder, "train/old/b.png", "train/new/b.png")
    move(folder, "train/old/c.png", "train/new/a.png")
    write(folder, "train/new/d.png", NEW)
    found = compared(engine)
    assert moves(engine, found) == {
        f"train/old/{name}": f"train/new/{name}" for name in ("a.png", "b.png", "c.png")
    }
    assert [item.source for item in found.new] == ["train/new/d.png"]
    (folder / "train/new/a.png").unlink()
    found = compared(engine)
    assert moves(engine, found) == {
        "train/old/a.png": "train/new/d.png",
        "train/old/b.png": "train/new/b.png",
        "train/old/c.png": "train/new/c.png",
    }


def test_content_is_followed_through_a_chain_and_an_exchange(
    engine: SearchEngine, folder: Path
) -> None:
    """Files that were numbered again: each picture's id and label go with what it shows."""
    move(folder, RED[2], "train/red/new.png")
    move(folder, RED[1], RED[2])
    move(folder, RED[0], RED[1])
    move(folder, RED[3], "temporary.png")
    move(folder, RED[4], RED[3])
    move(folder, "temporary.png", RED[4])
    for source in (RED[1], RED[2], RED[3], RED[4]):  # even if their sizes are equal
        os.utime(folder / source, ns=(LONG_AGO, LONG_AGO + 5))
    found = compared(engine)
    assert moves(engine, found) == {
        RED[0]: RED[1],
        RED[1]: RED[2],
        RED[2]: "train/red/new.png",
        RED[3]: RED[4],
        RED[4]: RED[3],
    }
    assert (found.new, found.changed, found.gone, found.overwritten) == ([], [], [], [])


def test_a_file_moved_over_another_takes_its_place(engine: SearchEngine, folder: Path) -> None:
    move(folder, RED[0], RED[1])
    os.utime(folder / RED[1], ns=(LONG_AGO, LONG_AGO + 5))
    found = compared(engine)
    assert moves(engine, found) == {RED[0]: RED[1]}
    assert sources(engine, found.overwritten) == [RED[1]]
    assert (found.new, found.changed, found.gone) == ([], [], [])


def test_a_new_file_where_one_moved_away_is_new(engine: SearchEngine, folder: Path) -> None:
    move(folder, RED[0], "moved.png")
    write(folder, RED[0], NEW)
    found = compared(engine)
    assert moves(engine, found) == {RED[0]: "moved.png"}
    assert [item.source for item in found.new] == [RED[0]]
    assert found.changed == []


def test_what_cannot_be_reached_is_neither_gone_nor_moved(
    engine: SearchEngine, folder: Path
) -> None:
    scan = engine.corpus.scan()
    items = tuple(item for item in scan.items if not item.source.startswith("train/red"))
    write(folder, "copy.png", colour("red", 0))
    copy = next(item for item in engine.corpus.items if item.source == "copy.png")
    found = compared(engine, replace(scan, items=(*items, copy), unreachable=("train/red",)))
    assert found.unreachable == {source for source in RED if source.startswith("train/")}
    assert [item.source for item in found.new] == ["copy.png"]
    assert (found.moved, found.gone) == ({}, [])
    # An empty file may be a copy that was interrupted, and iCloud brings back what it takes away;
    # one that is left out by choice is gone.
    left = {RED[0]: Skipped("empty files", "it is empty"), RED[1]: Skipped("links", "a link")}
    items = tuple(item for item in scan.items if item.source not in left)
    found = compared(engine, replace(scan, items=items, skipped=left))
    assert found.unreachable == {RED[0]}
    assert sources(engine, found.gone) == [RED[1]]
    (folder / RED[0]).unlink()
    place = folder / RED[0]
    (place.parent / f".{place.name}.icloud").write_bytes(b"bplist00")
    assert compared(engine, engine.corpus.scan()).unreachable == {RED[0]}


def test_a_changed_file_that_cannot_be_read_stays_as_it_is(
    engine: SearchEngine, folder: Path
) -> None:
    class Unreadable(FolderCorpus):
        def content(self, source: str) -> bytes:
            raise CorpusError(f"{source} cannot be read: Input/output error")

    write(folder, RED[0], NEW)
    engine.corpus = Unreadable(folder)
    found = compared(engine)
    assert found.unreachable == {RED[0]}
    assert found.skipped == {RED[0]: f"{RED[0]} cannot be read: Input/output error"}
    assert (found.changed, found.gone) == ([], [])


def test_a_store_of_an_earlier_version_has_its_stamps_filled_in(
    engine: SearchEngine, folder: Path
) -> None:
    with engine.catalogue._database.write() as connection:
        connection.execute("DROP TABLE stamps")
    write(folder, RED[0], NEW)
    os.utime(folder / RED[0])
    engine.corpus = corpus = Counting(folder)
    scan, stored = corpus.scan(), engine.catalogue.all_sources("corpus")
    since = LONG_AGO + 10**9
    found = compare(corpus, engine.catalogue, scan, scan.items, stored, 32, unstamped_since=since)
    assert found.stamps == {
        stored[item.source]: item.stamp for item in scan.items if item.source != RED[0]
    }
    assert [item.source for item in found.changed] == [RED[0]]  # the index is older
    assert (found.contents, corpus.contents) == ({}, 1)
    # In a store that keeps stamps, one without was recorded by a process that was killed.
    found = compared(engine)
    assert (len(found.stamps), len(found.contents), corpus.contents) == (23, 23, 25)


def test_an_earlier_version_named_contents_by_their_pixels(
    engine: SearchEngine, folder: Path
) -> None:
    from search_api.service.following.contents import pixels_hash

    catalogue = engine.catalogue
    for entry in catalogue.page(-1, 100):
        ids, xb = catalogue.embeddings(engine.encoder.digest)
        x = xb[ids == entry.id]
        content = pixels_hash(engine.corpus.read(entry.source, 32))
        catalogue.embed([entry.id], x, engine.encoder.digest, [content])
    os.utime(folder / RED[0], ns=(LONG_AGO, LONG_AGO + 1))
    move(folder, RED[1], "moved.png")
    write(folder, RED[2], NEW)
    found = compared(engine)
    assert moves(engine, found) == {RED[1]: "moved.png"}
    assert [item.source for item in found.changed] == [RED[2]]
    assert catalogue.all_sources()[RED[0]] in found.stamps


def test_pictures_in_memory_have_no_stamps(tmp_path: Path, encoder: MeanColour) -> None:
    pictures = np.stack([np.full((4, 4, 3), 40 * n, np.uint8) for n in range(4)])
    corpus = ArrayCorpus("four", ("a",), lambda: {"train": (pictures, np.zeros(4, np.int64))})
    engine = SearchEngine(encoder, corpus, tmp_path / "var")
    rebuild(engine)
    assert engine.catalogue.stamps() == {}
    found = compared(engine)
    assert found == Comparison(began=found.began)
    engine.close()


def test_comparing_many_is_reported_and_can_be_cancelled(
    engine: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "_AT_ONCE", 10)
    for path in folder.rglob("*.png"):
        os.utime(path, ns=(LONG_AGO, LONG_AGO + 1))
    seen: list[tuple[str, int, int]] = []
    compared(engine, control=JobControl(lambda *values: seen.append(values)))
    assert seen == [("comparing", 10, 24), ("comparing", 20, 24), ("comparing", 24, 24)]
    with pytest.raises(CancelledError, match="nothing was changed"):
        compared(engine, control=JobControl(cancelled=lambda: True))


@pytest.mark.parametrize(
    ("removed", "of"), [(0, 0), (0, 50), (1, 5), (2, 3), (2, 20), (10, 100), (6_000, 60_000)]
)
def test_a_few_pictures_may_go(removed: int, of: int) -> None:
    check_removal(["a.jpg"] * removed, of, "here")


@pytest.mark.parametrize(
    ("removed", "of"), [(1, 1), (2, 2), (3, 3), (3, 29), (11, 100), (6_001, 60_000)]
)
def test_more_than_a_tenth_may_not_go_and_neither_may_all(removed: int, of: int) -> None:
    with pytest.raises(RemovalError) as caught:
        check_removal(["a/b.jpg"] * removed, of, "/photos")
    assert f"would remove {removed:,} of the {of:,} pictures of /photos" in str(caught.value)
    assert "for example a/b.jpg" in str(caught.value)
    assert "--allow-removal" in str(caught.value)


def test_a_drive_that_is_gone_has_deleted_nothing(engine: SearchEngine, folder: Path) -> None:
    """Where it was mounted is an empty folder, or none."""
    scan = engine.corpus.scan()
    red = [item for item in scan.items if item.source.startswith("train/red/")]
    rest = tuple(item for item in scan.items if item not in red)
    gone = without_drives(replace(scan, items=rest, mounts=()), ["train/red"])
    assert gone.unreachable == gone.mounts == ("train/red",)
    assert gone.skipped["train/red"].kind == "unreachable"
    assert compared(engine, gone).unreachable == {item.source for item in red}
    # It is mounted and empty, or there is a folder in its place.
    for there in (replace(scan, items=rest, mounts=("train/red",)), replace(scan, mounts=())):
        assert without_drives(there, ["train/red"]) == there
    assert without_drives(replace(scan, mounts=None), ["train/red"]).unreachable == ()


def test_what_is_no_longer_taken_is_said_to_be_so() -> None:
    """As after an upgrade, or with other options."""
    gone = ["a/@eaDir/x/1.jpg", "a/@eaDir/2.jpg", "b/link.jpg", "c/3.jpg"]
    skipped = {
        "a/@eaDir": Skipped("in @eaDir", "a folder of another program", 2),
        "b/link.jpg": Skipped("links", "a link out of the folder"),
    }
    with pytest.raises(RemovalError, match=r"no longer taken: in @eaDir 2, links 1\. Not"):
        check_removal(gone, 4, "/photos", skipped)
