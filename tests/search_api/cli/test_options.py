"""Options that several commands share, and console output."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from embed.folders.options import FolderOptions
from index.milvus.settings import MilvusSettings
from search_api.cli.main import cli
from search_api.cli.options import (
    Bars,
    counted,
    data_options,
    print_json,
    say,
    secret_option,
    store_options,
    together,
)
from search_api.settings import StoreLocation
from tests.search_api.cli.helpers import run

VARIABLES = (
    "LOOKALIKE_VAR",
    "LOOKALIKE_INDEX",
    "MILVUS_URI",
    "MILVUS_TOKEN",
    "MILVUS_TOKEN_FILE",
    "LOOKALIKE_PICTURES",
)


def invoke(*arguments: str, **env: str) -> tuple[Result, list[StoreLocation]]:
    got: list[StoreLocation] = []

    @click.command()
    @store_options
    def command(location: StoreLocation) -> None:
        got.append(location)

    without: dict[str, str | None] = dict.fromkeys(VARIABLES)
    return CliRunner().invoke(command, arguments, env={**without, **env}), got


def location(*arguments: str, **env: str) -> StoreLocation:
    result, got = invoke(*arguments, **env)
    assert result.exit_code == 0, result.output
    return got[0]


def test_the_location_of_a_store() -> None:
    assert location() == StoreLocation()
    assert location("--var", "/srv", "--pictures", "s3://b/p") == StoreLocation(
        Path("/srv"), None, "s3://b/p"
    )
    assert location(LOOKALIKE_VAR="/srv", LOOKALIKE_PICTURES="p") == StoreLocation(
        Path("/srv"), None, "p"
    )


def test_the_location_of_a_store_in_milvus(tmp_path: Path) -> None:
    uri = "http://127.0.0.1:19530"
    expected = StoreLocation(Path("var"), MilvusSettings(uri, "user:password", "mine", False))
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text("user:password\n")
    options = ("--milvus-token-file", str(file), "--milvus-prefix", "mine", "--no-milvus-flush")
    assert location("--index", "milvus", "--milvus-uri", uri, *options) == expected
    env = {
        "LOOKALIKE_INDEX": "milvus",
        "MILVUS_URI": uri,
        "MILVUS_TOKEN": "user:password",
        "LOOKALIKE_MILVUS_PREFIX": "mine",
        "LOOKALIKE_MILVUS_FLUSH": "0",
    }
    assert location(**env) == expected
    # The address alone does not choose Milvus.
    assert location(MILVUS_URI=uri) == StoreLocation()


def test_milvus_needs_an_address() -> None:
    result, got = invoke("--index", "milvus")
    assert (result.exit_code, got) == (2, [])
    assert "MILVUS_URI" in result.output


def all_commands(
    group: click.Group, name: str = "lookalike"
) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for each in group.list_commands(context):
        command = group.get_command(context, each)
        assert command is not None
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{name} {each}")
        else:
            yield f"{name} {each}", command


def test_no_command_takes_a_secret_as_an_option() -> None:
    """Other users of the machine can read command lines."""
    found = set()
    for name, command in all_commands(cli):
        for option in command.params:
            if isinstance(option.type, (click.IntRange, click.FloatRange)):
                continue  # a number is no secret
            for flag in option.opts:
                if re.search("key|token|password|secret", flag) and flag not in ("--key",):
                    assert flag.endswith("-file") or option.hidden, (name, flag)  # type: ignore[attr-defined]
                    found.add(flag)
    assert found >= {"--api-key-file", "--milvus-token-file", "--key-file"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("search", "1", "--server", "http://127.0.0.1:9", "--api-key", "hush-hush-hush-1"), "api"),
        (("index", "status", "--milvus-token=hush-hush-hush-1"), "milvus"),
    ],
)
def test_a_secret_on_the_command_line_is_refused(arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert re.search(f"--{words}-.*is no option any more.*-file.*, or set [A-Z_]+", done.stderr)
    assert "hush" not in done.stderr + done.stdout


def secret(*arguments: str, **env: str) -> tuple[Result, list[str | None]]:
    got: list[str | None] = []

    @click.command()
    @secret_option("api-key", "LOOKALIKE_API_KEY", "The key.")
    def command(api_key: str | None) -> None:
        got.append(api_key)

    without = {"LOOKALIKE_API_KEY": None, "LOOKALIKE_API_KEY_FILE": None}
    return CliRunner().invoke(command, arguments, env={**without, **env}), got


def test_where_a_secret_comes_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "key"
    file.touch(0o600)
    file.write_text(" from-the-file\n")
    assert secret()[1] == [None]
    assert secret(LOOKALIKE_API_KEY="own")[1] == ["own"]
    assert secret("--api-key-file", str(file), LOOKALIKE_API_KEY="own")[1] == ["from-the-file"]
    assert secret(LOOKALIKE_API_KEY_FILE=str(file))[1] == ["from-the-file"]
    assert not caplog.records
    file.chmod(0o644)
    assert secret(LOOKALIKE_API_KEY_FILE=str(file))[1] == ["from-the-file"]
    assert f"other users can read the key file {file} (mode 0644)" in caplog.text


@pytest.mark.parametrize(("text", "words"), [("", "0 words"), ("read hush", "2 words")])
def test_a_file_without_a_secret_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "key").write_text(text)
    result, got = secret("--api-key-file", str(tmp_path / "key"))
    assert (result.exit_code, got) == (2, [])
    assert words in result.output and "hush" not in result.output
    result, got = secret("--api-key-file", str(tmp_path / "none"))
    assert (result.exit_code, got) == (2, [])
    assert "No such file" in result.output


def test_options_together_are_listed_in_order() -> None:
    @click.command()
    @together(click.option("--first"), click.option("--second"))
    @click.option("--third")
    def command(**values: Any) -> None: ...

    assert [option.name for option in command.params] == ["first", "second", "third"]


def test_results_are_on_stdout_and_messages_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("a message")
    print_json({"name": "Zoë", "n": 1})
    out, err = capsys.readouterr()
    assert err == "a message\n"
    assert json.loads(out) == {"name": "Zoë", "n": 1}
    assert "Zoë" in out


def test_counts_have_their_noun() -> None:
    assert counted(1) == "1 picture"
    assert counted(0) == "0 pictures"
    assert counted(2000, "byte") == "2,000 bytes"


def test_each_stage_has_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as bars:
        bars("embedding", 0, 4)
        bars("embedding", 4, 4)
        bars("checking", 0, 0)  # nothing to do: no bar
        bars("indexing", 2, 8)
    text = capsys.readouterr().err
    assert "Embedding: 100%" in text
    assert "4/4" in text
    assert "Checking" not in text
    assert "Indexing:  25%" in text
    assert "2/8" in text


def options(*arguments: str, **env: str) -> FolderOptions:
    got: list[FolderOptions] = []

    @click.command()
    @data_options
    def command(data: Path | None, folder_options: FolderOptions) -> None:
        got.append(folder_options)

    names = ("SPLITS", "FOLLOW_LINKS", "HIDDEN", "PROGRAM_FOLDERS", "TABLE_PAYLOAD", "GPS_PLACE")
    without: dict[str, str | None] = {f"LOOKALIKE_{name}": None for name in ("DATA", *names)}
    result = CliRunner().invoke(command, arguments, env={**without, **env})
    assert result.exit_code == 0, result.output
    return got[0]


def test_how_a_folder_is_read() -> None:
    assert options() == FolderOptions()
    assert options().given == frozenset()
    everything = FolderOptions("no", True, True, True, True, True)
    switches = ("--follow-links", "--hidden", "--program-folders", "--table-payload", "--gps-place")
    assert options("--splits", "no", *switches) == everything
    assert (
        options(
            LOOKALIKE_SPLITS="no",
            LOOKALIKE_FOLLOW_LINKS="1",
            LOOKALIKE_HIDDEN="true",
            LOOKALIKE_PROGRAM_FOLDERS="yes",
            LOOKALIKE_TABLE_PAYLOAD="1",
            LOOKALIKE_GPS_PLACE="1",
        )
        == everything
    )
    assert options("--no-hidden").given == {"hidden"}


def test_every_command_that_takes_a_corpus_takes_how_it_is_read() -> None:
    for name, command in all_commands(cli):
        flags = {flag for option in command.params for flag in option.opts}
        assert ("--data" in flags) == ("--splits" in flags), name
