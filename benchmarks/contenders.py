"""What `million` and `growth` measure in separate processes; not run by hand.

Vectors are float16 from `benchmarks.vectors`, read in pieces and scaled to length 1 as float32.
Results are kept in FOLDER/results and not measured again.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import threadpoolctl

from benchmarks.index import recall
from benchmarks.peers.graphs import graph, is_peer
from benchmarks.processes import AnonymousPeak, Starved, forget_pages, memory, run
from benchmarks.vectors import unit

K = 10
MODULE = "benchmarks.contenders"
BATCH = 100
_EFFORTS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_MULTIPLES = (2, 5, 10, 20, 40)
_SECONDS = 10.0
"""How long slow ones are measured, at least once."""
_EF = (10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 384, 512)


def queries_and_truth(folder: Path, xb: np.ndarray, xq: np.ndarray, name: str) -> tuple[Path, Path]:
    """Files, kept in the folder: the queries, and the rows of their nearest, int (nq, K)."""
    from index.ann.scan import best_of, exact_rows

    queries = folder / "results" / f"queries-{name}.npy"
    truth = folder / "results" / f"truth-{name}.npy"
    if not truth.exists():
        queries.parent.mkdir(exist_ok=True)
        best_scores, best = np.empty((len(xq), 0)), np.empty((len(xq), 0), np.int64)
        for start in range(0, len(xb), 500_000):
            part = unit(xb[start : start + 500_000])
            found = best_of(np.arange(len(part)), part, xq, K, exact_rows(part, xq, K))
            best_scores = np.hstack((best_scores, found.scores))
            best = np.hstack((best, found.ids + start))
            order = np.argsort(-best_scores, axis=1, kind="stable")[:, :K]
            best_scores = np.take_along_axis(best_scores, order, axis=1)
            best = np.take_along_axis(best, order, axis=1)
        np.save(queries, xq)
        np.save(truth, best)
    return queries, truth


def pieces(xb: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and float32 vectors, piece by piece, from float16."""
    for start in range(0, count, 20_000):
        stop = min(start + 20_000, count)
        yield np.arange(start, stop), unit(xb[start:stop])


