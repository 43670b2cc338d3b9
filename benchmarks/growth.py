"""How build time, memory and latency grow from 10 thousand to 10 million vectors.

    python -m benchmarks.vectors synthetic --folder FOLDER
    python -m benchmarks.growth build --folder FOLDER   # what a busy machine can do, too
    python -m benchmarks.growth table --folder FOLDER
    python -m benchmarks.growth plot --folder FOLDER --out docs/growth.svg
    python -m benchmarks.growth catalogue --folder FOLDER

The index is built from a memory-mapped array, without a catalogue: inserting ten million rows into
SQLite first would take longer than all else; ``catalogue`` measures how long. The index is built in
one process and searched in another, with the settings tuned on held-out vectors or, if their recall
on the queries is below 0.9, with the fastest setting that reaches it. Results are kept in
FOLDER/results and not measured again. From a million vectors on, the search is repeated cold with
40 bytes of memory per vector for everything except the interpreter and its libraries: codes, ids,
and the pages of the mapped vectors that the system keeps (control groups; root only).
"""

from __future__ import annotations

import argparse
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import MODULE, K, kept, queries_and_truth, starved
from benchmarks.processes import run
from benchmarks.suite import machine
from benchmarks.suite.result import Result, Work, table
from benchmarks.vectors import SYNTHETIC, database_and_queries, open_vectors, reals_of, unit

_BYTES_PER_VECTOR = 40
_RECALL = 0.9
_STEPS = "10000,30000,100000,300000,1000000,3000000,10000000"


def growth(folder: Path, counts: list[int], kind: str) -> list[dict[str, Any]]:
    """Measure every count, smallest first."""
    return [
        kept(folder, _label(folder, kind, count), lambda count=count: grown(folder, count, kind))
        for count in sorted(counts)
    ]


def _label(folder: Path, kind: str, count: int) -> str:
    """What a result belongs to: the vectors, and the revision of the index."""
    revision = machine.revision().replace(" ", "")
    return f"growth-{kind}-{count}-of-{reals_of(folder)}-{revision}"


def growth_table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    return table(
        (
            "vectors",
            "build: s; CPU s",
            "RAM building, bytes per vector",
            "files, bytes per vector: codes; vectors and ids",
            "RAM held, bytes per vector",
            f"recall@{K}",
            "1 query, ms: median, p99",
            f"with {_BYTES_PER_VECTOR} bytes per vector in all: recall; median, p99",
        ),
        [_cells(row) for row in rows],
    )


def _cells(row: dict[str, Any]) -> list[str]:
    count, sizes, less = row["count"], row["sizes"], row["limited"]
    rest = sum(size for name, size in sizes.items() if name != "index.faiss")
    strict = less.get("problem", "")
    if "recall" in less:
        strict = f"{less['recall']:.3f}; {less['median']:.2f}, {less['p99']:.2f}"
    return [
        f"{count:,}",
        f"{row['seconds']:,.1f}; {row['cpu']:,.1f}",
        f"{row['anonymous'] / count:,.0f}",
        f"{sizes['index.faiss'] / count:.1f}; {rest / count:,.0f}",
        f"{row['held'] / count:.1f}",
        f"{row['recall_found']:.3f}",
        f"{row['median']:.2f}, {row['p99']:.2f}",
        strict,
    ]


