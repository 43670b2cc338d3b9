"""Speed, recall and memory of the kinds of index, in one process over the same vectors.

    python -m benchmarks.index cifar --data ../shared
    python -m benchmarks.index vectors --vectors vectors.npy --queries queries.npy

``cifar`` embeds CIFAR-10 with the bundle that ships (or reads ``--vectors``) and holds out 1,000
vectors as queries. Every time comes with recall@10 against brute force in float64. FAISS's
``IndexFlatIP`` has its default settings; the last column is the speed-up over it. Times are
medians. hnswlib (`pip install '.[bench]'`) has M = 32, efConstruction = 200 and the smallest of
twelve ef that reaches the target on the queries themselves; Lookalike is tuned on held-out
vectors. `benchmarks.million` and `benchmarks.growth` measure more vectors.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import threadpoolctl

from benchmarks.suite import prepared
from benchmarks.suite.result import Headline, Result, Work, table
from index.ann import kinds
from index.ann.exact import ExactIndex

K = 10
FLAT, EXACT = "`IndexFlatIP`", "`exact`"
_EF = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_COLUMNS = (
    *("index", "threads", f"recall@{K}", "build s", "MB", "1 query ms", "32 queries ms"),
    *("queries/s (32)", "times faster: 1, 32"),
)
_WITHOUT = "\n\nhnswlib was not installed: `pip install '.[bench]'`."
_PACKAGES = ("faiss-cpu", "hnswlib", "numpy")

Search = Callable[[np.ndarray], np.ndarray]
"""Queries float32 (nq, d) to ids (nq, K)."""


@dataclass(frozen=True)
class Contender:
    """A built index; ``build`` in seconds, ``held`` in bytes."""

    name: str
    search: Search
    build: float
    held: float


@dataclass(frozen=True)
class Row:
    """What was measured of one: the medians of one query and of 32, in milliseconds."""

    contender: Contender
    threads: int
    recall: float
    one: float
    many: float


def cifar(data: Path) -> np.ndarray:
    """The embeddings of CIFAR-10's 60,000 pictures by the bundle that ships, float32 (n, d)."""
    from embed.bundle import PRETRAINED, Bundle
    from embed.corpus import cifar10
    from embed.encoder import Encoder

    encoder = Encoder(Bundle.load(PRETRAINED))
    splits = cifar10(data).splits
    pictures = np.concatenate([splits[name][0] for name in ("train", "test")])
    return encoder.encode(pictures).embeddings


def memory() -> int:
    """The resident memory of this process, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def median_ms(call: Callable[[], object], seconds: float) -> float:
    """The median time of a call in milliseconds, after one warm-up call."""
    call()
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or len(times) < 5:
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of the true nearest that were found; both int (nq, K)."""
    return float(np.mean([np.isin(t, f).mean() for f, t in zip(found, truth, strict=True)]))


def nearest(xb: np.ndarray, xq: np.ndarray) -> np.ndarray:
    """The true nearest in any order, int (nq, K): in float64, by none of what is measured."""
    wide = xb.astype(np.float64).T
    scores = (xq[i : i + 100].astype(np.float64) @ wide for i in range(0, len(xq), 100))
    return np.concatenate([np.argpartition(-part, K, axis=1)[:, :K] for part in scores])


def limit_threads(threads: int) -> None:
    """Of FAISS, and of NumPy's products in `exact`."""
    faiss.omp_set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads, user_api="blas")


def measured(
    contender: Contender, xq: np.ndarray, truth: np.ndarray, threads: int, seconds: float
) -> Row:
    """Measure one index with queries in turn, for ``seconds`` each way."""
    search, n = contender.search, len(xq)
    found = np.concatenate([search(xq[i : i + 32]) for i in range(0, n, 32)])
    turn = iter(range(10**9))

    def queries(count: int) -> np.ndarray:
        i = next(turn) % (n - count)
        return xq[i : i + count]

    one = median_ms(lambda: search(queries(1)), seconds)
    many = median_ms(lambda: search(queries(32)), seconds)
    return Row(contender, threads, recall(found, truth), one, many)


