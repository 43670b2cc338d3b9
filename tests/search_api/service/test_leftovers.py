"""What killed processes left goes at the start and with a compaction; what lives stays."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from embed.corpus import FolderCorpus
from index.temporaries import lock_file, temporary_file, temporary_folder
from search_api.service.engine import SearchEngine
from search_api.service.leftovers import remove_leftovers
from tests.search_api.conftest import MeanColour, compact

FOLDERS = (".", "generations", "snapshots", "models", "classifiers", "corpus")
OF_THE_DEAD = (
    ".tmp-building-1-ab/vectors.npy",
    "generations/.tmp-000007/index.faiss",
    "snapshots/.tmp-monday/catalogue.sqlite",
    "snapshots/.tmp-monday@1-ab/catalogue.sqlite",
    "models/.tmp-ab-1/manifest.json",
    "models/.old-ab-1/manifest.json",
    ".CURRENT.1-2.tmp",
    "classifiers/.ab.npz.1-2.tmp",
    "pictures/ab/.abcd.1-2.tmp",
    "corpus/.tmp-x1/new/a.npy",
    "jobs/0123.running",
)


def leave(var: Path) -> None:
    for name in OF_THE_DEAD:
        path = var / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")


def left(var: Path) -> list[str]:
    return [name for name in OF_THE_DEAD if (var / name).exists()]


def test_at_the_start_and_with_a_compaction(
    engine: SearchEngine, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = sorted(engine.var.rglob("*"))
    leave(engine.var)
    compact(engine)
    assert left(engine.var) == []
    leave(engine.var)
    other = SearchEngine(MeanColour(), FolderCorpus(folder), engine.var)
    other.load()
    assert left(engine.var) == []
    assert f"removed {len(OF_THE_DEAD)} files and folders that killed" in caplog.text
    assert {path for path in before if path.parent == engine.var} <= set(engine.var.iterdir())
    other.close()


def test_what_a_living_process_makes_stays(engine: SearchEngine, folder: Path) -> None:
    with ExitStack() as stack:
        living = []
        for name in FOLDERS:
            (engine.var / name).mkdir(exist_ok=True)
            living.append(stack.enter_context(temporary_folder(engine.var / name, "x@")))
            living.append(stack.enter_context(temporary_file(engine.var / name / "x")))
        (engine.var / "jobs").mkdir(exist_ok=True)
        handle = lock_file(engine.var / "jobs" / "1.running")
        other = SearchEngine(MeanColour(), FolderCorpus(folder), engine.var)
        other.load()
        other.close()
        compact(engine)
        assert all(path.exists() for path in living)
        assert (engine.var / "jobs" / "1.running").exists()
    assert remove_leftovers(engine.var, engine.store) == 0
    os.close(handle)
    assert remove_leftovers(engine.var, engine.store) == 1
