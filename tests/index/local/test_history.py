"""A catalogue that was put back, copied or replaced never serves another history's generation."""

import json
import logging
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from index.contract import CatalogueError, GenerationError, Manifest
from index.local.history import History, Moment
from index.local.manifest import with_checksum
from index.local.store import LocalStore
from index.records import Record
from tests.index.vectors import random_vectors

XB = random_vectors(40, 8, seed=4)
ACKNOWLEDGED = "catalogue.sqlite-acknowledged"


@contextmanager
def opened(root: Path) -> Iterator[LocalStore[str]]:
    store: LocalStore[str] = LocalStore(root, lambda digest: digest)
    try:
        yield store
    finally:
        store.close()


def add(store: LocalStore[str], *rows: int) -> list[int]:
    """Store each picture in a write of its own."""
    return [store.catalogue.upsert([Record(str(i))], XB[i : i + 1], "m")[0] for i in rows]


def publish(store: LocalStore[str]) -> Manifest:
    manifest = store.publish("m", 8, "exact")
    assert manifest is not None
    return manifest


def load(store: LocalStore[str]) -> str | None:
    """Load as a server does when it starts; returns what was wrong."""
    try:
        return store.served.load("m")[1]
    except GenerationError as error:
        publish(store)
        return str(error)


def check(store: LocalStore[str]) -> None:
    """Everything listed is found under its own id and nothing else is, and all is sound."""
    ids, xb = store.catalogue.embeddings("m")
    index = store.served.current().index
    np.testing.assert_array_equal(index.ids(), ids)
    if len(ids):
        np.testing.assert_array_equal(index.vectors(ids), xb)
        np.testing.assert_array_equal(index.search(xb, 1).ids[:, 0], ids)
    assert [finding for finding in store.verify() if finding.problem is not None] == []


def epoch(store: LocalStore[str]) -> str:
    return store.catalogue.moment().epoch


