"""The frame of `make bench` and `make bench-check`, with tiny parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import benchmarks.__main__ as command
from benchmarks.suite import documents, machine, ratios
from benchmarks.suite.documents import MarkerError
from benchmarks.suite.parts import PARTS, RATIOS, Part
from benchmarks.suite.result import Work, table
from benchmarks.suite.run import Suite, Targets

HERE = "tests.benchmarks.parts_for_tests"
GOOD = Part("good", "one that passes", 1, f"{HERE}:good")
BAD = Part("bad", "one that fails", 1, f"{HERE}:bad")
OTHER = Part("other", "another", 1, f"{HERE}:other")
DOCUMENT = "# Figures\n\n" + "".join(
    f"<!-- bench: {name} -->\nold\n<!-- /bench -->\n\nAfter {name}.\n\n"
    for name in ("good", "bad", "other")
)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path, tmp_path)


@pytest.fixture
def targets(tmp_path: Path) -> Targets:
    found = Targets(tmp_path / "figures.md", tmp_path / "README.md", tmp_path / "ratios.json")
    found.document.write_text(DOCUMENT)
    found.readme.write_text("<!-- bench: speed -->\n<!-- /bench -->\n")
    return found


def calls(work: Work) -> list[str]:
    return (work.folder / "calls").read_text().split()


@pytest.mark.slow
def test_what_failed_is_run_again_and_what_passed_is_not(
    work: Work, targets: Targets, capsys: pytest.CaptureFixture[str]
) -> None:
    def suite(*parts: Part, key: str = "k1") -> Suite:
        return Suite(work, parts, targets, key)

    assert suite(GOOD, BAD).run() == 1
    assert "failed: bad" in capsys.readouterr().out
    assert calls(work) == ["good", "bad"]
    # What passed is written, and nothing else; the README waits for all.
    text = targets.document.read_text()
    assert "| 1 | 1.5 |" in text
    assert text.count("old") == 2
    assert "times" not in targets.readme.read_text()

    assert suite(GOOD, OTHER).run() == 0
    assert "good: has passed" in capsys.readouterr().out
    assert calls(work) == ["good", "bad", "other"]
    assert "| a search | 1 ms | the plain way 3 ms | 3.0 |" in targets.readme.read_text()

    assert suite(GOOD, OTHER).run(["good"], again=True) == 0
    assert calls(work)[3:] == ["good"]
    assert "| 2 | 1.5 |" in targets.document.read_text()

    assert suite(GOOD, OTHER, key="k2").run(["other"]) == 0
    assert calls(work)[4:] == ["other"]


@pytest.mark.slow
def test_short_keeps_and_writes_nothing(
    work: Work, targets: Targets, capsys: pytest.CaptureFixture[str]
) -> None:
    short = Work(work.data, work.folder, short=True)
    for _ in range(2):
        assert Suite(short, [GOOD], targets, "k").run() == 0
    assert calls(work) == ["good", "good"]
    assert targets.document.read_text() == DOCUMENT
    assert not targets.ratios.exists()
    assert "| 2 | 1.5 |" in capsys.readouterr().out


def test_a_table_that_is_written_has_a_stamp_that_passes(work: Work, targets: Targets) -> None:
    Suite(work, [GOOD], targets, "k").run()
    block = documents.blocks(targets.document.read_text())["good"]
    assert block.stamp is not None
    machine.check(block.stamp, [])
    assert machine.cpu() in block.stamp
    assert json.loads(targets.ratios.read_text())[machine.cpu()]["ratios"] == {"search": 3.0}


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "figures.md"
    path.write_text(DOCUMENT)
    stamp = "model none: x; revision 1; CPU " + "long words " * 20 + "; n = 1"
    documents.write(path, "bad", stamp, "| a |\n|---|\n")
    once = path.read_text()
    documents.write(path, "bad", stamp, "| a |\n|---|\n")
    assert path.read_text() == once
    assert once.startswith("# Figures\n\n<!-- bench: good -->\nold\n<!-- /bench -->\n\nAfter good.")
    assert documents.blocks(once)["bad"].stamp == " ".join(stamp.split())
    assert max(map(len, once.splitlines())) <= 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing", "has no block 'good'"),
        ("<!-- bench: good -->", "is never closed"),
        ("<!-- bench: good -->\n<!-- bench: b -->\n<!-- /bench -->", "within the block 'good'"),
        ("<!-- bench: good -->\n<!-- /bench -->\n" * 2, "a block 'good' already"),
        ("<!-- /bench -->", "closes nothing"),
        ("<!-- bench: Good -->", "is no marker"),
    ],
)
def test_broken_markers_are_refused_and_the_document_stays(
    tmp_path: Path, text: str, expected: str
) -> None:
    path = tmp_path / "figures.md"
    path.write_text(text)
    with pytest.raises(MarkerError, match=expected):
        documents.write(path, "good", "stamp", "text")
    assert path.read_text() == text


def test_nothing_runs_without_a_place_for_its_tables(work: Work, targets: Targets) -> None:
    nowhere = Part("nowhere", "a part without a block", 1, f"{HERE}:other")
    with pytest.raises(MarkerError, match=r"figures\.md has no block 'nowhere'"):
        Suite(work, [GOOD, nowhere], targets, "k").run()
    assert not (work.folder / "calls").exists()


def test_parts_without_a_readme_leave_it_alone(work: Work, targets: Targets) -> None:
    none = Targets(targets.document, None, targets.ratios)
    assert Suite(work, [GOOD], none, "k").run() == 0
    assert calls(work) == ["good"]


@pytest.mark.parametrize(
    ("now", "code", "says"),
    [
        ({"search": 4.0, "decode": 1.0}, 0, "Nothing fell"),
        ({"search": 3.0, "decode": 1.0}, 0, "Nothing fell"),  # a quarter is not more than a quarter
        ({"search": 2.99, "decode": 1.0}, 1, "search: 4.00 before, 2.99 now"),
        ({"search": 4.0}, 1, "decode: 1.00 before, 0.00 now"),
        ({"search": 4.0, "decode": 1.0, "new": 0.1}, 0, "Nothing fell"),
    ],
)
def test_what_fell_by_more_than_a_quarter(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    now: dict[str, float],
    code: int,
    says: str,
) -> None:
    path = tmp_path / "ratios.json"
    ratios.commit(path, "this CPU", "stamp; on 2026-11-30; n = 1", {"search": 4.0, "decode": 1.0})
    assert ratios.compare(path, "this CPU", now) == code
    printed = capsys.readouterr().out
    assert says in printed
    assert "ratios differ between CPUs" not in printed.lower()


def test_ratios_of_another_cpu_are_compared_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ratios.json"
    assert ratios.compare(path, "a", {"x": 1.0}) == 2
    ratios.commit(path, "a", "stamp; on 2026-11-30; n = 1", {"x": 8.0})
    ratios.commit(path, "b", "stamp; on 2026-11-29; n = 1", {"x": 1.0})
    assert ratios.compare(path, "b", {"x": 1.0}) == 0
    capsys.readouterr()
    assert ratios.compare(path, "c", {"x": 1.0}) == 1
    printed = capsys.readouterr().out
    assert "This CPU is c; the ratios committed are of a." in printed


def test_ratios_are_measured_in_processes_of_their_own(work: Work) -> None:
    assert ratios.measure(work, [f"{HERE}:some_ratios"]) == {"search": 2.0}


@pytest.mark.parametrize("function", [*(part.function for part in PARTS), *RATIOS.values()])
def test_every_part_exists(function: str) -> None:
    module, _, name = function.partition(":")
    source = (machine.ROOT / (module.replace(".", "/") + ".py")).read_text("utf-8")
    assert f"def {name}(work: Work)" in source


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nonsense"], "no part 'nonsense'; expected some of building, index"),
        (["--data", "/nowhere"], "CIFAR-10 is not in /nowhere; name the folder"),
    ],
)
def test_wrong_usage(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert expected in capsys.readouterr().err


def test_the_exit_code_is_that_of_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    monkeypatch.setattr(ratios, "measure", lambda work: {"x": 1.0})
    monkeypatch.setattr(ratios, "PATH", tmp_path / "ratios.json")
    arguments = ["--check", "--data", str(tmp_path), "--folder", str(tmp_path)]
    assert command.main(arguments) == 2
    ratios.commit(ratios.PATH, machine.cpu(), "stamp", {"x": 1.0})
    assert command.main(arguments) == 0
    ratios.commit(ratios.PATH, machine.cpu(), "stamp", {"x": 2.0})
    assert command.main(arguments) == 1


def test_a_row_of_another_length_is_refused() -> None:
    assert table(("a", "b"), [(1, None)]) == "| a | b |\n|---|---|\n| 1 |  |"
    with pytest.raises(ValueError, match="2 columns"):
        table(("a", "b"), [(1,)])
