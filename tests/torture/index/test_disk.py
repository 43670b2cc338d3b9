"""A disk that is full or read-only during a rebuild: the old index serves, nothing else is left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from index.ann.exact import ExactIndex
from index.contract import CatalogueError
from index.local import generations, snapshots
from index.local.catalogue import SqliteCatalogue
from index.records import Record
from tests.index.vectors import random_vectors
from tests.torture.index.worker import DIMENSION, MODEL, build

ROOT = Path(__file__).parents[3]
# No file may grow beyond the limit, which looks to a writer like a full disk.
LIMITED = """
import resource, signal, sys
from pathlib import Path
from index.local import snapshots
from index.local.catalogue import SqliteCatalogue
from tests.torture.index.worker import build
root, what, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
catalogue = SqliteCatalogue(root / "catalogue.sqlite")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    build(root, catalogue) if what == "build" else snapshots.create(root, catalogue, "new")
except Exception as error:
    print(type(error).__name__, error)
"""


def filled(root: Path, count: int) -> None:
    with SqliteCatalogue(root / "catalogue.sqlite") as catalogue:
        records = [Record(str(i)) for i in range(count)]
        catalogue.upsert(records, random_vectors(count, DIMENSION, seed=0), MODEL)
        build(root, catalogue)


def left(root: Path) -> set[str]:
    """Every file of the store except SQLite's journals and locks."""
    return {
        str(p.relative_to(root))
        for p in root.rglob("*")
        if p.is_file() and not p.name.startswith("catalogue.sqlite-") and p.name != ".lock"
    }


@pytest.mark.parametrize("what", ["build", "snapshot"])
@pytest.mark.parametrize("limit", [0, 100, 4096, 10_000])
def test_full(tmp_path: Path, what: str, limit: int) -> None:
    filled(tmp_path, 400)
    before = left(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), what, str(limit)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stdout, "nothing was refused"
    assert left(tmp_path) <= before
    assert generations.load_current(tmp_path, MODEL)[0].count() == 400
    with SqliteCatalogue(tmp_path / "catalogue.sqlite") as catalogue:
        assert catalogue.check() is None
        build(tmp_path, catalogue)
        snapshots.create(tmp_path, catalogue, "new")
    assert generations.load_current(tmp_path, MODEL)[1].generation == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("only root may mount a file system of its own")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_real_disk_full_and_read_only(
    small_disk: Path, counted: Callable[[str, str], None]
) -> None:
    filled(small_disk, 400)
    ballast = small_disk / "ballast"
    with SqliteCatalogue(small_disk / "catalogue.sqlite") as catalogue:
        assert catalogue.count() == 400
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        before = left(small_disk)
        with pytest.raises((OSError, RuntimeError)):
            build(small_disk, catalogue)
        assert left(small_disk) == before
        assert generations.load_current(small_disk, MODEL)[0].count() == 400
        with pytest.raises(CatalogueError, match="full"):
            catalogue.upsert([Record("new")], random_vectors(1, DIMENSION, seed=1), MODEL)
        assert catalogue.count() == 400
        ballast.unlink()
        build(small_disk, catalogue)
        assert generations.load_current(small_disk, MODEL)[1].generation == 2
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    before = left(small_disk)
    with pytest.raises(OSError, match="Read-only"):
        generations.publish(small_disk, ExactIndex(DIMENSION), MODEL)
    assert left(small_disk) == before
    assert generations.load_current(small_disk, MODEL)[0].count() == 400
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    counted("disk full and read-only during a rebuild", "the old index serves, nothing is left")
