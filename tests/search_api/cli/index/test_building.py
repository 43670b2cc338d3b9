"""Building the index, and the summary that it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search_api.cli.index.building import build
from search_api.service.engine import SearchEngine
from tests.search_api.conftest import MeanColour, png, source_of
from tests.search_api.helpers import NEW


def test_the_summary_counts_what_was_done(
    engine: SearchEngine, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "train" / "red" / "new.png").write_bytes(png(NEW))
    (folder / "train" / "red" / "broken.png").write_bytes(b"no picture")
    (folder / source_of("blue", 0)).unlink()
    counts = build(engine)
    assert (counts.embedded, counts.kept, counts.removed) == (1, 23, 1)
    lines = capsys.readouterr().err.splitlines()
    assert (
        "Index: generation 2 with 24 pictures (1 embedded now, 23 unchanged, 1 removed)." in lines
    )
    path = engine.var / "skipped.json"
    assert f"Skipped 1 file: unreadable pictures 1; see {path} for the reasons." in lines
    assert list(json.loads(path.read_text())) == ["train/red/broken.png"]


def test_reembed(engine: SearchEngine, encoder: MeanColour) -> None:
    assert build(engine).embedded == 0
    assert build(engine, reembed=True).embedded == 24
