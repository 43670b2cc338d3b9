"""Options that several commands share, and console output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from index.milvus.settings import MilvusSettings
from search_api.cli.options import Bars, counted, print_json, say, store_options, together
from search_api.settings import StoreLocation

VARIABLES = ("LOOKALIKE_VAR", "LOOKALIKE_INDEX", "MILVUS_URI", "MILVUS_TOKEN", "LOOKALIKE_PICTURES")


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


def test_the_location_of_a_store_in_milvus() -> None:
    uri = "http://127.0.0.1:19530"
    expected = StoreLocation(Path("var"), MilvusSettings(uri, "user:password", "mine", False))
    options = ("--milvus-token", "user:password", "--milvus-prefix", "mine", "--no-milvus-flush")
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
