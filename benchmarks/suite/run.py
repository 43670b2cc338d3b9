"""Runs the parts that have not passed yet, one after the other, and writes their tables.

What passed is kept in `.bench/passed/KEY`, KEY being `machine.key`: the model, the revision and the
CPU. An interrupted run therefore goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.suite import documents, machine, ratios
from benchmarks.suite.child import call
from benchmarks.suite.parts import PARTS, Part
from benchmarks.suite.result import Work, table

SUMMARY = "speed"
"""The block of the README that has the headlines of all parts."""


@dataclass(frozen=True)
class Targets:
    """Where figures are written; headlines nowhere if ``readme`` is None."""

    document: Path = machine.ROOT / "docs" / "benchmarks.md"
    readme: Path | None = machine.ROOT / "README.md"
    ratios: Path = ratios.PATH


class Suite:
    """The parts for one model, revision and CPU.

    Args:
        work: for every part; if it is short, nothing is kept or written.
        parts: in their order.
        targets: the documents.
        key: of what has passed; see `machine.key`.
    """

    def __init__(
        self,
        work: Work,
        parts: Sequence[Part] = PARTS,
        targets: Targets = Targets(),
        key: str | None = None,
    ) -> None:
        self._work, self._parts, self._targets = work, parts, targets
        self._passed = work.folder / "passed" / (key or machine.key())

    def run(self, names: Sequence[str] = (), again: bool = False) -> int:
        """Run parts, all by default, and write the tables of each; the exit code.

        Args:
            names: of the parts.
            again: also those that have passed.

        Raises:
            MarkerError: a document has no place for the tables.
        """
        if not self._work.short:
            self._check_documents()
        chosen = [part for part in self._parts if not names or part.name in names]
        due = [
            part for part in chosen if again or self._work.short or not self._path(part).exists()
        ]
        for part in chosen:
            if part not in due:
                print(f"{part.name}: has passed at this revision; `--again` runs it again")
        failed = []
        started, left = time.monotonic(), sum(part.minutes for part in due)
        for number, part in enumerate(due, 1):
            passed = (time.monotonic() - started) / 60
            print(
                f"[{number}/{len(due)}] {part.name}: {part.what}; about {part.minutes:g} min"
                f" ({passed:.0f} min so far, about {left:.0f} left)",
                flush=True,
            )
            left -= part.minutes
            if not self._measure(part):
                failed.append(part.name)
        if not self._work.short:
            for part in chosen:
                self._write(part)
            print(f"written: {self._targets.document}")
            self._summarise()
        if failed:
            print(f"failed: {', '.join(failed)}; the rest is written and need not run again")
        return 1 if failed else 0

    def _path(self, part: Part) -> Path:
        return self._passed / f"{part.name}.json"

    def _measure(self, part: Part) -> bool:
        try:
            found = call(part.function, self._work)
        except SystemExit as error:
            print(f"    {part.name} failed: {error}", flush=True)
            return False
        if self._work.short:
            print(f"{found['text']}\n> {found['stamp']}", flush=True)
            return True
        path = self._path(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(found), "utf-8")
        temporary.replace(path)
        self._write(part)  # at once: the next parts may take long
        return True

    def _check_documents(self) -> None:
        """Before hours of work, whether what is found can be written."""
        targets = self._targets
        for part in self._parts:
            documents.block_of(targets.document, part.name)
        if targets.readme is not None:
            documents.block_of(targets.readme, SUMMARY)

    def _write(self, part: Part) -> None:
        if not self._path(part).exists():
            return
        found, targets = self._read(part), self._targets
        documents.write(targets.document, part.name, found["stamp"], found["text"])
        if found["ratios"]:
            ratios.commit(targets.ratios, machine.cpu(), found["stamp"], found["ratios"])

    def _summarise(self) -> None:
        readme = self._targets.readme
        if readme is None:
            return
        if missing := [part.name for part in self._parts if not self._path(part).exists()]:
            print(f"not written: {readme}, which waits for {', '.join(missing)}")
            return
        write_summary(readme, [self._read(part) for part in self._parts])
        print(f"written: {readme}")

    def _read(self, part: Part) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self._path(part).read_text("utf-8"))
        return result


def write_summary(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write the README's table: the headlines of all parts."""
    rows = [
        (one["what"], one["ours"], one["peer"], f"{one['ratio']:.1f}")
        for result in results
        for one in result["headlines"]
    ]
    used = [result for result in results if result["headlines"]]
    if not used:
        return
    models = list(dict.fromkeys(name for result in used for name in result["models"]))
    packages = list(dict.fromkeys(name for result in used for name in result["packages"]))
    other = machine.OTHER_WORK if any(machine.OTHER_WORK in one["stamp"] for one in used) else ""
    stamp = machine.stamp(models, "2 unless named", packages, "as in docs/benchmarks.md", other)
    documents.write(path, SUMMARY, stamp, table(("", "Lookalike", "compared with", "times"), rows))