def built(name: str, build: Callable[[], Search]) -> Contender:
    """Build an index; time and memory."""
    before, started = memory(), time.perf_counter()
    search = build()
    return Contender(name, search, time.perf_counter() - started, memory() - before)


def contenders(
    xb: np.ndarray,
    xq: np.ndarray,
    truth: np.ndarray,
    names: Sequence[str],
    targets: Sequence[float],
) -> Iterator[Contender]:
    """FAISS by itself first, then ours, then hnswlib if it is installed."""
    flat = faiss.IndexFlatIP(xb.shape[1])
    flat.add(xb)
    yield Contender(FLAT, lambda q: flat.search(q, K)[1], 0, xb.nbytes)
    ids = np.arange(len(xb))

    def exact() -> Search:
        index = ExactIndex(xb.shape[1])
        index.add(ids, xb)
        return lambda q: index.search(q, K).ids

    yield built(EXACT, exact)
    for name in names:
        for target in targets:

            def approximate(name: str = name, target: float = target) -> Search:
                index = kinds.build_collected(kinds.Collected(name, ids, xb), target)
                return lambda q: index.search(q, K).ids

            yield built(f"`{name}`, target {target}", approximate)
    yield from hnswlib_contenders(xb, xq, truth, targets)


def hnswlib_contenders(
    xb: np.ndarray, xq: np.ndarray, truth: np.ndarray, targets: Sequence[float]
) -> Iterator[Contender]:
    """hnswlib for each target, if it is installed."""
    try:
        import hnswlib
    except ImportError:
        return
    index = hnswlib.Index(space="ip", dim=xb.shape[1])
    before, started = memory(), time.perf_counter()
    index.init_index(max_elements=len(xb), ef_construction=200, M=32)
    index.set_num_threads(faiss.omp_get_max_threads())
    index.add_items(xb, np.arange(len(xb)))
    seconds, held = time.perf_counter() - started, memory() - before
    for target in targets:
        for ef in _EF:
            index.set_ef(ef)
            if recall(index.knn_query(xq, K)[0], truth) >= target:
                break

        def search(q: np.ndarray, ef: int = ef) -> np.ndarray:
            index.set_ef(ef)
            return index.knn_query(q, K, num_threads=faiss.omp_get_max_threads())[0]

        yield Contender(f"hnswlib, target {target}: ef {ef}", search, seconds, held)


def compare(
    xb: np.ndarray,
    xq: np.ndarray,
    names: Sequence[str],
    targets: Sequence[float],
    threads: Sequence[int],
    seconds: float,
    say: Callable[[str], object] = print,
) -> list[Row]:
    """Rows by threads, `IndexFlatIP` first. Each index is built once, with the most threads."""
    limit_threads(max(threads))
    truth = nearest(xb, xq)
    rows = []
    for contender in contenders(xb, xq, truth, names, targets):
        for count in threads:
            limit_threads(count)
            rows.append(measured(contender, xq, truth, count, seconds))
            row = rows[-1]
            say(f"{contender.name}, {count} threads: {row.recall:.4f} {row.one:.3f} {row.many:.2f}")
        limit_threads(max(threads))
    return sorted(rows, key=lambda row: threads.index(row.threads))


def as_table(rows: Sequence[Row]) -> str:
    """Markdown."""
    first = {row.threads: row for row in reversed(rows)}
    return table(
        _COLUMNS,
        (
            (
                row.contender.name,
                row.threads,
                f"{row.recall:.4f}",
                f"{row.contender.build:.1f}",
                f"{row.contender.held / 1e6:.0f}",
                f"{row.one:.3f}",
                f"{row.many:.2f}",
                f"{32_000 / row.many:,.0f}",
                f"{first[row.threads].one / row.one:.1f}, {first[row.threads].many / row.many:.1f}",
            )
            for row in rows
        ),
    )


