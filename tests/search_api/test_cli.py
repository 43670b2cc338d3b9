"""The command line, as a stranger uses it, with a tiny model that it trained itself."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from embed.bundle import Bundle
from embed.pictures import encode_png
from embed.scenes import render
from search_api.cli import main

CLASSES = ("boat", "house", "tree")
EACH = 8

Env = dict[str, str]


@dataclass(frozen=True)
class Done:
    """What a finished command left behind."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: object, env: Env | None = None) -> Done:
    """Run `lookalike` in this process, with only the given LOOKALIKE_ settings."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    try:
        with (
            mock.patch.object(sys, "argv", ["lookalike", *map(str, arguments)]),
            mock.patch.dict(os.environ, clean(env or {}), clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as exit_,
        ):
            main()
    finally:
        torch.set_flush_denormal(False)  # `train` sets it for its process
    code = exit_.value.code
    assert isinstance(code, int)
    return Done(code, *(f.buffer.getvalue().decode() for f in (out, err)))  # type: ignore[attr-defined]


def clean(settings: Env) -> Env:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LOOKALIKE_")}
    quick = {"OMP_NUM_THREADS": "1", "LOOKALIKE_DRAIN_SECONDS": "0.1"}
    return {**kept, **quick, **settings}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for label in CLASSES:
        for seed in range(EACH):
            path = root / label / f"{seed}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode_png(render(label, seed)))
    return root


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run trained by the command itself on the 24 scenes."""
    out = tmp_path_factory.mktemp("runs") / "scenes"
    done = run("train", "--data", pictures, "--epochs", 3, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["split"] == "validation"
    assert report["classes"] == list(CLASSES)
    return out


@pytest.fixture(scope="module")
def store(pictures: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Env:
    """Settings of an instance whose index is built."""
    env = {
        "LOOKALIKE_DATA": str(pictures),
        "LOOKALIKE_VAR": str(tmp_path_factory.mktemp("store") / "var"),
        "LOOKALIKE_BUNDLE": str(trained / "bundle"),
    }
    done = run("index", "build", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "generation": 1,
        "total": 24,
        "embedded": 24,
        "kept": 0,
        "removed": 0,
        "skipped": {},
    }
    return env


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


def test_resume_of_a_finished_run_changes_nothing(trained: Path, pictures: Path) -> None:
    before = (trained / "bundle" / "weights.safetensors").read_bytes()
    done = run("train", "--data", pictures, "--resume", trained)
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


def test_index_status_and_verify(store: Env) -> None:
    status = json.loads(run("index", "status", "--json", env=store).stdout)
    assert status["pictures"] == status["indexed"] == 24
    assert status["corpus"] == store["LOOKALIKE_DATA"]
    assert status["labels"] == {"boat": 8, "house": 8, "tree": 8}
    assert status["model"] == Bundle.load(Path(store["LOOKALIKE_BUNDLE"])).digest
    text = run("index", "status", env=store).stdout
    assert re.search(r"^pictures +24$", text, re.MULTILINE)
    verify = json.loads(run("index", "verify", "--json", env=store).stdout)
    assert verify["ok"] is True
    assert [finding["part"] for finding in verify["findings"]][-1] == "catalogue"


def test_verify_finds_a_flipped_byte(store: Env, tmp_path: Path) -> None:
    env = {**store, "LOOKALIKE_VAR": str(tmp_path / "var")}
    assert run("index", "build", env=env).returncode == 0
    (path,) = (tmp_path / "var").glob("generations/*/index.faiss")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    done = run("index", "verify", "--json", env=env)
    assert done.returncode == 1
    findings = json.loads(done.stdout)["findings"]
    assert [finding["ok"] for finding in findings] == [False, True]
    assert "index.faiss" in findings[0]["problem"]
    server = Server("serve", env)
    assert server.get("/v1/index")["generation"] == 2
    _, stderr = server.stop()
    assert "index.faiss: has SHA-256" in stderr
    assert "Rebuilt from the catalogue: generation 2 with 24 pictures." in stderr


def test_a_damaged_catalogue_is_refused_at_the_start(store: Env, tmp_path: Path) -> None:
    env = {**store, "LOOKALIKE_VAR": str(tmp_path / "var")}
    assert run("index", "build", env=env).returncode == 0
    path = tmp_path / "var" / "catalogue.sqlite"
    data = path.read_bytes()
    at = data.rindex(b"boat/3.png")
    path.write_bytes(data[:at] + b"B" + data[at + 1 :])
    serve = run("serve", "--port", 0, env=env)
    assert serve.returncode == 1
    assert serve.stderr.count("\n") == 1
    assert "catalogue.sqlite" in serve.stderr


def test_search(store: Env, pictures: Path) -> None:
    image = pictures / "house" / "2.png"
    done = run("search", image, "--limit", 4, "--json", env=store)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(answer["points"]) == 4
    assert answer["points"][0]["score"] == pytest.approx(1.0, abs=1e-3)
    assert sum(answer["prediction"]["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
    text = run("search", image, "--limit", 4, env=store).stdout
    assert text.startswith("class  ")
    assert len(text.splitlines()) == 4 + 4


def test_search_by_stored_ids_and_in_other_ways(store: Env, pictures: Path) -> None:
    def answer(*args: object) -> dict[str, Any]:
        done = run("search", *args, "--json", env=store)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    image = pictures / "house" / "2.png"
    first = answer(image, "--limit", 1)["points"][0]["id"]
    similar = answer(first, "--limit", 24)["points"]
    assert first not in {point["id"] for point in similar}
    assert len(similar) == 23
    houses = '{"must": [{"key": "label", "match": {"value": "house"}}]}'
    found = answer(image, "--filter", houses, "--threshold", -1, "--offset", 1, "--limit", 24)
    assert {point["payload"]["label"] for point in found["points"]} == {"house"}
    groups = answer(first, "--group-by", "label", "--group-size", 1)["groups"]
    assert {group["value"] for group in groups} == set(CLASSES)
    assert all(len(group["points"]) == 1 for group in groups)
    varied = answer(image, "--diversity", 1, "--candidates", 10, "--limit", 2)["points"]
    assert varied[0]["id"] == first
    boat = pictures / "boat" / "1.png"
    both = answer(image, "--like", first, "--unlike", boat, "--strategy", "best_score")
    assert first not in {point["id"] for point in both["points"]}
    text = run("search", first, "--group-by", "label", env=store).stdout
    assert "house:\n" in text


def test_classify_goes_on_after_a_bad_picture(store: Env, tmp_path: Path) -> None:
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


class Server:
    """A `lookalike up` or `serve` in a process of its own."""

    def __init__(self, command: str, env: Env) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "search_api.cli", command, "--port", "0"],
            env=clean(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found is None:
            self.process.kill()
            raise AssertionError(line + self.process.communicate()[1])
        self.url = found[0]

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return json.loads(response.read())

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        _, stderr = self.process.communicate(timeout=30)
        return self.process.returncode, stderr


def test_serve_answers_and_stops_cleanly(store: Env) -> None:
    server = Server("serve", store)
    try:
        assert server.get("/v1/index")["count"] == 24
    finally:
        code, stderr = server.stop()
    assert code == 0
    assert "Traceback" not in stderr
    events = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    assert "draining" in [event["message"] for event in events]
    (request,) = [event for event in events if event["message"] == "request"]
    assert (request["route"], request["status"]) == ("/v1/index", 200)


@pytest.fixture
def fresh(store: Env, tmp_path: Path) -> Iterator[Env]:
    yield {**store, "LOOKALIKE_VAR": str(tmp_path / "var")}


def test_up_builds_what_is_missing_once(fresh: Env) -> None:
    server = Server("up", fresh)
    built = server.get("/v1/index")
    _, first = server.stop()
    assert built["count"] == 24
    assert "24 embedded now" in first
    server = Server("up", fresh)
    assert server.get("/v1/index") == built
    _, second = server.stop()
    assert "embedded now" not in second


def test_up_with_another_model_embeds_again(fresh: Env, trained: Path, pictures: Path) -> None:
    Server("up", fresh).stop()
    other = trained.parent / "other"
    done = run("train", "--data", pictures, "--epochs", 1, "--seed", 7, "--out", other)
    assert done.returncode == 0, done.stderr
    env = {**fresh, "LOOKALIKE_BUNDLE": str(other / "bundle")}
    refused = run("serve", "--port", 0, env=env)
    assert refused.returncode == 2
    ours = Bundle.load(trained / "bundle").digest
    theirs = Bundle.load(other / "bundle").digest
    assert ours in refused.stderr
    assert theirs in refused.stderr
    server = Server("up", env)
    assert server.get("/v1/index")["model"] == theirs
    _, stderr = server.stop()
    assert "24 embedded now" in stderr
