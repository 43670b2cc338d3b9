"""What all commands on a store have in common: their options, and the corpus of the store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from embed import corpus as corpora
from search_api.cli.main import cli
from search_api.cli.on_store import FOLDER_NAMES
from tests.search_api.cli.helpers import Env, put, run, status

WITHOUT_STORE = ("train", "tune", "shape", "model ", "index embed")
SERVERS = {"up", "serve"}
_READ_FOLDERS = {"index build", "index import", "evaluate", "add", "classify"}


def commands(
    group: click.Group = cli, before: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


ON_STORE = {name: command for name, command in commands() if not name.startswith(WITHOUT_STORE)}


def options(command: click.Command) -> dict[str, click.Option]:
    return {
        text: option
        for option in command.params
        if isinstance(option, click.Option)
        for text in (*option.opts, *option.secondary_opts)
    }


def test_all_commands_on_a_store_take_the_same_options() -> None:
    assert {"search", "add", "index snapshot", "classifier show", "up"} <= set(ON_STORE)
    texts = (
        "--var --index --milvus-uri --milvus-prefix --pictures --data --bundle --splits --hidden"
        " --follow-links --no-follow-links --program-folders --max-added-pictures --trash-days"
    )
    shared = set(texts.split())
    for name, command in ON_STORE.items():
        wanted = shared if name in SERVERS else shared | {"--json"}
        assert wanted - set(options(command)) == set(), name
        for text in shared:
            # A line for one command means the same to another.
            first, other = options(ON_STORE["index build"])[text], options(command)[text]
            assert (first.envvar, first.default, first.type.name) == (
                other.envvar,
                other.default,
                other.type.name,
            ), (name, text)


def test_help_shows_what_is_often_needed() -> None:
    for name, command in ON_STORE.items():
        if name in SERVERS:
            continue
        shown = {text for text, option in options(command).items() if not option.hidden}
        assert "--var" in shown
        assert "--trash-days" not in shown
        assert ("--hidden" in shown) == (name in _READ_FOLDERS), name
    assert not options(ON_STORE["search"])["--data"].hidden
    assert options(ON_STORE["delete"])["--data"].hidden
    assert "hidden" in FOLDER_NAMES


@pytest.fixture
def alone(own: Env) -> Env:
    """The store alone: neither its corpus nor its model is named."""
    return {"LOOKALIKE_VAR": own["LOOKALIKE_VAR"]}


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working folder, in which nothing may be downloaded."""
    cwd = tmp_path / "work" / "here"
    cwd.mkdir(parents=True)
    monkeypatch.chdir(cwd)
    cifar10 = corpora.cifar10

    def refused(root: Path, download: bool = False) -> corpora.ArrayCorpus:
        assert not download, "CIFAR-10 was downloaded"
        return cifar10(root)

    monkeypatch.setattr(corpora, "cifar10", refused)
    return cwd


@pytest.mark.slow
def test_the_store_knows_its_corpus_and_model(
    alone: Env, scenes: Path, arrivals: Path, no_download: Path
) -> None:
    hat = arrivals / "boat" / "new.png"
    done = run("search", hat, "--limit", 3, "--json", env=alone)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["points"]) == 3
    assert done.stderr == ""
    for command in (
        ("add", hat),
        ("classify", hat),
        ("classifier", "fit"),
        ("index", "compact"),
        ("index", "snapshot", "monday"),
        ("index", "restore", "monday"),
        ("index", "verify"),
        ("index", "build"),
        ("delete", 1),
        ("purge", "--all"),
        ("evaluate", "--out", no_download / "report"),
    ):
        done = run(*command, env=alone)
        assert done.returncode == 0, (command, done.stderr)
    assert status(alone)["corpus"] == str(scenes)
    assert status(alone)["pictures"] == 24
    assert not (no_download / "data").exists()


