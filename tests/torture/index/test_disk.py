"""A disk that is full or read-only during a rebuild: the old index serves, nothing else is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from embed.corpus import FolderCorpus
from embed.pictures import encode_png
from index.ann.exact import ExactIndex
from index.contract import CatalogueError
from index.local import generations, snapshots
from index.local.catalogue import SqliteCatalogue
from index.records import Record
from search_api.problems import meaning
from search_api.service.engine import SearchEngine
from search_api.service.ingest import Upload
from search_api.settings import Quotas
from tests.index.vectors import random_vectors
from tests.search_api.conftest import MeanColour, png, rebuild
from tests.torture.index.worker import DIMENSION, MODEL, build

MB = 2**20
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
    with disk(tmp_path / "disk", "2m") as folder:
        yield folder


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("only root may mount a file system of its own")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


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


NOISE = np.random.default_rng(0)


def upload(number: int) -> Upload:
    """A picture of about 200 kB that does not compress."""
    return Upload(encode_png(NOISE.integers(0, 256, (256, 256, 3), np.uint8)), f"k{number}")


def fill(engine: SearchEngine) -> tuple[int, Exception]:
    """Add until something refuses; how many were added, and the error."""
    for number in range(1_000_000):
        try:
            engine.ingest.add([upload(number)])
        except Exception as error:  # noqa: BLE001 - that is what is looked at
            return number, error
    raise AssertionError("nothing was refused")


@pytest.mark.parametrize("share", [0.05, 0.0], ids=["floor", "no-floor"])
def test_additions_until_the_disk_is_full(
    tmp_path: Path, share: float, counted: Callable[[str, str], None]
) -> None:
    """Refused as 507 with and without a floor; what was acknowledged stays, and purging helps."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0.png").write_bytes(png((240, 0, 0)))
    corpus, quotas = FolderCorpus(tmp_path / "pictures"), Quotas(min_free_share=share)
    with disk(tmp_path / "disk", "64m") as small:
        with closing(SearchEngine(MeanColour(), corpus, small / "var", quotas=quotas)) as engine:
            rebuild(engine)
            number, error = fill(engine)
            found = meaning(error)
            assert found is not None, repr(error)
            assert (found.status, found.kind) == (507, "no-space")
            assert number > 200
            assert engine.catalogue.count() == 1 + number
            assert engine.catalogue.check() is None
            assert engine.search(png((240, 0, 0))).points[0].entry.id == 1
            free = shutil.disk_usage(small).free
            assert (free > 2 * MB) == (share > 0)
            if not share:
                # Something else made room, and everything recovers by itself.
                next((small / "var" / "pictures").glob("??/*")).unlink()
            ids = engine.catalogue.ids().tolist()[1:]
            assert engine.ingest.delete_many(ids, None) == number
            assert engine.trash.purge(None).purged == number
            assert engine.blobs.names() == []
            (again,) = engine.ingest.add([upload(0)])
            assert isinstance(again, int)
        with SqliteCatalogue(small / "var" / "catalogue.sqlite") as catalogue:
            assert catalogue.check() is None
            assert catalogue.count() == 2
    counted(
        f"additions until a disk of 64 MB is full, least free {share:.0%}",
        f"{number} acknowledged, none lost; then 507 with {free / MB:.1f} MB free; purged",
    )
