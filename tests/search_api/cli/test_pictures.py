"""`lookalike add` and `lookalike delete`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.search_api.cli.helpers import Env, run, status


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
    ],
)
def test_wrong_use(own: Env, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = run(*(a.replace("{tmp}", str(tmp_path)) for a in arguments), env=own)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert status(own)["pictures"] == 24
