"""`lookalike add` and `lookalike delete`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embed.pictures import encode_png
from embed.scenes import render
from tests.search_api.cli.helpers import Env, run, status


def test_add_and_delete(own: Env, arrivals: Path) -> None:
    done = run("add", arrivals, "--json", env=own)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "added": {"boat/new.png": 25, "tree/new.png": 26},
        **{key: {} for key in ("replaced", "updated", "unchanged", "failed", "skipped")},
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


def test_adding_never_overwrites(own: Env, tmp_path: Path) -> None:
    """Two cameras number their pictures alike."""
    for name, seed in (("x", 90), ("y", 91)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "IMG_0001.png").write_bytes(encode_png(render("boat", seed)))
    x, y = (tmp_path / name for name in ("x", "y"))
    for folder in (x, y):
        done = run("add", folder, "--label", folder.name, env=own)
        assert (done.returncode, done.stderr) == (0, "Added 1 picture to the store.\n")
    assert status(own)["labels"] == {"boat": 8, "house": 8, "tree": 8, "x": 1, "y": 1}

    # Again, by whatever path: the same pictures, with their labels.
    for paths in ((x, y), (x / "IMG_0001.png", y / ".." / "y"), (x, x, x / "IMG_0001.png", y)):
        done = run("add", *paths, env=own)
        assert (done.returncode, done.stderr) == (
            0,
            "Added 0 pictures to the store, 2 unchanged.\n",
        )
    done = run("add", x, "--label", "hat", env=own)
    assert done.stderr == "Added 0 pictures to the store, 1 updated.\n"

    # A file that has changed.
    (x / "IMG_0001.png").write_bytes(encode_png(render("tree", 92)))
    done = run("add", x, y, env=own)
    assert done.returncode == 1
    name = f"{x}/IMG_0001.png"
    assert f"{name}: 'IMG_0001.png' is stored already with other content" in done.stderr
    assert "pass --replace" in done.stderr
    assert "Added 0 pictures to the store, 1 unchanged.\n" in done.stderr
    done = run("add", x, y, "--replace", "--json", env=own)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["replaced"] == {"IMG_0001.png": 25}
    assert found["unchanged"] == {"y/IMG_0001.png": 26}
    assert status(own)["labels"] == {"boat": 8, "house": 8, "tree": 8, "hat": 1, "y": 1}
    assert run("delete", "--key", "y/IMG_0001.png", env=own).returncode == 0


def test_a_key_of_ones_own(own: Env, arrivals: Path) -> None:
    one, other = (arrivals / label / "new.png" for label in ("boat", "tree"))
    done = run("add", one, "--key", "cat-1", "--prefix", "shop/", "--json", env=own)
    assert json.loads(done.stdout)["added"] == {"shop/cat-1": 25}
    done = run("add", other, "--key", "shop/cat-1", env=own)
    assert (done.returncode, "as picture 25; pass --replace" in done.stderr) == (1, True)
    done = run("add", other, "--key", "shop/cat-1", "--replace", env=own)
    assert done.stderr == "Added 0 pictures to the store, 1 replaced.\n"
    for paths in ((arrivals,), (one, other)):
        done = run("add", *paths, "--key", "k", env=own)
        assert (done.returncode, "expected PATH to be one file" in done.stderr) == (2, True)


def test_undo_and_purge(own: Env, arrivals: Path) -> None:
    assert run("add", arrivals, env=own).returncode == 0
    done = run("delete", "--key", "boat/new.png", "--key", "tree/new.png", env=own)
    assert (
        "Deleted 2 pictures; `lookalike delete --undo` brings them back for 30 days." in done.stderr
    )
    done = run("purge", 99, env=own)
    assert (done.returncode, done.stderr) == (0, "Purged 0 pictures and 0 files.\n")
    done = run("delete", "--undo", env=own)
    assert done.stderr == "Restored 2 pictures.\n"
    assert status(own)["labels"] == {"boat": 9, "house": 8, "tree": 9}
    assert run("delete", "--undo", env=own).stderr == "The trash is empty.\n"

    assert run("index", "snapshot", "monday", env=own).returncode == 0
    run("delete", 3, 25, 26, env=own)
    done = run("purge", "--list", env=own)
    assert [line.split("\t")[:3] for line in done.stdout.splitlines()] == [
        ["3", "boat/2.png", "boat"],
        ["25", "key:boat/new.png", "boat"],
        ["26", "key:tree/new.png", "tree"],
    ]
    done = run("purge", 25, env=own)
    assert done.stderr == (
        "Purged 1 picture and 0 files.\nThe snapshot monday still holds 1 picture of them.\n"
        "Index files may hold their embeddings until the next `lookalike index compact`.\n"
    )
    done = run("purge", "--all", "--json", env=own)
    assert json.loads(done.stdout) == {
        "purged": 2,
        "files": 0,
        "kept_by": {"monday": 2},
        "pending": False,
        "indexed": True,
    }
    pictures = Path(own["LOOKALIKE_VAR"]) / "pictures"
    assert len(list(pictures.glob("??/*"))) == 2
    run("index", "snapshot", "monday", "--delete", env=own)
    assert list(pictures.glob("??/*")) == []
    run("delete", 4, env={**own, "LOOKALIKE_TRASH_DAYS": "0"})
    assert json.loads(run("purge", "--list", "--json", env=own).stdout) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["delete"], ["nothing to delete"]),
        (["delete", "--undo", "1"], ["expected no ids"]),
        (["purge"], ["either ids, --all or --list"]),
        (["purge", "1", "--all"], ["either ids, --all or --list"]),
        (["delete", "999"], ["no such id: 999"]),
        (["delete", "1", "--filter", "{"], ["not JSON"]),
        (["delete", "1", "--filter", "{}"], ["would delete everything"]),
        (["delete", "--filter", '{"must": [{"should": []}]}'], ["would delete everything"]),
        (["delete", "1", "--filter", ""], ["not JSON"]),
        (["delete", "--filter", "[" * 100_000], ["not JSON", "too deep"]),
        (["delete", "--filter", '{"must": [], "must": [{"has_id": [1]}]}'], ["'must' twice"]),
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


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        (
            "MAX_ADDED_PICTURES",
            "1",
            "adding 2 pictures exceeds the quota of 1 pictures: 0 are stored",
        ),
        ("MAX_ADDED_BYTES", "10", "exceeds the quota of 10 bytes"),
        ("MIN_FREE_BYTES", str(2**62), "nothing is written"),
    ],
)
def test_quotas_apply_to_commands(
    own: Env, arrivals: Path, variable: str, value: str, words: str
) -> None:
    env = {**own, f"LOOKALIKE_{variable}": value, "LOOKALIKE_MIN_FREE_SHARE": "1"}
    if variable != "MIN_FREE_BYTES":
        env["LOOKALIKE_MIN_FREE_BYTES"] = "0"
    done = run("add", arrivals, env=env)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("lookalike: ")]
    assert words in line
    assert status(own)["pictures"] == 24
    assert not list((Path(own["LOOKALIKE_VAR"]) / "pictures").glob("??/*"))
    if variable == "MIN_FREE_BYTES":
        for command in (("index", "snapshot", "s"), ("index", "compact"), ("classifier", "fit")):
            done = run(*command, env=env)
            assert (done.returncode, words in done.stderr) == (1, True), done.stderr
        assert run("delete", 1, env=env).returncode == 0
        assert run("purge", "--all", env=env).returncode == 0