def part(work: Work) -> Result:
    """For `make bench`: the dimension that ships."""
    return _part(work, prepared.vectors(work), "model")


def photo_part(work: Work) -> Result:
    """For `make bench`: the photo encoder's dimension."""
    return _part(work, prepared.photo_vectors(work), "photo encoder")


def _part(work: Work, x: np.ndarray, model: str) -> Result:
    xb, xq = prepared.held_out(x)
    targets = (0.99,) if work.short else (0.95, 0.99)
    seconds = 0.1 if work.short else 2.0
    rows = compare(xb, xq, ("ivf", "hnsw"), targets, (1, 2), seconds, work.say)
    flat, exact = (row for row in rows if row.threads == 1 and row.contender.name in (FLAT, EXACT))
    headlines = [
        Headline(
            f"exact search, {len(xb):,} vectors of {xb.shape[1]}, {what}, one thread",
            f"{ours:.2f} ms",
            f"{FLAT} {theirs:.2f} ms",
            theirs / ours,
        )
        for what, ours, theirs in (
            ("one query", exact.one, flat.one),
            ("32 queries", exact.many, flat.many),
        )
    ]
    shape = f"{len(xb):,} vectors of {xb.shape[1]} dimensions"
    without = "" if any("hnswlib" in row.contender.name for row in rows) else _WITHOUT
    return Result(
        f"{shape}, {len(xq):,} others as queries.\n\n{as_table(rows)}{without}",
        n=f"{len(xq):,} queries, medians of {seconds:g} s each",
        threads="as in the table, 2 to build",
        models=(model,),
        packages=_PACKAGES,
        headlines=headlines,
    )


def ratios(work: Work) -> dict[str, float]:
    """For `make bench-check`: one thread; `exact` against FAISS's, `hnsw` against hnswlib."""
    xb, xq = prepared.held_out(prepared.vectors(work))
    limit_threads(2)
    truth = nearest(xb, xq)
    found = {}
    for contender in contenders(xb, xq, truth, ("hnsw",), (0.95,)):
        limit_threads(1)
        name = contender.name.partition(",")[0].strip("`")
        found[name] = measured(contender, xq, truth, 1, 0.1 if work.short else 1.5)
        limit_threads(2)
    pairs = [("exact", "IndexFlatIP")]
    if "hnswlib" in found:
        pairs.append(("hnsw", "hnswlib"))
    return {
        f"index: {ours} against {peer}, {what}, one thread": value
        for ours, peer in pairs
        for what, value in (
            ("one query", found[peer].one / found[ours].one),
            ("32 queries", found[peer].many / found[ours].many),
        )
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["cifar", "vectors"])
    parser.add_argument("--data", type=Path, default=Path("../shared"))
    parser.add_argument("--vectors", type=Path, help="float32 (n, d) as .npy, L2-normalised rows")
    parser.add_argument(
        "--queries", type=Path, help="in the same format; default: 1,000 of the vectors"
    )
    parser.add_argument("--kinds", default="ivf,hnsw")
    parser.add_argument("--targets", default="0.95,0.99")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of each measurement")
    arguments = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"faiss {faiss.__version__}, NumPy {np.__version__}"
    )
    if arguments.part == "cifar" and arguments.vectors is None:
        xb = cifar(arguments.data)
    else:
        xb = np.load(arguments.vectors)
    if arguments.queries is not None:
        xq = np.load(arguments.queries)
    else:
        xb, xq = prepared.held_out(xb)
    targets = [float(x) for x in arguments.targets.split(",")]
    threads = [int(n) for n in arguments.threads.split(",")]
    rows = compare(xb, xq, arguments.kinds.split(","), targets, threads, arguments.seconds)
    print(f"\n{len(xb):,} x {xb.shape[1]}, {len(xq):,} queries\n\n{as_table(rows)}")


if __name__ == "__main__":
    main()
