"""`lookalike index embed` and `lookalike index import`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.search_api.cli.helpers import Env, run, status


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
