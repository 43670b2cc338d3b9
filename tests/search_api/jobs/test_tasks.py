"""Tasks, done in this process."""

from __future__ import annotations

import sys

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
