"""The command line over a store in milvus-lite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embed.pictures import encode_png
from embed.scenes import render
from tests.search_api.cli.helpers import Env, run


@pytest.fixture
def own(store: Env, tmp_path: Path) -> Env:
    pytest.importorskip("milvus_lite")
    return {
        **store,
        "LOOKALIKE_VAR": str(tmp_path / "own"),
        "LOOKALIKE_INDEX": "milvus",
        "MILVUS_URI": str(tmp_path / "lite.db"),
        "LOOKALIKE_PICTURES": str(tmp_path / "added"),
    }


def said(done) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_whole_way(own: Env, store: Env, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    assert run("index", "embed", "--shard", "1/1", "--out", out, env=own).returncode == 0
    assert said(run("index", "import", out, "--json", env=own)) == {"imported": 24, "generation": 1}
    # The folder knows where the rest of the store is.
    own = {"LOOKALIKE_VAR": own["LOOKALIKE_VAR"]}
    new = tmp_path / "new.png"
    new.write_bytes(encode_png(render("boat", 90)))
    added = said(run("add", new, "--label", "boat", "--json", env=own))["added"]["new.png"]
    found = said(run("search", new, "--limit", 2, "--json", env=own))
    assert found["points"][0]["id"] == added
    assert len(list((tmp_path / "added").glob("??/*"))) == 1
    status = said(run("index", "status", "--json", env=own))
    assert (status["pictures"], status["kind"], status["generation"]) == (25, "exact", 1)
    assert said(run("delete", "--key", "new.png", "--json", env=own)) == {"deleted": 1}
    assert said(run("index", "verify", "--json", env=own))["ok"]
    refused = run("index", "snapshot", "one", env=own)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "milvus-backup" in refused.stderr


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"MILVUS_URI": ""}, 2, "set MILVUS_URI"),
        ({"LOOKALIKE_MILVUS_PREFIX": "a-b"}, 2, "prefix is 'a-b'"),
        ({"LOOKALIKE_INDEX": "other"}, 2, "'other'"),
    ],
)
def test_wrong_settings(own: Env, changed: Env, code: int, words: str) -> None:
    done = run("index", "status", env={**own, **changed})
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
