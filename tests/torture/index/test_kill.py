"""kill -9 at random points of adding, deleting, rebuilding and taking snapshots."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from index.blobs.folder import FolderBlobs
from index.local import generations, snapshots
from index.local.caches import EntryCache
from index.local.catalogue import SqliteCatalogue
from index.local.serving import LocalServedIndex
from index.local.store import LocalStore
from index.temporaries import is_temporary, temporary_folder
from tests.torture.index.conftest import COUNTS
from tests.torture.index.worker import DIMENSION, MODEL, content, vector

ROOT = Path(__file__).parents[3]
State = dict[int, int]
"""Key to the version that was acknowledged last."""


def run_and_kill(root: Path, seed: int, after: float) -> list[list[str]]:
    """Start a worker, kill it ``after`` seconds; return what it printed."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.torture.index.worker", str(root), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    timer = threading.Timer(after, worker.send_signal, [signal.SIGKILL])
    timer.start()
    lines = worker.stdout.readlines()
    timer.join()
    worker.stdout.close()
    assert worker.wait() == -signal.SIGKILL
    return [line.split() for line in lines if line.endswith("\n")]


def apply(state: State, lines: list[list[str]]) -> tuple[int, list[str] | None]:
    """Put the acknowledged writes into ``state``; return their number and what was under way."""
    done, open_ = 0, None
    for word, action, key, version in lines:
        open_ = [action, key, version] if word == "begin" else None
        if word == "done":
            done += 1
            if action == "add":
                state[int(key)] = int(version)
            elif action == "delete":
                state.pop(int(key), None)
    return done, open_


def stored(catalogue: SqliteCatalogue) -> State:
    entries = catalogue.get(catalogue.ids())
    return {int(e.source.removeprefix("key:")): int(str(e.payload["version"])) for e in entries}


def check(root: Path, state: State, open_: list[str] | None) -> None:
    """Everything acknowledged is stored, intact and found, and nothing else is."""
    with SqliteCatalogue(root / "catalogue.sqlite") as catalogue:
        assert catalogue.check() is None
        found = stored(catalogue)
        if open_ is not None and found != state:
            action, key, version = open_
            if action == "add":
                state[int(key)] = int(version)
            elif action == "delete":
                state.pop(int(key), None)
        assert found == state
        blobs = FolderBlobs(root / "pictures")
        sources = catalogue.all_sources()
        for entry in catalogue.get(catalogue.ids()):
            version = int(str(entry.payload["version"]))
            assert blobs.get(str(entry.content_hash)) == content(version)
        for name in snapshots.names(root):
            snapshots.verify(root, name)
        if generations.stamp(root) is None:
            return
        served = LocalServedIndex(
            root, catalogue, lambda digest: digest, EntryCache(catalogue, 100)
        )
        _, problem = served.load(MODEL)
        assert problem is None
        assert all(
            finding.problem is None for finding in generations.verify(root, catalogue.history)
        )
        index = served.current().index
        assert index.ids().tolist() == sorted(sources.values())
        for key, version in state.items():
            np.testing.assert_array_equal(index.vectors([sources[f"key:{key}"]]), vector(version))
            if key % 10 == 0:
                assert index.search(vector(version), 1).ids[0, 0] == sources[f"key:{key}"]
        assert index.dimension == DIMENSION


def remove_left(root: Path, living: Path) -> int:
    """Remove what the killed process left, and nothing of a living one; return how much it was."""
    with closing(LocalStore[str](root, lambda digest: digest)) as store:
        removed = store.remove_orphans()
    assert [path for path in root.rglob("*") if is_temporary(path.name)] == [living]
    return removed


def test_nothing_acknowledged_is_lost(tmp_path: Path, counted: Callable[[str, str], None]) -> None:
    state: State = {}
    random_delay = random.Random(0)
    writes, under_way = 0, {"add": 0, "delete": 0, "build": 0, "keep": 0}
    left = 0
    (tmp_path / "snapshots").mkdir()
    for number in range(COUNTS.kills):
        with temporary_folder(tmp_path / "snapshots") as living:
            lines = run_and_kill(tmp_path, number, random_delay.uniform(0.0, 0.3))
            left += remove_left(tmp_path, living)
        done, open_ = apply(state, lines)
        check(tmp_path, state, open_)
        writes += done
        if open_ is not None:
            under_way[open_[0]] += 1
    assert writes > COUNTS.kills
    counted(
        f"kill -9 at {COUNTS.kills} random points",
        f"{writes} acknowledged writes, none lost; killed in the middle of {under_way}; "
        f"{left} unfinished files and folders removed",
    )
