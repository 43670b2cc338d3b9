"""`lookalike train` and `lookalike evaluate`, up to a served search on pictures of one's own."""

from __future__ import annotations

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
    out = tmp_path / "run"
    done = run(
        *("train", "--data", pictures, "--init", old, "--size", 48, "--epochs", 3),
        *("--out", out, "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert "(from 4 balloon to 14 road)" in done.stderr
    assert f"the model in {old}" in done.stderr
    assert "1 picture could not be read" in done.stderr
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