def built(folder: Path, count: int, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build an index of ``count`` vectors; the task that searches it, and what building took."""
    xb = open_vectors(folder, SYNTHETIC, count)
    _, xq = database_and_queries(folder, reals_of(folder))
    name = f"{SYNTHETIC}-{count}-of-{reals_of(folder)}"
    queries, truth = queries_and_truth(folder, xb, xq, name)
    task = {
        "vectors": str(folder / f"{SYNTHETIC}.npy"),
        "queries": str(queries),
        "truth": str(truth),
        "work": str(folder / f"work-{count}"),
        "count": count,
        "kind": kind,
        "target": _RECALL,
    }
    made = kept(
        folder,
        f"build-{_label(folder, kind, count)}",
        lambda: run(MODULE, {**task, "do": "build", "threads": 2}),
    )
    return task, made


def grown(folder: Path, count: int, kind: str) -> dict[str, Any]:
    """Build an index of ``count`` vectors and search it; its files are removed afterwards."""
    task, made = built(folder, count, kind)
    searching = {**task, "do": "search", "threads": [1]}
    answer = run(MODULE, searching)
    if answer["rows"][0]["recall"] < _RECALL:
        found = run(MODULE, {**searching, "targets": [_RECALL]})
        answer = found if found["rows"] else answer
    row = answer["rows"][0]
    if row["values"] is not None:
        searching |= {"settings": [row["values"]]}
    # The memory of the interpreter and the libraries is not attributed to the vectors.
    base = run(MODULE, {"do": "nothing"})["peak"]
    limit = base + _BYTES_PER_VECTOR * count
    limited = (
        starved(searching, Path(task["work"]), limit) if count >= 1_000_000 else {"problem": "-"}
    )
    limited |= limited.get("rows", [{}])[0]
    shutil.rmtree(task["work"])
    held = {"loaded": answer["loaded"], "held": answer["held"], "recall_found": row["recall"]}
    times = {name: row[name] for name in ("setting", "median", "p99", "rates")}
    return {**made, **held, **times, "count": count, "limited": limited}


def part(work: Work) -> Result:
    """The block ``growth`` of docs/benchmarks.md, and its drawing."""
    if find_spec("matplotlib") is None:
        raise SystemExit("the drawing needs matplotlib: `pip install matplotlib`")
    folder = work.folder / "million"
    rows = growth(folder, [int(n) for n in _STEPS.split(",")], "rabitq")
    if not work.short:
        plot(rows, machine.ROOT / "docs" / "growth.svg")
    reals = reals_of(folder)
    return Result(
        growth_table(rows),
        n=f"{reals:,} real vectors, the rest synthetic; 1,000 queries, one run",
        threads="2 to build, 1 to search",
        packages=("faiss-cpu", "numpy"),
    )


def plot(rows: list[dict[str, Any]], out: Path) -> None:
    """Plot the table as SVG; needs matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "growth", "font.size": 9})
    from matplotlib import pyplot

    counts = [row["count"] for row in rows]
    figure, axes = pyplot.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained")
    axes[0].plot(counts, [row["seconds"] for row in rows], "o-", label="build")
    axes[0].plot(counts, [row["reading"] for row in rows], "o--", label="reading and writing")
    axes[0].set(title="Time to build", ylabel="seconds")
    held = [row["held"] / row["count"] for row in rows]
    axes[1].plot(counts, [max(value, 0.1) for value in held], "o-", label="searching, RAM")
    codes = [row["sizes"]["index.faiss"] / row["count"] for row in rows]
    axes[1].plot(counts, codes, "o--", label="codes, mapped")
    axes[1].plot(counts, [row["anonymous"] / row["count"] for row in rows], "o:", label="building")
    axes[1].axhline(_BYTES_PER_VECTOR, color="grey", linewidth=0.8)
    axes[1].set(title="Memory", ylabel="bytes per vector")
    axes[2].plot(counts, [row["median"] for row in rows], "o-", label="median")
    axes[2].plot(counts, [row["p99"] for row in rows], "o--", label="99th percentile")
    axes[2].set(title="One query, one thread", ylabel="milliseconds")
    for axis in axes:
        axis.set(xscale="log", yscale="log", xlabel="vectors")
        axis.grid(True, linewidth=0.3)
        axis.legend(frameon=False)
    figure.savefig(out, metadata={"Date": None})
    print(f"wrote {out}")


def catalogue(folder: Path, counts: list[int]) -> None:
    """How fast the catalogue inserts rows, reads them in pieces and checks them."""
    from index.local.catalogue import SqliteCatalogue
    from index.records import Record

    real, _ = database_and_queries(folder)
    path = folder / "catalogue" / "catalogue.sqlite"
    shutil.rmtree(path.parent, ignore_errors=True)
    print("| rows | rows/s added, 500 per write | rows/s read in pieces | bytes per row |")
    print("|---|---|---|---|")
    with SqliteCatalogue(path) as store:
        done = 0
        for count in counts:
            first, started = done, time.perf_counter()
            while done < count:
                rows = range(done, min(done + 500, count))
                records = [Record(f"train/{i:08d}", "train", "cat", {"n": i}) for i in rows]
                store.upsert(records, unit(real[np.array(rows) % len(real)]), "m")
                done = rows[-1] + 1
            added = (done - first) / (time.perf_counter() - started)
            started = time.perf_counter()
            with store.reading_embeddings("m") as stored:
                read = sum(len(ids) for ids, _ in stored.pieces)
            rate = read / (time.perf_counter() - started)
            size = sum(file.stat().st_size for file in path.parent.iterdir()) / done
            print(f"| {done:,} | {added:,.0f} | {rate:,.0f} | {size:,.0f} |", flush=True)
        started = time.perf_counter()
        if store.check() is not None:
            raise SystemExit("the catalogue is damaged")
        print(f"every checksum: {done / (time.perf_counter() - started):,.0f} rows per second")
    shutil.rmtree(path.parent)


def main() -> None:
    """Measure and print, or plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["build", "table", "plot", "catalogue"])
    parser.add_argument(
        "--folder", type=Path, required=True, help="vectors, temporary files and results"
    )
    parser.add_argument("--kind", default="rabitq")
    parser.add_argument("--counts", help=f"default: {_STEPS}")
    parser.add_argument("--out", type=Path, default=Path("docs/growth.svg"))
    arguments = parser.parse_args()
    (arguments.folder / "results").mkdir(exist_ok=True)
    if arguments.part == "catalogue":
        counts = arguments.counts or "100000,200000"
        catalogue(arguments.folder, [int(n) for n in counts.split(",")])
        return
    counts = [int(n) for n in (arguments.counts or _STEPS).split(",")]
    if arguments.part == "build":
        for count in counts:
            built(arguments.folder, count, arguments.kind)
        return
    rows = growth(arguments.folder, counts, arguments.kind)
    print(growth_table(rows))
    if arguments.part == "plot":
        plot(rows, arguments.out)


if __name__ == "__main__":
    main()
