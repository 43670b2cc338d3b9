"""Help, and what a wrong use of the command line answers."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from search_api.cli import _COMMANDS
from tests.search_api.test_cli import Env, pictures, run, store, trained

__all__ = ["pictures", "store", "trained"]  # fixtures


def test_help_of_every_command_has_an_example() -> None:
    names = [[name] for name in _COMMANDS] + [
        ["index", x]
        for x in (
            "build",
            "status",
            "verify",
            "snapshot",
            "restore",
            "compact",
            "model",
            "diff",
            "embed",
            "import",
        )
    ]
    names.remove(["index"])
    for name in names:
        done = run(*name, "--help")
        assert done.returncode == 0
        assert f"lookalike {' '.join(name)}" in done.stdout, name
        assert "Example" in done.stdout, name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serch"], ["serch"]),
        (["search"], ["IMAGE"]),
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


def test_port_in_use(store: Env) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--port", taken.getsockname()[1], env=store)
    assert done.returncode == 2
    assert "LOOKALIKE_PORT" in done.stderr
    assert done.stderr.count("\n") == 1
