"""Ratios against peers, measured in one run, and those that `make bench` committed.

Ratios hold where times do not: on a machine with other work, and from one release to the next. They
differ between CPUs, so `benchmarks/ratios.json` keeps those of each that `make bench` ran on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.suite import machine
from benchmarks.suite.child import call
from benchmarks.suite.parts import RATIOS
from benchmarks.suite.result import Result, Work, table

PATH = machine.ROOT / "benchmarks" / "ratios.json"
LEAST = 0.75
"""Share of a committed ratio below which it has fallen."""


@dataclass(frozen=True)
class Comparison:
    """A committed ratio and the same one now; None where it was not measured."""

    name: str
    committed: float | None
    now: float | None

    @property
    def fell(self) -> bool:
        """Whether it is lower by more than a quarter, or gone."""
        if self.committed is None:
            return False
        return self.now is None or self.now < LEAST * self.committed

    def __str__(self) -> str:
        old, new = ("-" if x is None else f"{x:.2f}" for x in (self.committed, self.now))
        share = f"{self.now / self.committed:5.0%}" if self.now and self.committed else "     "
        return f"{'FELL' if self.fell else 'ok':4} {old:>8} {new:>8} {share}  {self.name}"


def measure(work: Work, functions: Iterable[str] = RATIOS.values()) -> dict[str, float]:
    """All ratios, each benchmark in a process of its own."""
    found: dict[str, float] = {}
    for function in functions:
        found |= call(function, work)
    return found


def part(work: Work) -> Result:
    """The ratios as `make bench-check` measures them, so that like is compared with like."""
    found = measure(work)
    return Result(
        table(("ratio", "times"), ((name, f"{value:.2f}") for name, value in found.items())),
        n="medians of one run",
        threads="2 unless named",
        models=("model", "photo encoder"),
        packages=("faiss-cpu", "hnswlib", "torch", "openvino", "pillow", "numpy"),
        ratios=found,
    )


def commit(path: Path, cpu: str, stamp: str, ratios: dict[str, float]) -> None:
    """Keep the ratios of this CPU; those of others stay."""
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    kept[cpu] = {
        "stamp": stamp,
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
    }
    path.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def compare(path: Path, cpu: str, now: dict[str, float]) -> int:
    """Print what fell; the exit code: 1 if anything did, 2 if there is nothing to compare with."""
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if not kept:
        print(f"{path.name} has no ratios yet: run `make bench` before the change, and commit it")
        return 2
    other = cpu not in kept
    if other:
        # The latest, by the date in its stamp.
        cpu, here = max(kept, key=lambda name: kept[name]["stamp"].rpartition("; on ")[2]), cpu
        print(
            f"This CPU is {here}; the ratios committed are of {cpu}. Ratios differ between CPUs:"
            "\nto be sure, run `make bench` here at the revision before the change."
        )
    committed = kept[cpu]["ratios"]
    print(f"committed: {kept[cpu]['stamp']}\n     committed      now share  ratio")
    rows = [Comparison(name, committed.get(name), now.get(name)) for name in {**committed, **now}]
    for row in rows:
        print(row)
    fallen = [row for row in rows if row.fell]
    if not fallen:
        print("Nothing fell by more than a quarter.")
        return 0
    print(f"{len(fallen)} of {len(rows)} fell by more than a quarter:")
    for row in fallen:
        print(f"  {row.name}: {row.committed:.2f} before, {row.now or 0:.2f} now")
    return 1
