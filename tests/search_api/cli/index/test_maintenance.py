"""Snapshots, compaction and switching models from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embed.bundle import Bundle
from tests.search_api.cli.helpers import CLASSES, Env, run, status


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
        "pictures",
    ]
    path = Path(own["LOOKALIKE_VAR"]) / "snapshots" / "one" / "catalogue.sqlite"
    path.write_bytes(path.read_bytes()[:-1])
    done = run("index", "verify", env=own)
    assert done.returncode == 1
    assert "has SHA-256" in done.stdout
    assert run("index", "restore", "one", env=own).returncode == 1
    assert run("index", "snapshot", "one", "--delete", env=own).returncode == 0


def test_a_kind_that_is_refused(own: Env) -> None:
    for command in ("compact", "build"):
        done = run("index", command, "--kind", "IVF4,PQ2x24", env=own)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith(
            "lookalike: kind is 'IVF4,PQ2x24'; a PQ of 24 bits; expected 4 to 12"
        )
    assert run("index", "compact", env=own).returncode == 0
    assert status(own)["kind"] == "exact"


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
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
