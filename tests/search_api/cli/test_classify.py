"""`lookalike classify`: which files are taken, tables, sidecar files, votes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from embed.pictures import encode_png
from embed.scenes import render
from search_api.cli.classify import classify as command
from search_api.offline import tables
from search_api.service.engine import SearchEngine
from tests.search_api.cli.helpers import CLASSES, Env, run
from tests.search_api.conftest import MeanColour, colour, png

Classify = Callable[..., Result]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "new"
    (root / "deep").mkdir(parents=True)
    (root / "red.png").write_bytes(png(colour("red", 0)))
    (root / "bad.png").write_bytes(b"rubbish")
    (root / "deep" / "blue.PNG").write_bytes(png(colour("blue", 0)))
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture
def classify(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Classify:
    """Runs the command with the fake encoder."""
    monkeypatch.setattr(
        "search_api.stores.model_store.open_model", lambda folder, var: MeanColour()
    )

    def run(*arguments: object) -> Result:
        given = [*map(str, arguments), "--var", str(tmp_path / "var")]
        return CliRunner().invoke(command, given)

    return run


def test_a_bad_picture_does_not_stop_the_others(store: Env, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(render("boat", 100)))
    (tmp_path / "b.png").write_bytes(b"rubbish")
    (tmp_path / "c.png").write_bytes(encode_png(render("tree", 100)))
    done = run("classify", tmp_path, env=store)
    assert done.returncode == 1
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert sorted(row[2] for row in rows) == [str(tmp_path / "a.png"), str(tmp_path / "c.png")]
    assert all(row[0] in CLASSES and 0 < float(row[1]) <= 1 for row in rows)
    (error,) = done.stderr.splitlines()
    assert str(tmp_path / "b.png") in error
    assert "not a picture" in error
    lines = run("classify", tmp_path, "--json", env=store).stdout.splitlines()
    by_path = {Path(json.loads(line)["path"]).name: json.loads(line) for line in lines}
    assert set(by_path["a.png"]["probabilities"]) == set(CLASSES)
    assert "not a picture" in by_path["b.png"]["error"]


def test_classify_a_folder(
    classify: Classify, pictures: Path, engine: SearchEngine, tmp_path: Path
) -> None:
    for entry in engine.catalogue.page(-1, 100):
        engine.ingest.update(entry.id, payload={"tags": [f"pure {entry.label}"]})
    (pictures / "deep" / "blue.PNG.xmp").write_text("mine")
    done = classify(pictures, "--out", tmp_path / "tags.jsonl", "--xmp")
    assert done.exit_code == 1
    assert done.stdout == ""
    rows = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    by_name = {Path(row["path"]).name: row for row in rows}
    assert [row["path"] for row in rows] == [
        str(pictures / name) for name in ("bad.png", "red.png", "deep/blue.PNG")
    ]
    assert (by_name["red.png"]["class"], by_name["red.png"]["tags"]) == ("red", ["pure red"])
    assert by_name["red.png"]["tag_shares"] == [0.8]  # eight of the ten
    assert by_name["red.png"]["error"] is None
    assert "not a picture" in by_name["bad.png"]["error"]
    assert by_name["blue.PNG"]["class"] == "blue"
    assert "no sidecar file was written" in by_name["blue.PNG"]["error"]
    assert "pure red" in (pictures / "red.png.xmp").read_text("utf-8")
    assert (pictures / "deep" / "blue.PNG.xmp").read_text() == "mine"
    assert "Classified 2 pictures (red 1, blue 1); 2 had an error." in done.stderr


def test_without_a_store_there_are_no_tags(
    classify: Classify, pictures: Path, tmp_path: Path
) -> None:
    done = classify(pictures / "red.png", "--out", tmp_path / "tags.jsonl")
    assert done.exit_code == 0
    assert json.loads((tmp_path / "tags.jsonl").read_text())["tags"] == []
    assert "No finer tags: there is no store" in done.stderr


def test_which_files_are_taken(classify: Classify, pictures: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(png(colour("green", 0)))
    (pictures / "bad.png").unlink()
    (pictures / "out.png").symlink_to(outside)
    (pictures / "in.png").symlink_to(pictures / "red.png")
    (pictures / "loop.png").symlink_to(pictures / "loop.png")
    (pictures / "up").symlink_to(tmp_path, target_is_directory=True)
    (pictures / ".hidden.png").write_bytes(png(colour("green", 0)))
    (pictures / ".trash").mkdir()
    (pictures / ".trash" / "x.png").write_bytes(png(colour("green", 0)))

    def taken(*arguments: object) -> list[str]:
        done = classify(pictures, pictures / "red.png", *arguments)
        return [Path(line.split("\t")[2]).name for line in done.stdout.splitlines()]

    assert taken() == ["in.png", "red.png", "blue.PNG"]
    assert taken("--no-recursive") == ["in.png", "red.png"]


@pytest.mark.parametrize(
    ("out", "words"), [("tags.xlsx", ".parquet"), ("missing/tags.csv", "does not exist")]
)
def test_wrong_tables_are_refused_first(
    classify: Classify, pictures: Path, tmp_path: Path, out: str, words: str
) -> None:
    done = classify(pictures, "--out", tmp_path / out)
    assert isinstance(done.exception, tables.TagTableError)
    assert words in str(done.exception)
