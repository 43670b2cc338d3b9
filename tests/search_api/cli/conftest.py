"""A tiny model that the command trained itself on 24 rendered scenes, and a store of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from embed.pictures import encode_png
from embed.scenes import render
from tests.search_api.cli.helpers import CLASSES, EACH, Env, put, run
from tests.train.helpers import imported


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    for label in CLASSES:
        for seed in range(EACH):
            path = root / label / f"{seed}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode_png(render(label, seed)))
    return root


@pytest.fixture(scope="session")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run trained by the command itself on the 24 scenes."""
    out = tmp_path_factory.mktemp("runs") / "scenes"
    quick = ("--recipe", "quick", "--epochs", 3)
    done = run("train", "--data", scenes, *quick, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["split"] == "validation"
    assert report["classes"] == list(CLASSES)
    return out


@pytest.fixture(scope="session")
def store(scenes: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Env:
    """Settings of an instance whose index is built; tests must not change it."""
    env = {
        "LOOKALIKE_DATA": str(scenes),
        "LOOKALIKE_VAR": str(tmp_path_factory.mktemp("store") / "var"),
        "LOOKALIKE_BUNDLE": str(trained / "bundle"),
    }
    done = run("index", "build", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "generation": 1,
        "total": 24,
        "embedded": 24,
        "changed": 0,
        "kept": 0,
        "moved": 0,
        "removed": 0,
        "unreachable": 0,
        "skipped": {},
        "skipped_kinds": {},
    }
    return env


@pytest.fixture
def own(store: Env, tmp_path: Path) -> Env:
    """The same with a copy of the store, which a test may change."""
    folder = tmp_path / "own"
    shutil.copytree(store["LOOKALIKE_VAR"], folder)
    return {**store, "LOOKALIKE_VAR": str(folder)}


@pytest.fixture
def arrivals(tmp_path: Path) -> Path:
    """Two pictures that are not in the store."""
    folder = tmp_path / "arrivals"
    for label, seed in (("boat", 90), ("tree", 91)):
        (folder / label).mkdir(parents=True)
        (folder / label / "new.png").write_bytes(encode_png(render(label, seed)))
    return folder


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a smaller network, trained on ten pictures of each class by a recipe file."""
    root = tmp_path_factory.mktemp("old")
    for label in CLASSES:
        put(root / "pictures", label, range(10))
    recipe = {"widths": [24, 32, 40], "optimiser": "muon", "lr": 0.17, "epochs": 2}
    (root / "recipe.json").write_text(json.dumps(recipe))
    done = run(
        *("train", "--data", root / "pictures", "--recipe", root / "recipe.json"),
        *("--out", root / "run"),
    )
    assert done.returncode == 0, done.stderr
    return root / "run" / "bundle"


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a tiny imported network, which knows day and night."""
    folder = tmp_path_factory.mktemp("network")
    imported().save(folder)
    return folder


@pytest.fixture(scope="session")
def probed(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the default recipe on that network: 20 scenes of each class, and 3 of another."""
    root = tmp_path_factory.mktemp("probed")
    for label in CLASSES:
        put(root / "pictures", label, range(20))
    put(root / "pictures", "car", range(3))
    done = run(
        *("train", "--data", root / "pictures", "--init", network, "--out", root / "run"),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    (root / "report.json").write_text(done.stdout)
    (root / "said.txt").write_text(done.stderr)
    return root
