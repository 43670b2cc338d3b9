"""The commands with `--server`, against the real server with 24 plain pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search_api.client import Client
from tests.search_api.cli.helpers import run
from tests.search_api.conftest import colour, png


@pytest.fixture
def red(tmp_path: Path) -> Path:
    path = tmp_path / "files" / "red.png"
    path.parent.mkdir()
    path.write_bytes(png(colour("red", 1)))
    return path


def test_search(live_server: str, red: Path) -> None:
    done = run("search", red, "--limit", 3, "--json", "--server", live_server)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["prediction"]["class"] == "red"
    assert answer["points"][0]["payload"]["source"] == "train/red/1.png"
    text = run("search", red, "--limit", 3, env={"LOOKALIKE_SERVER": live_server}).stdout
    assert text.startswith("class  red (")
    assert len(text.splitlines()) == 3 + 4


def test_search_in_other_ways(live_server: str, red: Path) -> None:
    def answer(*args: object) -> dict[str, Any]:
        done = run("search", *args, "--json", "--server", live_server)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    first = answer(red, "--limit", 1)["points"][0]["id"]
    similar = answer(first, "--limit", 2)
    assert "prediction" not in similar
    assert [p["payload"]["label"] for p in similar["points"]] == ["red", "red"]
    blue = '{"must": [{"key": "label", "match": {"value": "blue"}}]}'
    found = answer(red, "--filter", blue, "--limit", 24)["points"]
    assert {p["payload"]["label"] for p in found} == {"blue"}
    assert answer(red, "--threshold", 0.999999)["points"][0]["id"] == first
    groups = answer(red, "--group-by", "label", "--group-size", 2)["groups"]
    assert (groups[0]["value"], len(groups[0]["points"])) == ("red", 2)
    both = answer(red, "--like", first, "--unlike", found[0]["id"], "--diversity", 0.5)
    assert both["points"][0]["payload"]["label"] == "red"
    assert first not in {p["id"] for p in both["points"]}


def test_classify(live_server: str, red: Path) -> None:
    (red.parent / "blue.png").write_bytes(png(colour("blue", 2)))
    (red.parent / "bad.png").write_bytes(b"rubbish")
    done = run("classify", red.parent, "--server", live_server)
    assert done.returncode == 1
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(row[0], Path(row[2]).name) for row in rows] == [
        ("blue", "blue.png"),
        ("red", "red.png"),
    ]
    (error,) = done.stderr.splitlines()
    assert "bad.png" in error
    assert "not a picture" in error


def test_tags_voted_by_the_server(live_server: str, red: Path, tmp_path: Path) -> None:
    with Client(live_server) as client:
        reds = client.list_images(
            filter={"must": [{"key": "label", "match": {"value": "red"}}]}
        ).points
        for point in reds[:4]:
            client.change_image(point.id, {"tags": ["scarlet"]})
    out = tmp_path / "tags.jsonl"
    done = run("classify", red.parent, "--out", out, "--server", live_server)
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row["class"] == "red"
    assert (row["tags"], row["tag_shares"]) == (["scarlet"], [0.4])


def test_classify_in_batches(live_server: str, red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search_api.cli.remote._BATCH", 2)
    for shade in range(5):
        (red.parent / f"{shade}.png").write_bytes(png(colour("green", shade)))
    done = run("classify", red.parent, "--json", "--server", live_server)
    assert done.returncode == 0
    classes = {Path(v["path"]).name: v["class"] for v in map(json.loads, done.stdout.splitlines())}
    assert classes == {"red.png": "red"} | {f"{shade}.png": "green" for shade in range(5)}


def test_status_and_build(live_server: str) -> None:
    done = run("index", "status", "--json", "--server", live_server)
    status = json.loads(done.stdout)
    assert status["indexed"] == 24
    assert status["server"] == live_server
    assert status["generation"] == 1
    built = run("index", "build", "--json", "--server", live_server)
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["generation"] == 2
    assert "generation 2" in built.stderr


@pytest.mark.parametrize(
    "arguments",
    [["search", "{red}"], ["classify", "{red}"], ["index", "status"], ["index", "build"]],
)
def test_no_server(arguments: list[str], red: Path) -> None:
    arguments = [argument.replace("{red}", str(red)) for argument in arguments]
    done = run(*arguments, "--server", "http://127.0.0.1:9")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert "http://127.0.0.1:9 cannot be reached" in done.stderr


def test_refusal_is_one_line(live_server: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"rubbish")
    done = run("search", bad, "--server", live_server)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "not a picture" in done.stderr


def test_it_does_not_wait_for_torch(live_server: str, red: Path) -> None:
    code = (
        "import sys\nfrom search_api.cli.main import cli\n"
        "cli.main(sys.argv[1:], standalone_mode=False)\n"
        "print({'torch', 'faiss', 'fastapi'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "search", str(red), "--server", live_server],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("class  red")
    assert done.stderr == "set()\n"
