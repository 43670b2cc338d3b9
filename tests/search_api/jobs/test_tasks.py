"""Tasks, done in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from index.contract import JobControl, Manifest
from search_api.jobs.tasks import Task, perform
from search_api.service.engine import SearchEngine
from search_api.service.rebuild import IndexBuilder


def test_work_in_this_process_yields_more_often(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, seen = sys.getswitchinterval(), []

    def compact(*_: object, **__: object) -> Manifest:
        seen.append(sys.getswitchinterval())
        return engine.manifest

    monkeypatch.setattr(IndexBuilder, "compact", compact)
    assert perform(engine, Task("compact"), JobControl()) == {"generation": 1, "total": 24}
    assert seen == [pytest.approx(0.0005)]
    assert sys.getswitchinterval() == pytest.approx(usual)


def test_a_rebuild_counts_and_logs_what_it_skips(
    engine: SearchEngine, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.mov", "b.MOV", "c.cr2", ".d.png"):
        (folder / name).write_bytes(b"something")
    seen: dict[str, str] = {}
    with caplog.at_level("INFO"):
        result = perform(engine, Task("rebuild"), JobControl(skip=seen.update))
    kinds = {"skipped .mov": 2, "skipped .cr2": 1, "skipped hidden files": 1}
    assert result["skipped"] == 4
    assert {name: count for name, count in result.items() if name.startswith("skipped ")} == kinds
    assert list(seen) == [".d.png", "a.mov", "b.MOV", "c.cr2"]
    listed = engine.var / "skipped.json"
    assert f"skipped files (4): .mov 2, .cr2 1, hidden files 1; see {listed}" in caplog.messages
