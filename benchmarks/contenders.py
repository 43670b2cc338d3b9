"""What `million` and `growth` measure in separate processes; not to be run by hand.

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

from benchmarks.index import recall
from benchmarks.processes import AnonymousPeak, Starved, forget_pages, memory, run
from benchmarks.vectors import database_and_queries, unit

K = 10
MODULE = "benchmarks.contenders"
BATCH = 100
_EFFORTS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_MULTIPLES = (2, 5, 10, 20, 40)
_EF = (10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 384, 512)


def queries_and_truth(
    folder: Path, xb: np.ndarray, name: str, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The queries, float32, and the rows of their nearest, int (nq, K), cached in the folder."""
    from index.ann.scan import best_of, exact_rows

    _, xq = database_and_queries(folder)
    path = folder / "results" / f"truth-{name}-{count}.npy"
    if not path.exists():
        best_scores, best = np.empty((len(xq), 0)), np.empty((len(xq), 0), np.int64)
        for start in range(0, count, 500_000):
            part = unit(xb[start : min(start + 500_000, count)])
            found = best_of(np.arange(len(part)), part, xq, K, exact_rows(part, xq, K))
            best_scores = np.hstack((best_scores, found.scores))
            best = np.hstack((best, found.ids + start))
            order = np.argsort(-best_scores, axis=1, kind="stable")[:, :K]
            best_scores = np.take_along_axis(best_scores, order, axis=1)
            best = np.take_along_axis(best, order, axis=1)
        np.save(path, best)
    return xq, np.load(path)


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
    """Build one of Lookalike's kinds from pieces, leaving its files; return time and memory."""
    from index.ann import kinds

    work = Path(task["work"])
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    faiss.omp_set_num_threads(task["threads"])
    xb = np.load(task["vectors"], mmap_mode="r")
    base = memory()["anonymous"]
    with AnonymousPeak() as peak:
        started = time.perf_counter()
        collected = kinds.collect(
            pieces(xb, task["count"]), task["count"], xb.shape[1], task["kind"], work
        )
        read = time.perf_counter() - started
        index = kinds.build_collected(collected, task["target"])
        seconds = time.perf_counter() - started
    index.save(work)
    built = kinds.description(index)
    about = {"kind": index.kind, "parameters": dict(built.parameters), "recall": built.recall}
    (work / "about.json").write_text(json.dumps(about))
    sizes = {path.name: path.stat().st_size for path in work.iterdir()}
    return {
        "seconds": seconds,
        "reading": read,
        "anonymous": peak.bytes - base,
        "peak": memory()["peak"],
        "sizes": sizes,
        **about,
    }


def search(task: dict[str, Any]) -> dict[str, Any]:
    """Load what `build` wrote and search it.

    With ``settings``, measure each of them; with ``targets``, the fastest that reaches each.
    """
    from index.ann import kinds

    work = Path(task["work"])
    about = json.loads((work / "about.json").read_text())
    xq, truth = np.load(task["queries"]), np.load(task["truth"])
    nothing({})  # the libraries' own memory is not attributed to the vectors
    base = memory()["anonymous"]
    started = time.perf_counter()
    index = kinds.load(work, about["kind"], about["parameters"], about["recall"])
    loaded = time.perf_counter() - started

    def times(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, **speed(lambda q: index.search(q, K).ids, xq, truth, task["threads"])}

    setting: dict[str, Any] = index.parameters  # type: ignore[attr-defined]
    rows = []
    if "settings" in task:
        for effort, multiple in task["settings"]:
            setting |= {"effort": effort, "rescored": multiple}
            rows.append(times({"values": [effort, multiple]}))
        return {"rows": rows, "held": memory()["anonymous"] - base, **memory()}
    if not task.get("targets"):
        row = times({"loaded": loaded})
        return {**row, "held": memory()["anonymous"] - base, **memory()}
    faiss.omp_set_num_threads(1)
    multiples = _MULTIPLES if about["kind"] not in ("ivf", "hnsw") else (2, 5)
    options = [[effort, multiple] for effort in _EFFORTS for multiple in multiples]
    tried = []
    enough: list[tuple[float, int, int, float]] = []
    for effort, multiple in options:
        # More of both than a setting that reaches every target only costs more.
        if any(effort >= one[1] and multiple >= one[2] for one in enough):
            continue
        setting |= {"effort": effort, "rescored": multiple}
        begun = time.perf_counter()
        found = np.concatenate([index.search(xq[i : i + 100], K).ids for i in range(0, 1000, 100)])
        tried.append((time.perf_counter() - begun, effort, multiple, recall(found, truth)))
        if tried[-1][3] >= max(task["targets"]):
            enough.append(tried[-1])
    for target in task["targets"]:
        good = [one for one in tried if one[3] >= target]
        if good:
            _, effort, multiple, _ = min(good)
            setting |= {"effort": effort, "rescored": multiple}
            words = f"effort {effort}, {multiple} k scored"
            rows.append(times({"target": target, "setting": words, "values": [effort, multiple]}))
    return {"rows": rows, "held": memory()["anonymous"] - base, **memory()}


def hnswlib_index(task: dict[str, Any]) -> dict[str, Any]:
    """Build hnswlib's graph and search it with the smallest ef for each target."""
    import hnswlib

    xb = np.load(task["vectors"], mmap_mode="r")
    xq, truth = np.load(task["queries"]), np.load(task["truth"])
    base = memory()["anonymous"]
    started = time.perf_counter()
    index = hnswlib.Index(space="ip", dim=xb.shape[1])
    index.init_index(max_elements=task["count"], ef_construction=200, M=task["m"])
    index.set_num_threads(max(task["threads"]))
    for ids, part in pieces(xb, task["count"]):
        index.add_items(part, ids)
    seconds = time.perf_counter() - started
    built = memory()["peak"]
    rows = []
    for target in task["targets"]:
        for ef in _EF:
            index.set_ef(ef)
            if recall(index.knn_query(xq, K)[0], truth) >= target:
                break
        row = {"target": target, "setting": f"ef {ef}"}
        search_ids = lambda q: index.knn_query(q, K)[0]  # noqa: E731 - shorter than a function
        rows.append({**row, **speed(search_ids, xq, truth, task["threads"], index.set_num_threads)})
    held = memory()["anonymous"] - base
    return {"seconds": seconds, "built_peak": built, "rows": rows, "held": held, **memory()}


def speed(
    search_ids: Callable[[np.ndarray], np.ndarray],
    xq: np.ndarray,
    truth: np.ndarray,
    threads: list[int],
    set_threads: Callable[[int], object] = faiss.omp_set_num_threads,
) -> dict[str, Any]:
    """Recall, the times of single queries, and the rate in batches by number of threads."""
    set_threads(1)
    found = np.concatenate([search_ids(xq[i : i + BATCH]) for i in range(0, len(xq), BATCH)])
    single = []
    for i in range(len(xq)):
        started = time.perf_counter()
        search_ids(xq[i : i + 1])
        single.append(1000 * (time.perf_counter() - started))
    rates = {}
    for number in threads:
        set_threads(number)
        rounds = []
        for _ in range(5):
            started = time.perf_counter()
            for i in range(0, len(xq), BATCH):
                search_ids(xq[i : i + BATCH])
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
    do = {"build": build, "search": search, "hnswlib": hnswlib_index, "nothing": nothing}
    print(json.dumps(do[todo["do"]](todo)))
