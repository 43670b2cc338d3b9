"""Building the index, and the summary that it prints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from embed.corpus import open_corpus
from search_api.cli.index.building import build
from search_api.service.engine import SearchEngine
from search_api.service.following.comparison import RemovalError
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


def test_the_summary_counts_what_changed_moved_and_is_out_of_reach(
    engine: SearchEngine, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / source_of("red", 0)).write_bytes(png(NEW))
    (folder / source_of("red", 1)).rename(folder / "train" / "red" / "one.png")
    (folder / source_of("red", 2)).write_bytes(b"")
    build(engine)
    err = capsys.readouterr().err
    assert (
        "Index: generation 2 with 24 pictures"
        " (1 embedded now, 1 changed, 1 moved, 22 unchanged, 0 removed)." in err
    )
    path = engine.var / "skipped.json"
    assert f"1 picture could not be looked at and stays as it was; see {path}" in err
    assert list(json.loads(path.read_text())) == [source_of("red", 2)]


def test_the_summary_names_columns_that_were_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(png(NEW))
    table = tmp_path / "labels.csv"
    table.write_text("file,label,price,shelf\na.png,cup,2,7\n")
    engine = SearchEngine(MeanColour(), open_corpus(table), tmp_path / "var")
    build(engine)
    engine.close()
    assert (
        "labels.csv has further columns: price, shelf. --table-payload keeps them as payload."
        in capsys.readouterr().err.splitlines()
    )


def test_removal_is_allowed_by_name(engine: SearchEngine, folder: Path) -> None:
    shutil.rmtree(folder / "train" / "red")
    with pytest.raises(RemovalError, match="would remove 6 of the 24 pictures"):
        build(engine)
    assert build(engine, allow_removal=True).removed == 6


def test_reembed(engine: SearchEngine, encoder: MeanColour) -> None:
    assert build(engine).embedded == 0
    assert build(engine, reembed=True).embedded == 24
