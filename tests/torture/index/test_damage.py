"""Flipped bits, truncated files, and a pickle in the place of weights or index."""

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
from index import archives, snapshots
from index.blobs import BlobError, Blobs
from index.catalogue import Catalogue, CatalogueError, Record
from index.manifest import SnapshotError
from tests.index.vectors import random_vectors
from tests.torture.index.conftest import COUNTS
from tests.torture.index.worker import DIMENSION, MODEL, build


@pytest.fixture
def store(tmp_path: Path, tiny_bundle: Bundle) -> Path:
    root = tmp_path / "store"
    with Catalogue(root / "catalogue.sqlite") as catalogue:
        records = [Record(f"{i}", "train", "ab"[i % 2], {"n": i, "t": "x" * 50}) for i in range(80)]
        catalogue.upsert(records, random_vectors(80, DIMENSION, seed=0), MODEL)
        catalogue.delete([3, 80], remember=True)
        catalogue.staging.add([5, 6], random_vectors(2, 4, seed=1), "next")
        catalogue.set_meta("corpus", "somewhere")
        build(root, catalogue)
        archives.create(root, catalogue, "kept")
    Blobs(root / "pictures").put(b"the bytes of a picture" * 30)
    tiny_bundle.save(root / "bundle")
    return root


def rows(path: Path) -> list[object]:
    """All that the catalogue says."""
    with closing(sqlite3.connect(path)) as connection:
        tables = ("images", "deletions", "staged", "meta")
        return [connection.execute(f"SELECT * FROM {t} ORDER BY 1").fetchall() for t in tables]


def detected(store: Path, path: Path, truth: list[object]) -> bool:
    """Whether the damage to ``path`` is found out before anything is served from it."""
    try:
        if path.name == "catalogue.sqlite" and path.parent == store:
            with Catalogue(path) as catalogue:
                if catalogue.check() is not None:
                    return True
        elif "generations" in path.parts or path.name == "CURRENT":
            snapshots.load_current(store, MODEL)
        elif "snapshots" in path.parts:
            archives.verify(store, "kept")
        elif "bundle" in path.parts:
            Bundle.load(store / "bundle")
        else:
            Blobs(store / "pictures").get(f"sha256:{path.name}")
    except (CatalogueError, SnapshotError, BundleError, BlobError):
        return True
    return False


def test_every_flipped_or_truncated_file_is_found_out(
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
            # SQLite's header and free space hold bytes that mean nothing.
            assert rows(path) == truth, (number, path)
            outcome["without effect"] += 1
        elif path.name == "CURRENT" and damaged.strip() == whole.strip():
            outcome["without effect"] += 1
        else:
            raise AssertionError(f"damage {number} to {path} was not found out")
        for journal in store.glob("catalogue.sqlite-*"):
            journal.unlink()
        path.write_bytes(whole)
    counted(
        f"{COUNTS.flips} flipped bits and truncations of {len(files)} files", str(dict(outcome))
    )


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