@pytest.mark.slow
def test_without_a_store_one_line_says_how_to_build_it(
    tmp_path: Path, arrivals: Path, no_download: Path
) -> None:
    hat = arrivals / "boat" / "new.png"
    for command in (("search", hat), ("add", hat), ("serve",), ("index", "compact"), ("delete", 1)):
        done = run(*command, "--var", tmp_path / "none", env={"LOOKALIKE_PORT": "0"})
        assert done.returncode == 2, (command, done.stderr)
        assert done.stderr.count("\n") == 1
        assert "no store in" in done.stderr
        assert "lookalike index build --data" in done.stderr
    assert not (tmp_path / "none").exists()
    assert list(no_download.iterdir()) == []


@pytest.mark.slow
def test_another_corpus_is_refused_by_every_command(
    own: Env, arrivals: Path, tmp_path: Path
) -> None:
    hat = arrivals / "boat" / "new.png"
    env = {"LOOKALIKE_VAR": own["LOOKALIKE_VAR"]}
    for command in (
        ("search", hat),
        ("add", hat),
        ("classify", hat),
        ("classifier", "show"),
        ("serve", "--port", 0),
        ("up", "--port", 0),
        ("delete", 1),
        ("purge", "--all"),
        ("index", "build"),
        ("index", "status"),
        ("index", "verify"),
        ("index", "snapshot"),
        ("index", "compact"),
    ):
        done = run(*command, "--data", arrivals, env=env)
        assert done.returncode == 2, (command, done.stderr)
        assert own["LOOKALIKE_DATA"] in done.stderr
        assert str(arrivals) in done.stderr
    assert status(env)["labels"] == {"boat": 8, "house": 8, "tree": 8}
    done = run("index", "build", "--replace-corpus", env=env)
    assert (done.returncode, "needs --data" in done.stderr) == (2, True)
    done = run("index", "build", "--data", arrivals, "--replace-corpus", env=env)
    assert done.returncode == 0, done.stderr
    assert (status(env)["corpus"], status(env)["pictures"]) == (str(arrivals), 2)


@pytest.mark.slow
def test_a_moved_or_missing_folder(alone: Env, own: Env, tmp_path: Path) -> None:
    root, hat = tmp_path / "mine", tmp_path / "hat.png"
    for label in ("boat", "tree"):
        put(root, label, range(3))
    shutil.copy(root / "boat" / "0.png", hat)
    env = {"LOOKALIKE_VAR": str(tmp_path / "var")}
    bundle = own["LOOKALIKE_BUNDLE"]
    done = run("index", "build", "--data", root, "--bundle", bundle, env=env)
    assert done.returncode == 0, done.stderr
    root.rename(tmp_path / "there")
    for command in (("search", hat), ("add", hat)):
        done = run(*command, env=env)
        assert done.returncode == 0, done.stderr
    done = run("index", "build", env=env)
    assert done.returncode == 2
    assert f"{root} is not there" in done.stderr
    assert "--data" in done.stderr
    assert status(env)["pictures"] == 7

    done = run("index", "build", "--data", tmp_path / "there", env=env)
    assert done.returncode == 0, done.stderr
    assert f"moved: the corpus of this store was {root} and is now" in done.stderr
    assert "(0 embedded now, 6 unchanged, 0 removed)" in done.stderr
    assert status(env)["corpus"] == str(tmp_path / "there")
    assert "moved" not in run("search", hat, env=env).stderr


@pytest.mark.slow
def test_a_line_for_one_command_is_one_for_another(own: Env, arrivals: Path) -> None:
    hat = arrivals / "boat" / "new.png"
    line = [
        *("--var", own["LOOKALIKE_VAR"], "--index", "faiss", "--data", own["LOOKALIKE_DATA"]),
        *("--bundle", own["LOOKALIKE_BUNDLE"], "--splits", "auto", "--no-hidden", "--json"),
        *("--trash-days", 3, "--min-free-bytes", 0),
    ]
    for command in (
        ("search", hat),
        ("add", hat),
        ("classify", hat),
        ("delete", 1),
        ("purge", "--all"),
        ("classifier", "show"),
        ("index", "build"),
        ("index", "status"),
        ("index", "verify"),
        ("index", "snapshot", "monday"),
        ("index", "restore", "monday"),
        ("index", "compact"),
    ):
        done = run(*command, *line)
        assert done.returncode == 0, (command, done.stderr)
        assert json.loads(done.stdout), command
