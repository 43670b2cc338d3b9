"""Two snapshots of one name at once, in threads and in processes; and many kills of makers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from index.blobs.folder import FolderBlobs
from index.contract import SnapshotError
from index.local import snapshots
from index.local.catalogue import SqliteCatalogue
from index.records import Record
from tests.index.vectors import random_vectors
from tests.torture.index.conftest import COUNTS

ROOT = Path(__file__).parents[3]
PICTURES = 500


def maker(root: Path) -> subprocess.Popen[str]:
    """A process that makes snapshots in the store at ``root``."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("maker.py")), str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), **os.environ},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def results(orders: list[tuple[subprocess.Popen[str], str, int]]) -> list[str]:
    """What comes of making these snapshots at once: process, name, number of threads."""
    for process, name, threads in orders:
        assert process.stdin is not None
        process.stdin.write(f"{name} {threads}\n")
        process.stdin.flush()
    return [
        process.stdout.readline().strip()
        for process, _, threads in orders
        for _ in range(threads)
        if process.stdout is not None
    ]


def make_pairs(root: Path, pairs: int) -> tuple[dict[str, list[str]], Counter[str]]:
    """What came of each pair, half of them in one process, by name; and how often which."""
    one, two = maker(root), maker(root)
    came = {}
    for number in range(pairs):
        name = f"pair-{number}"
        once = [(one, name, 2)] if number % 2 else [(one, name, 1), (two, name, 1)]
        came[name] = sorted(results(once))
    for process in (one, two):
        process.communicate()
    return came, Counter(" and ".join(word.split()[0] for word in two) for two in came.values())


def test_one_of_two_wins_and_can_be_restored(
    tmp_path: Path, counted: Callable[[str, str], None]
) -> None:
    with SqliteCatalogue(tmp_path / "catalogue.sqlite") as catalogue:
        blobs = FolderBlobs(tmp_path / "pictures")
        records = [
            Record(f"key:{i}", None, None, {}, blobs.put(b"%d" % i), "added")
            for i in range(PICTURES)
        ]
        catalogue.upsert(records, random_vectors(PICTURES, 8, seed=0), "m")
        came, counts = make_pairs(tmp_path, COUNTS.pairs)
        assert counts == {"exists and made": COUNTS.pairs}, counts
        assert snapshots.names(tmp_path) == sorted(came)
        for name in came:
            catalogue.delete(catalogue.ids()[::2])
            blobs.sweep(lambda: snapshots.content_hashes(tmp_path))
            try:
                assert snapshots.restore(tmp_path, catalogue, name)[1] == PICTURES // 2
            except SnapshotError as error:
                raise AssertionError(f"{name} was acknowledged: {came[name]}") from error
            assert blobs.missing(catalogue.content_hashes("added")) == set()
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == sorted(came)
    counted(
        f"{COUNTS.pairs} pairs of snapshots of one name",
        "one made, one refused each time; all restored with their pictures",
    )
