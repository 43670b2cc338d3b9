"""Help, and the response to wrong use of the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from search_api.cli.main import _COMMANDS, cli
from tests.search_api.cli.helpers import run


def commands() -> list[tuple[str, click.Command]]:
    """All commands by name; those of `lookalike index` too."""
    context = click.Context(cli)
    found: list[tuple[str, click.Command]] = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", child) for sub, child in command.commands.items()]
    return found


def test_every_command_of_before_is_there() -> None:
    names = {name for name, _ in commands()}
    assert names == {
        "up", "serve", "search", "classify", "index", "add", "delete", "purge",
        "train", "shape", "tune", "evaluate",
    } | {
        f"index {name}"
        for name in ("build", "status", "verify", "snapshot", "restore", "compact", "model", "diff",
                     "embed", "import")
    } | {"model", "model import", "model list", "model show"} | {
        "classifier", "classifier show", "classifier fit",
    }  # fmt: skip


def test_help_of_every_command_has_an_example() -> None:
    for name, command in commands():
        if isinstance(command, click.Group):
            continue
        done = run(*name.split(), "--help")
        assert done.returncode == 0
        assert f"lookalike {name}" in done.stdout, name
        assert "Example" in done.stdout, name


def test_the_help_of_a_command_begins_with_its_summary() -> None:
    text = " ".join(run("--help").stdout.split())
    for name, (_, _, summary) in _COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        begin = " ".join((command.help or "").split())
        assert re.split(r"[.:]", begin)[0] + "." == summary
        assert f" {name} {summary}" in text


def test_every_option_has_help() -> None:
    for name, command in commands():
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.help, f"{name} {option.name}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serch"], ["serch"]),
        (["search"], ["IMAGE", "--like"]),
        (["search", "missing.jpg"], ["missing.jpg", "does not exist"]),
        (["search", "1", "--filter", "{"], ["--filter", "not JSON"]),
        (["search", "1", "--filter", '{"x": 1}'], ["filter"]),
        (["search", "1", "--diversity", "2"], ["--diversity", "2"]),
        (["search", "1", "--candidates", "2"], ["candidates is 2 without diversity"]),
        (["search", "--limit", "0", __file__], ["--limit", "0"]),
        (["classify"], ["PATH"]),
        (["classify", "missing.jpg"], ["missing.jpg"]),
        (["serve", "--port", "99999"], ["--port", "99999"]),
        (["serve", "--host", "256.1.1.1"], ["256.1.1.1"]),
        (["serve", "--host", "0.0.0.0"], ["0.0.0.0", "LOOKALIKE_WRITE_KEYS", "--insecure"]),
        (["serve", "--host", "256.1.1.1", "--insecure"], ["256.1.1.1", "cannot listen"]),
        (["up", "--key-file", "{tmp}/none"], ["{tmp}/none"]),
        (["train", "--recipe", "slow"], ["slow", "quick"]),
        (["train", "--epochs", "0"], ["--epochs"]),
        (["train", "--lr", "-1"], ["lr", "-1"]),
        (["train", "--resume", "{tmp}"], ["recipe.json"]),
        (["train", "--resume", "{tmp}", "--epochs", "3"], ["--resume"]),
        (["train", "--data", "{tmp}", "--out", "{tmp}/new"], ["no pictures"]),
        (["evaluate", "--bundle", "{tmp}"], ["bundle.json", "{tmp}"]),
        (["index", "status", "--var", "{tmp}"], ["{tmp}", "index build"]),
        (["index", "verify", "--var", "{tmp}"], ["{tmp}", "index build"]),
        (["index", "build", "--data", "{tmp}", "--var", "{tmp}/v"], ["no pictures"]),
        (["index", "build", "--data", "nowhere"], ["nowhere"]),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    arguments: list[str], words: list[str], tmp_path: Path, trained: Path
) -> None:
    arguments = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    env = {"LOOKALIKE_BUNDLE": str(trained / "bundle")} if "build" in arguments else {}
    done = run(*arguments, env=env)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word.replace("{tmp}", str(tmp_path)) in done.stderr


def test_wrong_use_in_a_process_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "search_api.cli", "search", "missing.jpg"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("lookalike search: ")
    assert done.stderr.count("\n") == 1
