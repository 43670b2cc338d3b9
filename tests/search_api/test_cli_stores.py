"""Adding, deleting, snapshots and changing the model from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embed.bundle import Bundle
from embed.pictures import encode_png
from embed.scenes import render
from tests.search_api.test_cli import CLASSES, Env, pictures, run, store, trained

__all__ = ["pictures", "store", "trained"]


@pytest.fixture
def own(store: Env, tmp_path: Path) -> Env:
    env = {**store, "LOOKALIKE_VAR": str(tmp_path / "own")}
    assert run("index", "build", env=env).returncode == 0
    return env


@pytest.fixture
def arrivals(tmp_path: Path) -> Path:
    folder = tmp_path / "arrivals"
    for label, seed in (("boat", 90), ("tree", 91)):
        (folder / label).mkdir(parents=True)
        (folder / label / "new.png").write_bytes(encode_png(render(label, seed)))
    return folder


def status(env: Env) -> dict:
    return json.loads(run("index", "status", "--json", env=env).stdout)


def test_add_and_delete(own: Env, arrivals: Path) -> None:
    done = run("add", arrivals, "--json", env=own)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "added": {"boat/new.png": 25, "tree/new.png": 26},
        "failed": {},
    }
    (arrivals / "bad.png").write_bytes(b"rubbish")
    done = run("add", arrivals, "--label", "x", env=own)
    assert done.returncode == 1
    assert "bad.png: " in done.stderr
    assert "not a picture" in done.stderr
    assert status(own)["labels"] == {"boat": 8, "house": 8, "tree": 8, "x": 2}
    done = run("search", arrivals / "boat" / "new.png", "--limit", 1, "--json", env=own)
    assert json.loads(done.stdout)["points"][0]["id"] == 25
    done = run("delete", 1, "--key", "tree/new.png", "--json", env=own)
    assert json.loads(done.stdout) == {"deleted": 2}
    where = '{"must": [{"key": "label", "match": {"value": "house"}}]}'
    assert json.loads(run("delete", "--filter", where, "--json", env=own).stdout)["deleted"] == 8
    assert run("index", "build", env=own).returncode == 0
    assert status(own)["pictures"] == 16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["delete"], ["nothing to delete"]),
        (["delete", "999"], ["no such id: 999"]),
        (["delete", "1", "--filter", "{"], ["not JSON"]),
        (["delete", "1", "--filter", "{}"], ["would delete everything"]),
        (["delete", "--key", "none"], ["'none'"]),
        (["delete", "1", "--var", "{tmp}/none"], ["no store"]),
        (["add", "{tmp}/none"], ["does not exist"]),
        (["index", "restore", "none"], ["no snapshot 'none'"]),
        (["index", "snapshot", "../x"], ["'../x'"]),
        (["index", "snapshot", "--delete"], ["NAME"]),
        (["index", "diff"], ["index model BUNDLE"]),
        (["index", "model", "{tmp}"], ["bundle.json"]),
    ],
)
def test_wrong_use(own: Env, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = run(*(a.replace("{tmp}", str(tmp_path)) for a in arguments), env=own)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert status(own)["pictures"] == 24


def test_snapshots(own: Env, arrivals: Path) -> None:
    made = json.loads(run("index", "snapshot", "one", "--json", env=own).stdout)
    assert (made["name"], made["count"]) == ("one", 24)
    assert "one " in run("index", "snapshot", "--list", env=own).stdout
    assert run("add", arrivals, env=own).returncode == 0
    assert run("delete", 1, env=own).returncode == 0
    done = run("index", "restore", "one", "--json", env=own)
    assert json.loads(done.stdout) == {"snapshot": "one", "changed": 1, "deleted": 2}
    assert json.loads(run("index", "compact", "--json", env=own).stdout) == {
        "generation": 2,
        "count": 24,
    }
    verified = json.loads(run("index", "verify", "--json", env=own).stdout)
    assert [f["part"] for f in verified["findings"]] == [
        "generation 1",
        "generation 2",
        "snapshot one",
        "catalogue",
    ]
    path = Path(own["LOOKALIKE_VAR"]) / "snapshots" / "one" / "catalogue.sqlite"
    path.write_bytes(path.read_bytes()[:-1])
    done = run("index", "verify", env=own)
    assert done.returncode == 1
    assert "has SHA-256" in done.stdout
    assert run("index", "restore", "one", env=own).returncode == 1
    assert run("index", "snapshot", "one", "--delete", env=own).returncode == 0


def test_changing_the_model(own: Env, trained: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(trained / "bundle")
    weights = {
        name: array + array.dtype.type(0.01) if array.dtype.kind == "f" else array
        for name, array in bundle.weights.items()
    }
    other = Bundle(bundle.architecture, bundle.preprocess, CLASSES, weights, bundle.temperature)
    other.save(tmp_path / "other")
    done = run("index", "model", tmp_path / "other", "--json", env=own)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    digest = Bundle.load(tmp_path / "other").digest
    assert (report["model"], report["queries"]) == (digest, 24)
    assert 0 <= report["overlap"] <= 1
    assert status(own)["model"] == bundle.digest
    assert json.loads(run("index", "diff", "--json", env=own).stdout) == report
    assert run("index", "snapshot", "old", env=own).returncode == 0
    done = run("index", "model", tmp_path / "other", "--switch", env=own)
    assert done.returncode == 0, done.stderr
    assert status(own)["model"] == digest
    done = run("index", "restore", "old", env=own)
    assert done.returncode == 2
    assert f"made with the model {bundle.digest}, the store has {digest}" in done.stderr
    # From now on the store knows its model by itself.
    env = {k: v for k, v in own.items() if k != "LOOKALIKE_BUNDLE"}
    picture = next(Path(own["LOOKALIKE_DATA"]).rglob("*.png"))
    done = run("search", picture, "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == digest


def test_embedding_in_shards_and_importing_them(store: Env, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    for shard in ("1/2", "2/2"):
        done = run("index", "embed", "--shard", shard, "--out", out, env=store)
        assert done.returncode == 0, done.stderr
    env = {**store, "LOOKALIKE_VAR": str(tmp_path / "var")}
    done = run("index", "import", out, "--json", env=env)
    assert json.loads(done.stdout) == {"imported": 24, "generation": 1}
    assert status(env)["labels"] == status(store)["labels"]
    for arguments in (["embed", "--shard", "3", "--out", out], ["import", tmp_path / "none"]):
        done = run("index", *arguments, env=env)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
