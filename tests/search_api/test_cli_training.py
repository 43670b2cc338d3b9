"""`lookalike train` on pictures of one's own, from a trained model, as far as a served search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embed.bundle import Bundle
from embed.pictures import encode_png
from embed.scenes import render
from tests.search_api.test_cli import Server, run

OLD, NEW = ("boat", "house", "tree"), ("balloon", "car", "flower", "road")


def put(root: Path, label: str, seeds: range) -> list[str]:
    names = [f"{label}/{seed}.png" for seed in seeds]
    for name, seed in zip(names, seeds, strict=True):
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode_png(render(label, seed)))
    return names


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle trained on three scenes."""
    root = tmp_path_factory.mktemp("old")
    for label in OLD:
        put(root / "pictures", label, range(10))
    recipe = {"widths": [24, 32, 40], "optimiser": "muon", "lr": 0.17, "epochs": 2}
    (root / "recipe.json").write_text(json.dumps(recipe))
    done = run(
        *("train", "--data", root / "pictures", "--recipe", root / "recipe.json"),
        *("--out", root / "run"),
    )
    assert done.returncode == 0, done.stderr
    return root / "run" / "bundle"


def test_a_folder_is_learned_indexed_and_served(old: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for label, count in zip(NEW, (6, 10, 10, 20), strict=True):
        put(pictures, label, range(count))
    (pictures / "car" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    out = tmp_path / "run"
    done = run(
        *("train", "--data", pictures, "--init", old, "--size", 48, "--epochs", 3),
        *("--out", out, "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert "(from 4 balloon to 14 road)" in done.stderr
    assert f"the model in {old}" in done.stderr
    assert "1 pictures could not be read" in done.stderr
    assert list(json.loads((out / "skipped.json").read_text())) == ["car/broken.png"]
    report = json.loads(done.stdout)
    assert (report["split"], report["classes"]) == ("test", list(NEW))
    bundle = Bundle.load(out / "bundle")
    assert bundle.classes == NEW
    assert bundle.preprocess.input_size == 48
    assert bundle.training["init"] == Bundle.load(old).digest
    assert bundle.training["recipe"]["name"] == "finetune"
    env = {
        "LOOKALIKE_DATA": str(pictures),
        "LOOKALIKE_BUNDLE": str(out / "bundle"),
        "LOOKALIKE_VAR": str(tmp_path / "var"),
    }
    server = Server("up", env)
    try:
        state = server.get("/v1/index")
        assert (state["count"], state["model"]) == (46, bundle.digest)
        similar = server.get("/v1/images/1/similar?limit=45")["points"]
        assert len(similar) == 45
        assert {point["payload"]["label"] for point in similar} == set(NEW)
    finally:
        code, stderr = server.stop()
    assert code == 0, stderr


def test_a_table_is_learned_and_indexed(old: Path, tmp_path: Path) -> None:
    rows = ["file,label,split"]
    for label in NEW[:2]:
        for number, name in enumerate(put(tmp_path, label, range(8))):
            rows.append(f"{name},{label.upper()},{('train', 'val', 'test')[max(0, number - 5)]}")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(rows))
    done = run(
        *("train", "--data", table, "--init", old, "--epochs", 1),
        *("--out", tmp_path / "run", "--json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["split"], report["pictures"]) == ("test", 2)
    assert report["classes"] == ["BALLOON", "CAR"]
    built = run(
        *("index", "build", "--data", table, "--bundle", tmp_path / "run" / "bundle"),
        *("--var", tmp_path / "var", "--json"),
    )
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["total"] == 16


def test_print_recipe(old: Path) -> None:
    def printed(*arguments: object) -> dict:
        done = run("train", "--print-recipe", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert (printed()["name"], printed()["init"]) == ("quick", None)
    tuned = printed("--init", old, "--size", 64)
    assert (tuned["name"], tuned["init"], tuned["size"]) == ("finetune", str(old), 64)
    assert printed("--recipe", "finetune")["init"] == "pretrained"
    assert printed("--recipe", "finetune", "--init", "none")["init"] is None
    assert printed("--recipe", "quick", "--init", "pretrained")["name"] == "quick"


def test_another_model_stands_beside(old: Path, tmp_path: Path) -> None:
    done = run(
        *("evaluate", "--data", old.parents[1] / "pictures", "--bundle", old),
        *("--beside", f"same={old}", "--out", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    same = metrics["beside"]["same"]
    assert same["dimension"] == metrics["search"]["dimension"]
    mean = same["known"]["mean_average_precision"]
    assert mean == pytest.approx(metrics["retrieval"]["mean_average_precision"], abs=1e-5)
    assert '<th class="n">same</th>' in (tmp_path / "report.html").read_text()
    for wrong in ("same", f"={old}", "same="):
        done = run("evaluate", "--bundle", old, "--beside", wrong)
        assert done.returncode == 2
        assert "expected NAME=FOLDER" in done.stderr


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
    assert metrics["search"]["dimension"] == len(OLD) + 8
    assert "<html" in (tmp_path / "run" / "report.html").read_text()
    beside = ("evaluate", "--bundle", tmp_path / "run" / "bundle", "--data", pictures, "--plain")
    done = run(*beside, "--json", "--out", tmp_path / "plain")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["beside"]["plain"]["dimension"] == 40
    again = run("shape", tmp_path / "run" / "bundle", "--data", pictures, "--out", tmp_path / "two")
    assert again.returncode == 2
    assert "likeness is 256; expected at most 128" in again.stderr.splitlines()[-1]
    assert not (tmp_path / "two").exists()
    done = run(*beside, "--beside", f"plain={old}")
    assert done.returncode == 2
    assert "--plain and --beside plain=FOLDER; expected one of them" in done.stderr
    again = run("shape", tmp_path / "run" / "bundle", *shaped[2:], "--out", tmp_path / "two")
    assert again.returncode == 0, again.stderr
    assert Bundle.load(tmp_path / "two" / "bundle").architecture == bundle.architecture


def test_a_model_is_shaped_on_its_own_classes(old: Path, tmp_path: Path) -> None:
    for label in NEW[:2]:
        put(tmp_path / "pictures", label, range(4))
    done = run("shape", old, "--data", tmp_path / "pictures", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "the model knows the classes boat, house, tree, the data has balloon, car" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--init", "{tmp}"], ["no model in {tmp}", "bundle.json"]),
        (["--size", "16"], ["--size", "16"]),
        (["--data", "{tmp}/bad.csv"], ["bad.csv, line 2", "expected 2"]),
        (["--data", "{tmp}/none.csv"], ["none.csv", "does not exist"]),
        (["--data", "{tmp}/notes.txt"], ["notes.txt is not a folder", "CSV"]),
        (["--resume", "{tmp}", "--init", "pretrained"], ["--resume"]),
    ],
)
def test_wrong_use(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("file,label\na.png\n")
    (tmp_path / "notes.txt").write_text("file,label\na.png\n")
    arguments = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    done = run("train", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word.replace("{tmp}", str(tmp_path)) in done.stderr


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
    assert other.stderr.splitlines()[-1].endswith("name another --out")


def test_tune_without_optuna(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = run("tune", "--data", old.parents[1] / "pictures")
    assert done.returncode == 2
    assert "pip install 'lookalike[tune]'" in done.stderr
