"""A million real vectors: speed and memory of Lookalike's kinds and hnswlib at equal recall.

    python -m benchmarks.vectors real --folder FOLDER --data ../shared
    python -m benchmarks.million --folder FOLDER

1,000 held-out queries, recall@10 against brute force. Every index is built in a process of its own,
and Lookalike's are searched in another one. Results are kept in FOLDER/results and not measured
again, so that an interrupted run resumes. For each target, both hnswlib (`pip install hnswlib`) and
Lookalike use the fastest setting that reaches it on these queries.

Peak memory is that of the process, including the pages of mapped files that it touched and the
system kept; "anonymous" memory is what it cannot do without. The last column repeats the search
from a cold start with half of hnswlib's peak, including files (control groups; root only).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.contenders import BATCH, MODULE, K, kept, queries_and_truth, starved
from benchmarks.processes import run
from benchmarks.vectors import database_and_queries

# Less than this hardly fits the interpreter and its libraries.
_INTERPRETER = 300_000_000


def million(folder: Path, names: list[str], targets: list[float], threads: list[int]) -> None:
    """Print the table of a million vectors."""
    xb, _ = database_and_queries(folder)
    count = len(xb)
    xq, _ = queries_and_truth(folder, xb, "real", count)
    np.save(folder / "results" / "queries.npy", xq)
    task = {
        "vectors": str(folder / "real.npy"),
        "queries": str(folder / "results" / "queries.npy"),
        "truth": str(folder / "results" / f"truth-real-{count}.npy"),
        "count": count,
        "threads": threads,
        "targets": targets,
    }
    print(f"{count:,} x {xb.shape[1]}, {len(xq):,} queries, recall@{K}, batches of {BATCH}")
    heads = [f"queries/s, {n} thread(s)" for n in threads]
    print(
        f"| index | recall@{K} | build s | peak MB building | peak MB searching | anonymous part"
        f" | 1 query ms | {' | '.join(heads)} | with half of hnswlib's memory |\n"
        f"|{'---|' * (8 + len(heads))}"
    )
    half = None
    for name in names:
        if name.startswith("hnswlib"):
            try:
                import hnswlib  # noqa: F401 - only checks that it is installed
            except ImportError:
                print(f"| {name} | not installed: `pip install hnswlib` |")
                continue
            job = {**task, "do": "hnswlib", "m": int(name.removeprefix("hnswlib-"))}
            answer = kept(folder, f"million-{name}", lambda job=job: run(MODULE, job))
            half = min(half or answer["peak"] // 2, answer["peak"] // 2)
            made = {"seconds": answer["seconds"], "peak": answer["built_peak"]}
        else:
            safe = name.replace(",", "-")
            work = folder / f"work-{safe}"
            job = {**task, "kind": name, "work": str(work), "target": 0.9, "threads": 2}
            made = kept(
                folder,
                f"million-build-{safe}",
                lambda job=job: run(MODULE, {**job, "do": "build"}),
            )
            job = {**task, "do": "search", "work": str(work)}
            answer = kept(folder, f"million-{safe}", lambda job=job: run(MODULE, job))
            if half is not None and half > _INTERPRETER:
                job["settings"] = [row["values"] for row in answer["rows"]]
                limited = kept(
                    folder,
                    f"million-half-{safe}",
                    lambda job=job, work=work, half=half: starved(job, work, half),
                )
                for row, less in zip(answer["rows"], limited.get("rows", []), strict=False):
                    row["half"] = less["rates"][str(threads[-1])]
        for row in answer["rows"]:
            rates = " | ".join(f"{row['rates'][str(n)]:,.0f}" for n in threads)
            rest = f"{row['half']:,.0f}" if "half" in row else ""
            print(
                f"| {name}, {row['setting']} | {row['recall']:.4f} | {made['seconds']:.0f}"
                f" | {made['peak'] / 1e6:,.0f} | {answer['peak'] / 1e6:,.0f}"
                f" | {answer['anonymous'] / 1e6:,.0f} | {row['median']:.3f} | {rates} | {rest} |",
                flush=True,
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, required=True, help="vectors, temporary files and results"
    )
    parser.add_argument("--names", default="hnswlib-16,hnswlib-32,rabitq,ivf,hnsw")
    parser.add_argument("--targets", default="0.95,0.99")
    parser.add_argument("--threads", default="1,2")
    arguments = parser.parse_args()
    (arguments.folder / "results").mkdir(exist_ok=True)
    targets = [float(x) for x in arguments.targets.split(",")]
    threads = [int(n) for n in arguments.threads.split(",")]
    million(arguments.folder, arguments.names.split(","), targets, threads)


if __name__ == "__main__":
    main()
