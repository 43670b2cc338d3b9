"""Every table of figures says what it belongs to, and that is what ships."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.suite import documents, machine, ratios
from benchmarks.suite.machine import StampError
from benchmarks.suite.parts import LARGE, PARTS
from benchmarks.suite.run import SUMMARY

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
SPEED = re.compile(
    r"[0-9] ?ms\b|\b(times|twice|half) (as|the) (fast|slow|latency|throughput|time|speed)"
    r"|\btimes (faster|slower)|(pictures|requests|queries)(/s| (a|per) second)",
    re.IGNORECASE,
)


def problems(text: str, known: list[str]) -> list[str]:
    """What is wrong with the tables of a document; raises MarkerError if its markers are."""
    found = []
    blocks = documents.blocks(text)
    inside = {i for block in blocks.values() for i in range(block.start, block.end)}
    for i, line in enumerate(text.splitlines()):
        if documents.is_table(line) and i not in inside:
            found.append(
                f"line {i}: a table outside of `<!-- bench: name -->` and `<!-- /bench -->`"
            )
    for block in blocks.values():
        if not block.has_table:
            continue
        if block.stamp is None:
            found.append(f"{block.name}: tables without a stamp, `> Measured: model …`")
            continue
        try:
            machine.check(block.stamp, known)
        except StampError as error:
            found.append(f"{block.name}: {error}")
    return found


@pytest.fixture(scope="module")
def known() -> list[str]:
    return [*machine.digests().values()]


def test_every_table_belongs_to_what_ships(known: list[str]) -> None:
    assert problems(DOCUMENT.read_text("utf-8"), known) == []


def test_the_costs_of_networks_belong_to_something(known: list[str]) -> None:
    costs = documents.blocks((ROOT / "docs" / "models.md").read_text("utf-8"))["costs"]
    assert costs.stamp is not None
    machine.check(costs.stamp, known)


def test_the_document_has_a_block_for_each_part() -> None:
    blocks = documents.blocks(DOCUMENT.read_text("utf-8"))
    assert [part.name for part in (*PARTS, *LARGE) if part.name not in blocks] == []


def test_the_readme_has_figures_on_speed_in_its_table_only(known: list[str]) -> None:
    text = README.read_text("utf-8")
    block = documents.blocks(text)[SUMMARY]
    if block.has_table:
        assert block.stamp is not None
        machine.check(block.stamp, known)
    lines = text.splitlines()
    rest = lines[: block.start] + lines[block.end :]
    assert [line for line in rest if SPEED.search(line)] == []


def test_the_ratios_committed_belong_to_what_ships(known: list[str]) -> None:
    kept = json.loads(ratios.PATH.read_text("utf-8")) if ratios.PATH.exists() else {}
    for one in kept.values():
        machine.check(one["stamp"], known)


GOOD = (
    "model sha256:88dd8f5d…; revision 1a2b3c4; CPU Intel Xeon with AMX, 2 cores; threads 2;"
    " with faiss-cpu 1.15.1; on 2026-11-30; n = 1,000 queries"
)
TABLE = f"<!-- bench: index -->\n\n> Measured: {GOOD}\n\n| a |\n|---|\n| 1 |\n\n<!-- /bench -->\n"
SHIPPED = ["sha256:88dd8f5d" + "0" * 56]


def test_a_table_that_belongs_to_what_ships_passes() -> None:
    assert problems(TABLE, SHIPPED) == []


def test_a_stamp_may_be_broken_over_lines() -> None:
    text = TABLE.replace("; revision", ";\n> revision").replace("; on", ";\n> on")
    assert problems(text, SHIPPED) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("88dd8f5d", "4b696dae", "sha256:4b696dae… does not ship"),
        ("sha256:88dd8f5d…", "the one that ships", "names no digest"),
        (f"> Measured: {GOOD}", "", "tables without a stamp"),
        ("; on 2026-11-30", "", "is no stamp"),
        ("; CPU Intel Xeon with AMX, 2 cores", "", "is no stamp"),
        ("<!-- bench: index -->", "", "closes nothing"),
        ("\n<!-- /bench -->", "", "is never closed"),
        ("<!-- bench: index -->", "<!-- bench index -->", "is no marker"),
    ],
)
def test_what_is_wrong_is_found(old: str, new: str, expected: str) -> None:
    assert old in TABLE
    try:
        found = problems(TABLE.replace(old, new), SHIPPED)
    except documents.MarkerError as error:
        found = [str(error)]
    assert len(found) == 1
    assert expected in found[0]


def test_a_table_outside_of_the_markers_is_found() -> None:
    assert problems("| a |\n|---|\n| 1 |\n", SHIPPED) == [
        "line 1: a table outside of `<!-- bench: name -->` and `<!-- /bench -->`"
    ]


@pytest.mark.parametrize(
    "model",
    [
        "none: the figures are the same for every model",
        "sha256:4b696dae… (earlier; kept because nothing of that length was measured since)",
        "sha256:88dd8f5d…, photo encoder sha256:88dd8f5d0000…",
    ],
)
def test_models_that_pass(model: str) -> None:
    assert problems(TABLE.replace("sha256:88dd8f5d…", model), SHIPPED) == []


@pytest.mark.parametrize(
    "text",
    ["half the latency", "in 3.4 ms", "five times as fast", "3 times faster", "990 pictures/s"],
)
def test_words_on_speed_are_found(text: str) -> None:
    assert SPEED.search(text)
