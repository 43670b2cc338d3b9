"""`lookalike shape`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embed.architecture import Backbone
from embed.bundle import Bundle
from tests.search_api.cli.helpers import CLASSES, put, run

pytestmark = pytest.mark.slow


def test_a_trained_model_is_shaped(old: Path, tmp_path: Path) -> None:
    pictures = old.parents[1] / "pictures"
    shaped = ("shape", old, "--data", pictures, "--likeness", 8, "--weight", 0.5)
    done = run(*shaped, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    plain, bundle = Bundle.load(old), Bundle.load(tmp_path / "run" / "bundle")
    assert bundle.classes == plain.classes
    assert bundle.architecture.likeness == 8
    assert bundle.training["recipe"]["shaping"]["weight"] == 0.5
    assert bundle.metrics["accuracy"] == plain.metrics["accuracy"]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["search"]["dimension"] == len(CLASSES) + 8
    assert "<html" in (tmp_path / "run" / "report.html").read_text()
    plain_too = ("evaluate", "--bundle", tmp_path / "run" / "bundle", "--data", pictures, "--plain")
    done = run(*plain_too, "--json", "--out", tmp_path / "plain")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["beside"]["plain"]["dimension"] == 40
    again = run("shape", tmp_path / "run" / "bundle", "--data", pictures, "--out", tmp_path / "two")
    assert again.returncode == 2
    assert "likeness is 256; expected at most 128" in again.stderr.splitlines()[-1]
    assert not (tmp_path / "two").exists()
    done = run(*plain_too, "--compare", f"plain={old}")
    assert done.returncode == 2
    assert "--plain and --compare plain=FOLDER name the same column" in done.stderr
    again = run("shape", tmp_path / "run" / "bundle", *shaped[2:], "--out", tmp_path / "two")
    assert again.returncode == 0, again.stderr
    assert Bundle.load(tmp_path / "two" / "bundle").architecture == bundle.architecture


def test_a_model_is_shaped_on_its_own_classes(old: Path, tmp_path: Path) -> None:
    for label in ("balloon", "car"):
        put(tmp_path / "pictures", label, range(4))
    done = run("shape", old, "--data", tmp_path / "pictures", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "the classes boat, house, tree, the data has balloon, car" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_imported_network_gets_an_embedding_of_another_dimension(
    network: Path, probed: Path, tmp_path: Path
) -> None:
    pictures = probed / "pictures"
    done = run(
        *("shape", network, "--data", pictures, "--dimension", 12, "--out", tmp_path / "one")
    )
    assert done.returncode == 0, done.stderr
    plain, bundle = Bundle.load(network), Bundle.load(tmp_path / "one" / "bundle")
    assert isinstance(bundle.architecture, Backbone)
    assert (bundle.architecture.projection, bundle.classes) == (12, plain.classes)
    assert bundle.digest != plain.digest
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert (metrics["search"]["dimension"], metrics["accuracy"]) == (12, None)
    done = run(
        *("shape", probed / "run" / "bundle", "--data", pictures, "--dimension", 12),
        *("--out", tmp_path / "two"),
    )
    assert done.returncode == 0, done.stderr
    again = Bundle.load(tmp_path / "two" / "bundle")
    assert again.classes == CLASSES
    assert again.weights["head.weight"].shape == (3, 12)
    assert again.metrics["accuracy"] > 0.5


@pytest.mark.parametrize(
    ("model", "option", "words"),
    [
        (
            "network",
            "--likeness",
            "--likeness cannot shape timm:test_efficientnet; use --dim",
        ),
        ("old", "--dimension", "--dimension cannot shape whitened-resnet; use --likeness"),
    ],
)
def test_each_kind_of_network_has_its_own_options(
    model: str, option: str, words: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bundle = request.getfixturevalue(model)
    done = run("shape", bundle, "--data", tmp_path, option, 8, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert words in done.stderr


def test_a_dimension_that_does_not_fit_is_refused(
    network: Path, probed: Path, tmp_path: Path
) -> None:
    shape = ("shape", network, "--data", probed / "pictures", "--out", tmp_path / "run")
    done = run(*shape)
    assert done.returncode == 2
    assert "the dimension is 256; expected 1 to" in done.stderr.splitlines()[-1]
