"""A million real vectors: speed and memory of Lookalike's kinds and other libraries' graphs.

    pip install hnswlib usearch rabitqlib
    python -m benchmarks.vectors real --folder FOLDER --data ../shared
    python -m benchmarks.million --folder FOLDER
    python -m benchmarks.million --folder FOLDER --name photos --count 300000

1,000 held-out queries, recall@10 against brute force. Every index is built in a process of its own
and searched in another one, for each target with the fastest setting that reaches it on these
queries. Results are kept in FOLDER/results and not measured again, so that an interrupted run
resumes; those of Lookalike belong to a revision. ``--step build`` and ``--step search`` do only
that, on a machine that is busy with other work for example; then only CPU times are comparable.

RAM per vector is what the process holds while it searches beyond an interpreter with the same
libraries that has searched a small index: its own memory, and with the pages of mapped files that
it touched, which the system may drop and read again. The last column repeats the search, from a
cold start, with 350 bytes of memory per vector in all, files included (control groups; root only).
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

from benchmarks.contenders import BATCH, MODULE, K, kept, queries_and_truth, starved
from benchmarks.peers.graphs import is_peer
from benchmarks.processes import run
from benchmarks.suite import machine
from benchmarks.suite.result import Result, Work, table
from benchmarks.vectors import PHOTOS, REAL, database_and_queries

PACKAGES = ("faiss-cpu", "hnswlib", "usearch", "rabitqlib", "numpy")
NAMES = (
    "hnswlib-16",
    "usearch-i8",
    "usearch-bf16",
    "faiss:RR266,HNSW32,RaBitQ4,Refine(SQ8)",
    "rabitqlib-7",
    "exact",
    "ivf",
    "rabitq",
    "hnsw",
)
BYTES_PER_VECTOR = 350
_TARGETS = [0.95, 0.99]
_THREADS = [1, 2]


class Comparison:
    """The contenders over the vectors of one name."""

    def __init__(self, folder: Path, name: str = REAL, count: int | None = None) -> None:
        """``count`` vectors, by default all."""
        xb, xq = database_and_queries(folder, count, name)
        self.count, self.dimension = xb.shape
        self.queries = len(xq)
        self._folder, self._key = folder, f"{name}-{self.count}"
        queries, truth = queries_and_truth(folder, xb, xq, self._key)
        self._task = {
            "vectors": str(folder / f"{name}.npy"),
            "queries": str(queries),
            "truth": str(truth),
            "count": self.count,
        }

    def build(self, name: str, threads: int = 2) -> dict[str, Any]:
        """The times and the memory of building it, with its files left in the folder."""
        task = {**self._task, "do": "build", "kind": name, "work": str(self._work(name))}
        return kept(
            self._folder,
            f"build-{self._label(name)}",
            lambda: run(MODULE, {**task, "target": _TARGETS[0], "threads": threads}),
        )

    def search(self, name: str, again: bool = False) -> dict[str, Any]:
        """Its rows; its files are not removed, so that it can be measured ``again``."""
        path = self._folder / "results" / f"search-{self._label(name)}.json"
        if again:
            path.unlink(missing_ok=True)
        return kept(self._folder, path.stem, lambda: self._measured(name))

    def forget(self, name: str) -> None:
        """Remove the files of its index."""
        shutil.rmtree(self._work(name), ignore_errors=True)

    def rows(self, name: str) -> list[list[object]]:
        """The rows of the table."""
        made, found = self.build(name), self.search(name)
        limited = found.get("limited", {})
        strict = limited.get("rows", [None] * len(found["rows"]))
        less = [
            limited.get("problem") if one is None else f"{one['rates']['2']:,.0f}" for one in strict
        ]
        return [
            [
                f"`{name}`{', ' if row['setting'] else ''}{row['setting']}",
                f"{row['recall']:.4f}",
                f"{made['seconds']:,.0f}; {made['cpu']:,.0f}",
                f"{found['held'] / self.count:,.0f}; {found['with_files'] / self.count:,.0f}",
                f"{row['median']:.3f}",
                *(f"{row['rates'][str(n)]:,.0f}" for n in _THREADS),
                rest,
            ]
            for row, rest in zip(found["rows"], less, strict=True)
        ]

    def table(self, names: list[str]) -> str:
        """All that has been measured; a row for each target that is reached."""
        columns = (
            "index",
            f"recall@{K}",
            "build: s; CPU s",
            "RAM, bytes per vector: own; with files",
            "1 query, ms",
            *(f"queries/s, {n} thread{'s' * (n > 1)}" for n in _THREADS),
            f"the same with {BYTES_PER_VECTOR} bytes per vector in all",
        )
        return table(columns, [row for name in names for row in self.rows(name)])

    def _measured(self, name: str) -> dict[str, Any]:
        self.build(name)
        work = self._work(name)
        task = {**self._task, "do": "search", "kind": name, "work": str(work)}
        found = run(MODULE, {**task, "targets": _TARGETS, "threads": _THREADS})
        if is_peer(name) or name == "exact":
            return found  # holds everything in memory of its own
        base = run(MODULE, {"do": "nothing"})["peak"]
        settings = [row["values"] for row in found["rows"]]
        job = {**task, "settings": settings, "threads": _THREADS[-1:]}
        found["limited"] = starved(job, work, base + BYTES_PER_VECTOR * self.count)
        return found

    def _label(self, name: str) -> str:
        safe = re.sub("[^A-Za-z0-9]+", "-", name).strip("-")
        revision = "" if is_peer(name) else f"-{machine.revision().replace(' ', '')}"
        return f"{self._key}-{safe}{revision}"

    def _work(self, name: str) -> Path:
        return self._folder / f"work-{self._label(name)}"


def part(work: Work) -> Result:
    """The block ``million`` of docs/benchmarks.md."""
    return _part(work, REAL, 5000 if work.short else None, "model")


def photo_part(work: Work) -> Result:
    """The block ``million-photo``: the photo encoder's."""
    return _part(work, PHOTOS, 5000 if work.short else None, "photo encoder")


def _part(work: Work, name: str, count: int | None, model: str) -> Result:
    compared = Comparison(work.folder / "million", name, count)
    for one in NAMES:
        work.say(one)
        compared.search(one)
    for one in NAMES:
        compared.forget(one)
    return Result(
        compared.table(list(NAMES)),
        n=f"{compared.count:,} x {compared.dimension}, {compared.queries:,} queries, one run",
        threads="2 to build; as the columns say",
        models=(model,),
        packages=PACKAGES,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, required=True, help="vectors, temporary files and results"
    )
    parser.add_argument("--name", choices=[REAL, PHOTOS], default=REAL)
    parser.add_argument("--count", type=int, help="of vectors; default: all")
    parser.add_argument("--names", default=" ".join(NAMES))
    parser.add_argument("--step", choices=["build", "search", "table", "all"], default="all")
    parser.add_argument("--again", action="store_true", help="search again what was searched")
    arguments = parser.parse_args()
    compared = Comparison(arguments.folder, arguments.name, arguments.count)
    names = arguments.names.split()
    for name in names:
        if arguments.step in ("build", "all"):
            compared.build(name)
        if arguments.step in ("search", "all"):
            compared.search(name, arguments.again)
    if arguments.step != "build":
        print(
            f"{compared.count:,} x {compared.dimension}, {compared.queries:,} queries,"
            f" batches of {BATCH}\n\n{compared.table(names)}"
        )


if __name__ == "__main__":
    main()
