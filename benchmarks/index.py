"""Speed, recall and memory of the kinds of index, in one process over the same vectors.

    python -m benchmarks.index cifar --data ../shared
    python -m benchmarks.index vectors --vectors vectors.npy --queries queries.npy --hnswlib

``cifar`` embeds CIFAR-10 with the bundle that ships (or reads ``--vectors``) and holds out 1,000
vectors as queries. Every time comes with recall@10 against brute force. FAISS's ``IndexFlatIP`` has
its default settings; the last column is the speed-up over it. Times are medians.
`benchmarks.million` and `benchmarks.growth` measure more vectors.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import threadpoolctl

from index.ann import kinds
from index.ann.exact import ExactIndex
from index.contract import Searchable

K = 10


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


class Table:
    """Prints a table row by row."""

    def __init__(self, seconds: float, xq: np.ndarray, truth: np.ndarray) -> None:
        self.seconds, self.xq, self.truth = seconds, xq, truth
        print(
            f"\n| index | recall@{K} | build s | MB | 1 query ms | 32 queries ms | queries/s (32)"
            " | times faster: 1, 32 |"
        )
        print(f"|{'---|' * 8}")
        self.first: tuple[float, float] | None = None

    def row(
        self, name: str, search: Callable[[np.ndarray], np.ndarray], build: float, held: float
    ) -> None:
        """Measure and print one index; ``search`` returns ids (nq, K)."""
        found = np.concatenate([search(self.xq[i : i + 32]) for i in range(0, len(self.xq), 32)])
        queries = iter(range(10**9))
        n = len(self.xq)

        def one() -> object:
            i = next(queries) % n
            return search(self.xq[i : i + 1])

        def many() -> object:
            i = next(queries) % (n - 32)
            return search(self.xq[i : i + 32])

        single, batch = median_ms(one, self.seconds), median_ms(many, self.seconds)
        self.first = self.first or (single, batch)
        print(
            f"| {name} | {recall(found, self.truth):.4f} | {build:.1f} | {held / 1e6:.0f} "
            f"| {single:.3f} | {batch:.2f} | {32_000 / batch:,.0f}"
            f" | {self.first[0] / single:.1f}, {self.first[1] / batch:.1f} |",
            flush=True,
        )


def measured(table: Table, name: str, build: Callable[[], Searchable]) -> Searchable:
    """Build one of Lookalike's indexes, print its row, and return it."""
    before, started = memory(), time.perf_counter()
    index = build()
    seconds, held = time.perf_counter() - started, memory() - before
    table.row(name, lambda q: index.search(q, K).ids, seconds, held)
    return index


def compare(
    xb: np.ndarray, xq: np.ndarray, names: list[str], targets: list[float], arguments
) -> None:
    """Print the tables of ``cifar`` and ``vectors``."""
    ids = np.arange(len(xb))
    exact = ExactIndex(xb.shape[1])
    exact.add(ids, xb)
    truth = exact.search(xq, K).ids
    for threads in arguments.threads:
        faiss.omp_set_num_threads(threads)
        threadpoolctl.threadpool_limits(threads, user_api="blas")  # NumPy's products in `exact`
        print(f"\n{len(xb):,} x {xb.shape[1]}, {len(xq):,} queries, {threads} thread(s)")
        table = Table(arguments.seconds, xq, truth)
        flat = faiss.IndexFlatIP(xb.shape[1])
        flat.add(xb)
        table.row(
            "IndexFlatIP, default settings",
            lambda q, flat=flat: flat.search(q, K)[1],
            0,
            xb.nbytes,
        )
        table.row("Lookalike exact", lambda q: exact.search(q, K).ids, 0, xb.nbytes)
        for name in names:
            for target in targets:
                index = measured(
                    table,
                    f"Lookalike {name}, target {target}",
                    lambda name=name, target=target: kinds.build_collected(
                        kinds.Collected(name, ids, xb), target
                    ),
                )
                print(f"<!-- {kinds.description(index)} -->")
        if arguments.hnswlib:
            hnswlib_rows(table, xb, threads, targets)


def hnswlib_rows(table: Table, xb: np.ndarray, threads: int, targets: list[float]) -> None:
    """hnswlib (`pip install hnswlib`) at the smallest ef that reaches each target."""
    import hnswlib

    before, started = memory(), time.perf_counter()
    index = hnswlib.Index(space="ip", dim=xb.shape[1])
    index.init_index(max_elements=len(xb), ef_construction=200, M=32)
    index.set_num_threads(threads)
    index.add_items(xb, np.arange(len(xb)))
    seconds, held = time.perf_counter() - started, memory() - before
    for target in targets:
        for ef in (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512):
            index.set_ef(ef)
            if recall(index.knn_query(table.xq, K)[0], table.truth) >= target:
                break
        table.row(f"hnswlib M=32, ef {ef}", lambda q: index.knn_query(q, K)[0], seconds, held)


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
    parser.add_argument("--targets", default="0.999")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of each measurement")
    parser.add_argument("--hnswlib", action="store_true")
    arguments = parser.parse_args()
    arguments.threads = [int(n) for n in arguments.threads.split(",")]
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
        held = np.random.default_rng(0).permutation(len(xb))[:1000]
        xq = np.array(xb[np.sort(held)])
        xb = np.ascontiguousarray(np.delete(xb, held, axis=0))
    targets = [float(x) for x in arguments.targets.split(",")]
    compare(xb, xq, arguments.kinds.split(","), targets, arguments)


if __name__ == "__main__":
    main()
