"""A generation without permission costs a rebuild at most, and blocks nothing."""

import encodings.ascii  # noqa: F401 - the other user may not be able to import it
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index.contract import GenerationCorruptError
from index.local.store import LocalStore
from index.records import Record

XB = np.eye(8, dtype=np.float32)
NOBODY = 65_534


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder of a user whom permissions bind, as whom the test then runs."""
    root = Path(tempfile.mkdtemp())
    if os.geteuid():
        yield root
    else:
        os.chown(root, NOBODY, NOBODY)
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        try:
            yield root
        finally:
            os.seteuid(0)
            os.setegid(0)
    for folder in root.glob("generations/*"):
        folder.chmod(0o700)
    shutil.rmtree(root)


def built(root: Path) -> LocalStore[str]:
    store: LocalStore[str] = LocalStore(root, lambda digest: digest)
    for i in range(2):
        add(store, i)
    return store


def add(store: LocalStore[str], i: int) -> int:
    store.catalogue.upsert([Record(str(i))], XB[i : i + 1], "m")
    manifest = store.publish("m", 8, "exact")
    assert manifest is not None
    return manifest.generation


@pytest.mark.parametrize("locked", [["000002"], ["000001", "000002"]])
def test_a_generation_that_cannot_be_read(
    root: Path, locked: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    built(root).close()
    for name in locked:
        (root / "generations" / name).chmod(0)
    store: LocalStore[str] = LocalStore(root, lambda digest: digest)
    problems = {found.part for found in store.verify() if found.problem is not None}
    assert problems == {f"generation {int(name)}" for name in locked}
    if len(locked) == 1:
        manifest, problem = store.served.load("m")
        assert manifest.generation == 1
        assert "000002/manifest.json: cannot be read" in str(problem)
    else:
        with pytest.raises(GenerationCorruptError, match=r"000002/manifest.json: cannot be read"):
            store.served.load("m")
    # What cannot be removed does not keep others from being built and removed.
    assert [add(store, i) for i in range(2, 7)] == [3, 4, 5, 6, 7]
    left = sorted(path.name for path in (root / "generations").iterdir())
    assert left == [*locked, "000005", "000006", "000007"]
    assert f"{locked[0]}: cannot be removed: Permission denied" in caplog.text
    assert store.served.current().index.count() == 7
    store.close()
