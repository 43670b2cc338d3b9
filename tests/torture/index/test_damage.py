"""Flipped bits, truncated files, and a pickle instead of weights or index."""

from __future__ import annotations

import pickle
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from embed.bundle import Bundle, BundleError
from index.blobs.folder import FolderBlobs
from index.contract import BlobError, CatalogueError, GenerationError, SnapshotError
from index.local import generations, snapshots
from index.local.catalogue import SqliteCatalogue
from index.records import Record
from tests.index.vectors import random_vectors
from tests.torture.index.conftest import COUNTS
from tests.torture.index.worker import DIMENSION, MODEL, build


@pytest.fixture
def store(tmp_path: Path, tiny_bundle: Bundle) -> Path:
    root = tmp_path / "store"
    with SqliteCatalogue(root / "catalogue.sqlite") as catalogue:
        records = [Record(f"{i}", "train", "ab"[i % 2], {"n": i, "t": "x" * 50}) for i in range(80)]
        catalogue.upsert(records, random_vectors(80, DIMENSION, seed=0), MODEL)
        catalogue.delete([3, 80], tombstone=True)
        catalogue.staging.add([5, 6], random_vectors(2, 4, seed=1), "next")
        catalogue.set_meta("corpus", "somewhere")
        build(root, catalogue)
        snapshots.create(root, catalogue, "kept")
    FolderBlobs(root / "pictures").put(b"the bytes of a picture" * 30)
    tiny_bundle.save(root / "bundle")
    return root


def rows(path: Path) -> list[object]:
    """All rows of the catalogue."""
    with closing(sqlite3.connect(path)) as connection:
        # Without its watermark, a catalogue begins a new epoch in a commit.
        own = "('checksum', 'commits', 'epoch', 'earlier_epochs')"
        tables = ("images", "deletions", "staged", f"meta WHERE key NOT IN {own}")
        return [connection.execute(f"SELECT * FROM {t} ORDER BY 1").fetchall() for t in tables]


def detected(store: Path, path: Path, truth: list[object]) -> bool:
    """Whether the damage to ``path`` is detected before anything is served from it."""
    try:
        if path.name == "catalogue.sqlite" and path.parent == store:
            with SqliteCatalogue(path) as catalogue:
                if catalogue.check() is not None:
                    return True
        elif "generations" in path.parts or path.name == "CURRENT":
            generations.load_current(store, MODEL)
        elif "snapshots" in path.parts:
            snapshots.verify(store, "kept")
        elif "bundle" in path.parts:
            Bundle.load(store / "bundle")
        else:
            FolderBlobs(store / "pictures").get(f"sha256:{path.name}")
    except (CatalogueError, GenerationError, SnapshotError, BundleError, BlobError):
        return True
    return False


