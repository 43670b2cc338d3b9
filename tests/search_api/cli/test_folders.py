"""What a folder holds: the same rules for every command, and nothing left out without a word."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from embed.corpus import FolderCorpus
from embed.pictures import encode_png
from embed.scenes import render
from search_api.cli.training import load
from tests.search_api.cli.helpers import Env, put, run
from train.recipe import QUICK

SKIPPED = (
    "Skipped 9 files: .mov 2, links 2, .cr2 1, empty files 1, hidden files 1, in @eaDir 1,"
    " names that are not UTF-8 1"
)


def latin1(root: Path) -> Path:
    return Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.png"))


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Three pictures, and nine files that are not taken."""
    root = tmp_path / "odd"
    put(root, "boat", range(2))
    (root / "boat" / "a\n\x1b[31m.png").write_bytes(encode_png(render("boat", 5)))
    for name in ("a.mov", "b.MOV", "c.cr2", ".hidden.png"):
        (root / name).write_bytes(b"something")
    (root / "empty.png").touch()
    (root / "@eaDir").mkdir()
    (root / "@eaDir" / "thumbnail.png").write_bytes(encode_png(render("boat", 6)))
    (root / "out").symlink_to(tmp_path)
    (root / "boat" / "up").symlink_to("..")
    latin1(root).write_bytes(encode_png(render("boat", 7)))
    return root


def test_a_build_counts_and_lists_what_it_skips(store: Env, odd: Path, tmp_path: Path) -> None:
    (odd / "boat" / "broken.png").write_bytes(b"rubbish")
    env = {**store, "LOOKALIKE_DATA": str(odd), "LOOKALIKE_VAR": str(tmp_path / "var")}
    done = run("index", "build", "--json", env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["total"], found["embedded"]) == (3, 3)
    assert found["skipped_kinds"] == {
        ".mov": 2,
        "links": 2,
        ".cr2": 1,
        "empty files": 1,
        "hidden files": 1,
        "in @eaDir": 1,
        "names that are not UTF-8": 1,
        "unreadable pictures": 1,
    }
    listed = json.loads((tmp_path / "var" / "skipped.json").read_text("utf-8"))
    assert listed == found["skipped"]
    assert sorted(listed) == [
        *(".hidden.png", "@eaDir", "a.mov", "b.MOV", "boat/broken.png", "boat/up", "c.cr2"),
        *("caf\\xe9.png", "empty.png", "out"),
    ]
    assert listed["c.cr2"] == "a camera RAW file; export it as JPEG, PNG or TIFF"
    assert "Skipped 10 files: .mov 2, links 2," in done.stderr
    # What was asked for at the first build is what the store goes on with.
    done = run("index", "build", "--program-folders", "--hidden", "--json", env=env)
    assert json.loads(done.stdout)["embedded"] == 1  # the hidden file is no picture


def test_add_skips_the_same(own: Env, odd: Path) -> None:
    done = run("add", odd, env=own)
    assert (done.returncode, done.stdout) == (0, "")
    assert f"{SKIPPED}; --json lists them with the reasons." in done.stderr.splitlines()
    assert "Added 3 pictures to the store." in done.stderr
    found = json.loads(run("add", odd, "--program-folders", "--json", env=own).stdout)
    assert list(found["added"]) == ["@eaDir/thumbnail.png"]
    assert len(found["unchanged"]) == 3
    assert found["skipped"][f"{odd}/caf\\xe9.png"] == "its name is not UTF-8; rename it"
    # A file that is named is what was meant: without it, the command has failed.
    done = run("add", latin1(odd), odd / "boat" / "0.png", env=own)
    assert done.returncode == 1
    assert f"{odd}/caf\\xe9.png: its name is not UTF-8; rename it" in done.stderr
    assert "Added 0 pictures to the store, 1 unchanged." in done.stderr


def test_add_takes_splits_from_folders(own: Env, tmp_path: Path) -> None:
    put(tmp_path / "more" / "train", "boat", range(70, 72))
    put(tmp_path / "more" / "test", "boat", range(72, 73))
    assert run("add", tmp_path / "more", env=own).returncode == 0
    for split, count in (("train", 2), ("test", 1)):
        where = json.dumps({"must": [{"key": "split", "match": {"value": split}}]})
        assert json.loads(run("delete", "--filter", where, "--json", env=own).stdout) == {
            "deleted": count
        }


def test_classify_skips_the_same_and_prints_any_name(store: Env, odd: Path) -> None:
    done = run("classify", odd, env=store)
    assert done.returncode == 0
    names = [line.split("\t")[2] for line in done.stdout.splitlines()]
    assert names == [f"{odd}/boat/{name}" for name in ("0.png", "1.png", r"a\n\x1b[31m.png")]
    assert SKIPPED in done.stderr
    done = run("classify", latin1(odd), env=store)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"\t{odd}/caf\\xe9.png\n")
    line = run("classify", latin1(odd), "--json", env=store).stdout
    assert json.loads(line)["path"] == f"{odd}/caf\\xe9.png"
    assert len(run("classify", odd, "--program-folders", env=store).stdout.splitlines()) == 4


def test_labels_of_any_characters_are_printed(own: Env, odd: Path) -> None:
    label = "a\nb\x1b[31m"
    assert run("add", odd / "boat" / "0.png", "--label", label, env=own).returncode == 0
    assert r"a\nb\x1b[31m 1" in run("index", "status", env=own).stdout
    assert json.loads(run("index", "status", "--json", env=own).stdout)["labels"][label] == 1


def test_training_says_what_it_leaves_out(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(odd, "house", range(4))
    (odd / "stray.png").write_bytes(encode_png(render("house", 9)))
    dataset = load(FolderCorpus(odd), 32, QUICK)
    assert (dataset.classes, len(dataset.train) + len(dataset.validation)) == (("boat", "house"), 7)
    said = capsys.readouterr().err
    assert f"{SKIPPED}." in said
    assert "Left out, because they are in no class's folder: 1 picture." in said


def test_searches_take_and_print_any_name(store: Env, odd: Path) -> None:
    done = run("search", latin1(odd), "--limit", 1, env=store)
    assert done.returncode == 0, done.stderr
    done = run("search", f"{latin1(odd)}.gone", env=store)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


AMBIGUOUS = ("index build", "train", "index embed --shard 1/1", "add", "up", "evaluate")


@pytest.mark.parametrize("command", AMBIGUOUS)
def test_what_is_ambiguous_stops_every_command(command: str, store: Env, tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    put(root / "train", "boat", range(2))
    put(root / "bus", "boat", range(2))
    env = {**store, "LOOKALIKE_VAR": str(tmp_path / "var")}
    if command == "add":
        env, arguments = store, [root]
    else:
        env["LOOKALIKE_DATA"], arguments = str(root), []
        if command in ("train", "index embed --shard 1/1"):
            arguments = ["--out", tmp_path / "run"]
    done = run(*command.split(), *arguments, env=env)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "train can be a split with the class boat, or a class, like bus;" in last
    assert "choose with --splits yes (or LOOKALIKE_SPLITS=yes) or --splits no" in last
