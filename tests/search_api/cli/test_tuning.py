"""`lookalike tune`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embed.bundle import Bundle
from tests.search_api.cli.helpers import run

pytestmark = pytest.mark.slow


def test_tune_makes_a_recipe_that_trains(old: Path, tmp_path: Path) -> None:
    pictures = old.parents[1] / "pictures"
    tuned = ("tune", "--data", pictures, "--recipe", old.parents[1] / "recipe.json")
    study = ("--epochs", 1, "--trials", 2, "--pictures", 20, "--out", tmp_path / "study")
    done = run(*tuned, *study, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["recipe"] == json.loads((tmp_path / "study" / "best.json").read_text())
    assert "trial 1: complete" in done.stderr
    assert "on 21 pictures" in done.stderr
    assert "<html" in (tmp_path / "study" / "report.html").read_text()
    again = run(*tuned, *study)
    assert again.returncode == 0, again.stderr
    assert "trial 2" not in again.stderr
    trained = run(
        *("train", "--data", pictures, "--recipe", tmp_path / "study" / "best.json"),
        *("--out", tmp_path / "run"),
    )
    assert trained.returncode == 0, trained.stderr
    recipe = Bundle.load(tmp_path / "run" / "bundle").training["recipe"]
    assert recipe["lr"] == report["recipe"]["lr"]
    other = run(*tuned, "--epochs", 2, "--out", tmp_path / "study")
    assert other.returncode == 2
    assert other.stderr.splitlines()[-1].endswith("choose another --out")


def test_tune_without_optuna(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = run("tune", "--data", old.parents[1] / "pictures")
    assert done.returncode == 2
    assert "pip install 'lookalike[tune]'" in done.stderr


def test_recipes_on_top_of_imported_networks_are_not_tuned(tmp_path: Path) -> None:
    done = run("tune", "--recipe", "probe", "--out", tmp_path / "study")
    assert done.returncode == 2
    assert "the recipe 'probe' trains on top of an imported network" in done.stderr
    assert not (tmp_path / "study").exists()