def kept(folder: Path, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of this name, measured now if it does not exist."""
    path = folder / "results" / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(measure()) + "\n")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def build(task: dict[str, Any]) -> dict[str, Any]:
    """Build an index from pieces, leaving its files; return time and memory."""
    work = Path(task["work"])
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    faiss.omp_set_num_threads(task["threads"])
    xb = np.load(task["vectors"], mmap_mode="r")
    base = memory()["anonymous"]
    with AnonymousPeak() as peak:
        started, cpu = time.perf_counter(), time.process_time()
        make = _build_peer if is_peer(task["kind"]) else _build_ours
        about = make(task, xb, work)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu": cpu,
        "anonymous": peak.bytes - base,
        "peak": memory()["peak"],
        "sizes": {path.name: path.stat().st_size for path in work.iterdir()},
        **about,
    }


def _build_peer(task: dict[str, Any], xb: np.ndarray, work: Path) -> dict[str, Any]:
    index = graph(task["kind"], xb.shape[1])
    index.build(pieces(xb, task["count"]), task["count"], task["threads"])
    index.save(work)
    return {"kind": task["kind"]}


def _build_ours(task: dict[str, Any], xb: np.ndarray, work: Path) -> dict[str, Any]:
    from index.ann import kinds

    started = time.perf_counter()
    count = task["count"]
    collected = kinds.collect(pieces(xb, count), count, xb.shape[1], task["kind"], work)
    read = time.perf_counter() - started
    index = kinds.build_collected(collected, task["target"])
    kinds.save(index, work)
    built = kinds.description(index)
    about = {"kind": index.kind, "parameters": dict(built.parameters), "recall": built.recall}
    (work / "about.json").write_text(json.dumps(about))
    return {"reading": read, **about}


def search(task: dict[str, Any]) -> dict[str, Any]:
    """Load what `build` wrote and search it.

    With ``settings``, measure each of them; with ``targets``, the fastest that reaches each;
    otherwise what it was tuned to.
    """
    xq, truth = np.load(task["queries"]), np.load(task["truth"])
    nothing({})  # the libraries' own memory is not attributed to the vectors
    if is_peer(task["kind"]):
        graph(task["kind"], xq.shape[1])
    base = memory()
    started = time.perf_counter()
    index = (_Peer if is_peer(task["kind"]) else _Ours)(task, xq.shape[1])
    loaded = time.perf_counter() - started
    if "settings" in task:
        chosen = [{"values": values} for values in task["settings"]]
    elif task.get("targets") and index.options:
        chosen = _fastest(index, xq, truth, task["targets"])
    else:
        chosen = [{"values": None}]
    rows = []
    for choice in chosen:
        index.set(choice["values"], 1)
        row = {**choice, "setting": index.words(choice["values"])}
        rows.append({**row, **speed(index, choice["values"], xq, truth, task["threads"])})
    now = memory()
    held = now["anonymous"] - base["anonymous"]
    files = held + now["mapped"] - base["mapped"]
    return {"rows": rows, "loaded": loaded, "held": held, "with_files": files, **now}


class _Ours:
    """An index of `index.ann.kinds`: settings are effort, and candidates as a multiple of k."""

    def __init__(self, task: dict[str, Any], dimension: int) -> None:
        from index.ann import kinds

        work = Path(task["work"])
        about = json.loads((work / "about.json").read_text())
        self._index = kinds.load(work, about["kind"], about["parameters"], about["recall"])
        self._tuned = dict(about["parameters"])
        multiples = _MULTIPLES if about["kind"] not in ("ivf", "hnsw") else (1, 2, 5)
        self.options: list[Any] = [[effort, many] for effort in _EFFORTS for many in multiples]
        if not self._tuned:
            self.options = []

    def set(self, values: Any, threads: int) -> None:
        faiss.omp_set_num_threads(threads)
        threadpoolctl.threadpool_limits(threads, user_api="blas")
        if values is not None:
            parameters: dict[str, Any] = self._index.parameters  # type: ignore[attr-defined]
            parameters |= {"effort": values[0], "rescored": values[1]}

    def words(self, values: Any) -> str:
        if not self._tuned:
            return ""
        effort, many = values or (self._tuned["effort"], self._tuned["rescored"])
        return f"effort {effort}, {many} k scored"

    def search(self, xq: np.ndarray) -> np.ndarray:
        return self._index.search(xq, K).ids


class _Peer:
    """Another library's graph: the setting is ef."""

    def __init__(self, task: dict[str, Any], dimension: int) -> None:
        self.options: list[Any] = list(_EF)
        self._index = graph(task["kind"], dimension)
        self._index.load(Path(task["work"]))

    def set(self, values: Any, threads: int) -> None:
        self._index.set(values, threads)

    def words(self, values: Any) -> str:
        return f"ef {values}"

    def search(self, xq: np.ndarray) -> np.ndarray:
        return self._index.search(xq, K)


def _fastest(
    index: _Ours | _Peer, xq: np.ndarray, truth: np.ndarray, targets: list[float]
) -> list[dict[str, Any]]:
    """For each target, the setting that reaches it in the least time.

    Targets that none reaches share the setting that comes nearest.
    """
    tried: list[tuple[float, Any, float]] = []
    enough: list[Any] = []
    for values in index.options:
        # More of everything than a setting that reaches every target only costs more.
        if any(np.all(np.asarray(values) >= np.asarray(one)) for one in enough):
            continue
        index.set(values, 1)
        begun = time.perf_counter()
        parts = [index.search(xq[i : i + BATCH]) for i in range(0, len(xq), BATCH)]
        tried.append((time.perf_counter() - begun, values, recall(np.concatenate(parts), truth)))
        if tried[-1][2] >= max(targets):
            enough.append(values)
    chosen = []
    for target in targets:
        good = [one for one in tried if one[2] >= target]
        if not good:
            nearest = max(tried, key=lambda one: (one[2], -one[0]))
            return [*chosen, {"target": None, "values": nearest[1]}]
        chosen.append({"target": target, "values": min(good, key=lambda one: one[0])[1]})
    return chosen


def speed(
    index: _Ours | _Peer, values: Any, xq: np.ndarray, truth: np.ndarray, threads: list[int]
) -> dict[str, Any]:
    """Recall, the times of single queries, and the rate in batches by number of threads."""
    found = np.concatenate([index.search(xq[i : i + BATCH]) for i in range(0, len(xq), BATCH)])
    single = []
    ends = time.perf_counter() + _SECONDS
    for i in range(len(xq)):
        started = time.perf_counter()
        index.search(xq[i : i + 1])
        single.append(1000 * (time.perf_counter() - started))
        if time.perf_counter() > ends:
            break
    rates = {}
    for number in threads:
        index.set(values, number)
        rounds: list[float] = []
        ends = time.perf_counter() + _SECONDS
        while len(rounds) < 5 and (not rounds or time.perf_counter() < ends):
            started = time.perf_counter()
            for i in range(0, len(xq), BATCH):
                index.search(xq[i : i + BATCH])
            rounds.append(len(xq) / (time.perf_counter() - started))
        rates[str(number)] = statistics.median(rounds)
    return {
        "recall": recall(found, truth),
        "median": statistics.median(single),
        "p99": sorted(single)[int(0.99 * len(single))],
        "rates": rates,
    }


def nothing(task: dict[str, Any]) -> dict[str, Any]:
    """Import what a search needs, and search a small index once."""
    from index.ann import kinds

    xb = unit(np.random.default_rng(0).standard_normal((5000, 64)))
    collected = kinds.Collected("rabitq", np.arange(5000), xb)
    kinds.build_collected(collected, 0.5).search(xb[:1000], K)
    return memory()


def starved(task: dict[str, Any], work: Path, limit: int) -> dict[str, Any]:
    """`search` with ``limit`` bytes of memory, including files; or the problem with that."""
    forget_pages(work)
    try:
        return run(MODULE, task, limit)
    except (Starved, OSError) as error:
        return {"problem": str(error)}


if __name__ == "__main__":
    todo = json.loads(sys.argv[-1])
    do = {"build": build, "search": search, "nothing": nothing}
    print(json.dumps(do[todo["do"]](todo)))