def foreign(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "generations").glob("*.foreign"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store whose copy of before its last writes and its second generation is next to it."""
    root = tmp_path / "var"
    with opened(root) as store:
        add(store, 0, 1, 2)
        publish(store)
    shutil.copytree(root, tmp_path / "old")
    with opened(root) as store:
        add(store, 10, 11, 12)
        publish(store)
    return root


def put_back(root: Path, *names: str) -> None:
    for name in names:
        shutil.copy(root.parent / "old" / name, root / "put")
        (root / "put").replace(root / name)


@pytest.mark.parametrize("acknowledged", ["deleted", "put back"])
@pytest.mark.parametrize("written", [0, 2, 3, 5])
def test_an_older_catalogue_put_back(root: Path, acknowledged: str, written: int) -> None:
    put_back(root, "catalogue.sqlite")
    if acknowledged == "deleted":
        (root / ACKNOWLEDGED).unlink()
    else:
        put_back(root, ACKNOWLEDGED)
    # Written to by a process that serves nothing, until its number has passed the generation's.
    with opened(root) as store:
        add(store, *range(20, 20 + written))
    with opened(root) as store:
        (finding,) = [found for found in store.verify() if found.problem is not None]
        assert finding.part == "generation 2"
        assert "of another history" in str(finding.problem)
        assert "of another history" in str(load(store))
        assert foreign(root) == ["000002.foreign"]
        check(store)
        assert store.served.current().manifest.generation == 1
        assert publish(store).generation == 3
        assert foreign(root) == []
    with opened(root) as store:
        assert load(store) is None
        check(store)


def test_the_catalogue_overwritten_in_place(root: Path) -> None:
    """Its inode stays, but a generation is ahead."""
    for name in ("catalogue.sqlite", ACKNOWLEDGED):
        (root / name).write_bytes((root.parent / "old" / name).read_bytes())
    with opened(root) as store:
        add(store, *range(20, 25))
    with opened(root) as store:
        assert "of another history" in str(load(store))
        check(store)


def test_a_snapshot_that_is_ahead(tmp_path: Path) -> None:
    with opened(tmp_path / "var") as store:
        add(store, 0)
    shutil.copytree(tmp_path / "var", tmp_path / "old")
    with opened(tmp_path / "var") as store:
        before = epoch(store)
        add(store, 1)
        assert store.snapshots.create("later").epoch == before
    for name in ("catalogue.sqlite", ACKNOWLEDGED):
        (tmp_path / "var" / name).write_bytes((tmp_path / "old" / name).read_bytes())
    with opened(tmp_path / "var") as store:
        assert epoch(store) != before
        # What it holds is still a copy of pictures, which can be restored.
        assert store.snapshots.restore("later")[1:] == (1, 0)
        assert set(store.catalogue.all_sources()) == {"0", "1"}


def test_what_an_earlier_generation_holds_stays_valid(root: Path) -> None:
    """Nothing is built again where it need not be."""
    with opened(root) as store:
        before = epoch(store)
    (root / ACKNOWLEDGED).unlink()
    with opened(root) as store:
        assert epoch(store) != before
        assert load(store) is None
        assert store.served.current().manifest.epoch == before
        check(store)
    with opened(root) as store:
        assert store.catalogue.history().earlier == {before: 6}


def test_a_copied_folder_goes_its_own_way(root: Path) -> None:
    copy = root.parent / "copy"
    shutil.copytree(root, copy)
    with opened(root) as store, opened(copy) as other:
        assert epoch(store) != epoch(other)
        assert load(other) is None
        add(store, 20, 21)
        add(other, 30, 31)
        assert publish(store).generation == publish(other).generation == 3
    # A generation of each in the other.
    for folder in (root, copy):
        (folder / "generations/000003").rename(folder.parent / f"{folder.name}-3")
    (root.parent / "var-3").rename(copy / "generations/000003")
    (root.parent / "copy-3").rename(root / "generations/000003")
    for folder in (root, copy):
        with opened(folder) as store:
            assert "of another history" in str(load(store))
            check(store)


def test_a_generation_of_another_store(root: Path) -> None:
    with opened(root.parent / "other") as other:
        add(other, 30, 31, 32)
        publish(other)
    shutil.rmtree(root / "generations/000002")
    shutil.copytree(root.parent / "other/generations/000001", root / "put")
    manifest = json.loads((root / "put/manifest.json").read_text())
    manifest.pop("checksum")
    (root / "put/manifest.json").write_text(with_checksum({**manifest, "generation": 2}))
    (root / "put").rename(root / "generations/000002")
    with opened(root) as store:
        assert "of another history" in str(load(store))
        check(store)


@pytest.mark.parametrize("acknowledged", [True, False])
def test_another_catalogue_in_its_place(root: Path, acknowledged: bool) -> None:
    """With as many commits, so that their number does not tell."""
    with opened(root.parent / "other") as other:
        add(other, *range(30, 40))
    (root.parent / "other/catalogue.sqlite").replace(root / "catalogue.sqlite")
    if not acknowledged:
        (root / ACKNOWLEDGED).unlink()
    with opened(root) as store:
        assert "of another history" in str(load(store))
        check(store)
        assert store.catalogue.count() == 10


def test_a_lost_catalogue_and_a_snapshot(root: Path) -> None:
    with opened(root) as store:
        store.snapshots.create("kept")
        lost = epoch(store)
    for path in root.glob("catalogue.sqlite*"):
        path.unlink()
    with opened(root) as store:
        assert "of another history" in str(load(store))
        assert store.catalogue.count() == 0
        check(store)
    shutil.copy(root / "snapshots/kept/catalogue.sqlite", root / "catalogue.sqlite")
    (root / ACKNOWLEDGED).unlink()
    with opened(root) as store:
        assert epoch(store) != lost
        assert store.catalogue.count() == 6
        load(store)
        check(store)
    assert sorted(path.name for path in (root / "snapshots/kept").iterdir()) == [
        "catalogue.sqlite",
        "snapshot.json",
    ]


def test_restored_by_two_servers_at_once(root: Path) -> None:
    put_back(root, "catalogue.sqlite")
    (root / ACKNOWLEDGED).unlink()
    barrier = threading.Barrier(4)
    stores: list[LocalStore[str]] = []

    def start() -> None:
        barrier.wait()
        store: LocalStore[str] = LocalStore(root, lambda digest: digest)
        stores.append(store)
        load(store)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 4
    for n, store in enumerate(stores):
        add(store, 20 + n)
    assert len({epoch(store) for store in stores}) == 1
    for store in stores:
        check(store)
        store.close()


def test_a_new_epoch_reaches_a_process_that_serves(root: Path) -> None:
    with opened(root) as serving:
        load(serving)
        (root / ACKNOWLEDGED).unlink()
        with opened(root) as other:
            assert epoch(other) == epoch(serving)
            assert serving.served.peek() is None
            check(serving)
            add(other, 20)
            check(serving)


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_a_process_with_the_old_file_open_acknowledges_nothing(root: Path, how: str) -> None:
    with opened(root) as serving:
        load(serving)
        (one,) = add(serving, 20)
        serving.entries.get([one])
        if how == "replaced":
            put_back(root, "catalogue.sqlite", ACKNOWLEDGED)
        else:
            (root / "catalogue.sqlite").unlink()
        before = (root / ACKNOWLEDGED).read_bytes()
        for use in (
            lambda: add(serving, 21),
            lambda: serving.catalogue.delete([one]),
            serving.served.current,
            lambda: serving.entries.get([one]),
            lambda: serving.entries.cached(one),
            lambda: publish(serving),
        ):
            with pytest.raises(CatalogueError, match="was replaced or removed while it was open"):
                use()
        assert (root / ACKNOWLEDGED).read_bytes() == before
    assert (root / "catalogue.sqlite").exists() == (how == "replaced")


def test_replaced_in_the_middle_of_a_write(root: Path) -> None:
    with opened(root) as serving:
        with (
            pytest.raises(CatalogueError, match="was replaced or removed"),
            serving.catalogue._database.write(),
        ):
            put_back(root, "catalogue.sqlite", ACKNOWLEDGED)
            before = (root / ACKNOWLEDGED).read_bytes()
        assert (root / ACKNOWLEDGED).read_bytes() == before


def without_epoch(root: Path) -> None:
    """Make a store look as one that an earlier version wrote."""
    with opened(root) as store, store.catalogue._database.write() as connection:
        connection.execute("DELETE FROM meta WHERE key IN ('epoch', 'earlier_epochs')")
    for path in root.glob("generations/*/manifest.json"):
        content = json.loads(path.read_text())
        del content["checksum"], content["epoch"]
        path.write_text(with_checksum(content))


def test_a_store_of_an_earlier_version_is_not_built_again(root: Path) -> None:
    without_epoch(root)
    with opened(root) as store:
        add(store, 20)
        store.catalogue.embed([1], XB[21:22], "m", [None])
        store.catalogue.delete([2])
    for _ in range(2):
        with opened(root) as store:
            assert load(store) is None
            manifest = store.served.current().manifest
            assert (manifest.generation, manifest.epoch) == (2, epoch(store))
            check(store)


@pytest.mark.parametrize("written", [3, 5])
def test_a_lost_history_of_an_earlier_version(root: Path, written: int) -> None:
    without_epoch(root)
    without_epoch(root.parent / "old")
    put_back(root, "catalogue.sqlite")
    (root / ACKNOWLEDGED).unlink()
    with opened(root) as store:
        add(store, *range(20, 20 + written))
    with opened(root) as store:
        (finding,) = [found for found in store.verify() if found.problem is not None]
        assert finding.part == "generation 2"
        assert "does not agree with the catalogue" in str(load(store))
        check(store)


def test_restoring_a_snapshot_stays_within_the_history(root: Path) -> None:
    with opened(root) as store:
        load(store)
        store.snapshots.create("now")
        before = store.catalogue.moment()
        store.catalogue.delete([1, 2])
        store.snapshots.restore("now")
        after = store.catalogue.moment()
        assert after == (before.epoch, before.sequence + 2)
        check(store)
    with opened(root) as store:
        assert epoch(store) == before.epoch
        assert load(store) is None


def test_it_says_why(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    put_back(root, "catalogue.sqlite")
    (root / ACKNOWLEDGED).unlink()
    with opened(root) as store:
        load(store)
    assert f"begins a new epoch: there is no {ACKNOWLEDGED}" in caplog.text
    assert "000002: holds writes of another history" in caplog.text


def test_damage_is_not_hidden_by_a_new_epoch(root: Path) -> None:
    with closing(sqlite3.connect(root / "catalogue.sqlite")) as connection, connection:
        connection.execute("UPDATE meta SET value = 'another' WHERE key = 'model'")
    (root / ACKNOWLEDGED).unlink()
    with pytest.raises(CatalogueError, match="own settings does not match"), opened(root):
        pass


def test_what_a_history_holds() -> None:
    history = History(Moment("b", 9), {"a": 4})
    held = [("b", 9), ("b", 0), ("a", 4)]
    assert all(history.holds(Moment(*moment)) for moment in held)
    not_held = [("b", 10), ("a", 5), ("c", 1), ("", 1)]
    assert not any(history.holds(Moment(*moment)) for moment in not_held)
    assert [history.ahead(Moment(*moment)) for moment in not_held] == [True, False, False, False]


def test_only_so_many_epochs_are_remembered(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        add(store, 0)
        for _ in range(70):
            store.catalogue._database.begin_epoch("a test")
        assert len(store.catalogue.history().earlier) == 64
        assert store.catalogue.check() is None


def test_a_folder_whose_generations_cannot_be_renamed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_back(root, "catalogue.sqlite")
    (root / ACKNOWLEDGED).unlink()

    def refuse(*_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(Path, "rename", refuse)
    with opened(root) as store:
        assert "of another history" in str(load(store))
        assert store.served.current().manifest.generation == 1