def test_every_flipped_or_truncated_file_is_detected(
    store: Path, counted: Callable[[str, str], None]
) -> None:
    catalogue = store / "catalogue.sqlite"
    truth = rows(catalogue)
    files = [
        *store.glob("generations/*/*"),
        store / "CURRENT",
        catalogue,
        *store.glob("snapshots/*/*"),
        *store.glob("pictures/??/*"),
        *(store / "bundle" / name for name in ("bundle.json", "weights.safetensors")),
    ]
    assert len(files) == 9
    choose = random.Random(0)
    outcome: Counter[str] = Counter()
    for number in range(COUNTS.flips):
        path = files[number % len(files)]
        whole = path.read_bytes()
        damaged = bytearray(whole)
        if number // len(files) % 4 == 3:
            damaged = damaged[: choose.randrange(len(whole))]
        else:
            damaged[choose.randrange(len(whole))] ^= 1 << choose.randrange(8)
        path.write_bytes(damaged)
        for journal in store.glob("catalogue.sqlite-*"):
            journal.unlink()
        if detected(store, path, truth):
            outcome["detected"] += 1
        elif path == catalogue:
            # SQLite's header and free space hold bytes without meaning.
            assert rows(path) == truth, (number, path)
            outcome["without effect"] += 1
        elif path.name == "CURRENT" and damaged.strip() == whole.strip():
            outcome["without effect"] += 1
        else:
            raise AssertionError(f"damage {number} to {path} was not detected")
        for journal in store.glob("catalogue.sqlite-*"):
            journal.unlink()
        path.write_bytes(whole)
    counted(
        f"{COUNTS.flips} flipped bits and truncations of {len(files)} files", str(dict(outcome))
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A store as a killed process leaves it: some of its writes in the log, some checkpointed."""
    alive, dead = tmp_path / "alive", tmp_path / "dead"
    xb = random_vectors(300, DIMENSION, seed=2)
    with SqliteCatalogue(alive / "catalogue.sqlite") as catalogue:
        records = [Record(f"{i}", None, "ab"[i % 2], {"n": i}) for i in range(100)]
        catalogue.upsert(records[:40], xb[:40], MODEL)
        with closing(sqlite3.connect(alive / "catalogue.sqlite")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for i in range(40, 60):
            catalogue.upsert([records[i]], xb[i : i + 1], MODEL)
        catalogue.delete([3, 45], tombstone=True)
        catalogue.update([7], label="changed", by_hand=True)
        catalogue.set_meta("corpus", "somewhere")
        dead.mkdir()
        # Without the -shm file, which holds nothing that is not in the log.
        for name in ("catalogue.sqlite", "catalogue.sqlite-wal", "catalogue.sqlite-acknowledged"):
            (dead / name).write_bytes((alive / name).read_bytes())
    return dead


def test_every_write_lost_with_a_damaged_log_is_detected(
    log: Path, counted: Callable[[str, str], None]
) -> None:
    names = ("catalogue.sqlite", "catalogue.sqlite-wal", "catalogue.sqlite-acknowledged")
    whole = {name: (log / name).read_bytes() for name in names}

    def put_back() -> None:
        for path in log.iterdir():
            path.unlink()
        for name, content in whole.items():
            (log / name).write_bytes(content)

    assert rows(log / names[0])[0]
    truth = rows(log / names[0])
    choose = random.Random(1)
    outcome: Counter[str] = Counter()
    for number in range(COUNTS.flips):
        put_back()
        path = log / (names[1] if number % 10 else names[2])
        damaged = bytearray(path.read_bytes())
        if number % 4 == 3:
            damaged = damaged[: choose.randrange(len(damaged))]
        else:
            damaged[choose.randrange(len(damaged))] ^= 1 << choose.randrange(8)
        path.write_bytes(damaged)
        if detected_in_log(log):
            outcome["detected"] += 1
        else:
            assert rows(log / names[0]) == truth, (number, path)
            outcome["without effect"] += 1
    put_back()
    (log / names[1]).unlink()
    assert detected_in_log(log)
    assert outcome["detected"] > outcome["without effect"]
    counted(f"{COUNTS.flips} of the write-ahead log and of its counter", str(dict(outcome)))


def detected_in_log(store: Path) -> bool:
    try:
        with SqliteCatalogue(store / "catalogue.sqlite") as catalogue:
            return catalogue.check() is not None
    except CatalogueError:
        return True


class Bomb:
    """What a pickle would run when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_pickle_is_refused_and_not_run(store: Path, tmp_path: Path) -> None:
    fuse = tmp_path / "executed"
    bomb = pickle.dumps(Bomb(fuse))
    pickle.loads(bomb).close()
    assert fuse.exists()
    fuse.unlink()
    for pattern in ("generations/*/*", "snapshots/*/*", "bundle/*.*s*", "catalogue.sqlite"):
        for path in store.glob(pattern):
            whole = path.read_bytes()
            path.write_bytes(bomb)
            assert detected(store, path, []), path
            path.write_bytes(whole)
    assert not fuse.exists()
