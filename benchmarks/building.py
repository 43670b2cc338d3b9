"""What `lookalike index build` takes for 60,000 pictures, against the network alone.

    python -m benchmarks building

Whole commands, the start of the program included: a new store, whose rows are inserted and whose
index is built; and, for the same store, a build that finds nothing new. The network alone runs on
the same pictures, in batches of the same size, just before.
"""

from __future__ import annotations

import shutil
import statistics
import time

import numpy as np

from benchmarks.suite import prepared
from benchmarks.suite.result import Headline, Result, Work, table
from embed.bundle import PRETRAINED, Bundle
from embed.corpus import cifar10
from embed.encoder import Encoder
from embed.private_cache import default_cache
from search_api.service.corpus_sync import BATCH

_UNCHANGED = 3


def part(work: Work) -> Result:
    """For `make bench`; leaves the store that other parts read."""
    alone, n = _network_alone(work)
    rows = [("network alone", alone, 1.0)]
    if not work.short:
        work.say("a new store")
        new = work.folder / "building"
        shutil.rmtree(new, ignore_errors=True)
        taken = _seconds("index", "build", "--data", work.data, "--var", new)
        rows.append(("`lookalike index build` of a new store", taken, taken / alone))
        kept = prepared.store_path(work)
        shutil.rmtree(kept, ignore_errors=True)
        new.rename(kept)
    var = prepared.store(work)
    work.say("the same store again, with nothing new")
    again = [_seconds("index", "build", "--var", var) for _ in range(_UNCHANGED)]
    middle = statistics.median(again)
    rows.append((f"with nothing new, median of {_UNCHANGED}", middle, middle / alone))
    return Result(
        table(
            ("", "seconds", "times the network alone"),
            ((what, f"{seconds:.1f}", f"{ratio:.2f}") for what, seconds, ratio in rows),
        ),
        n=f"1 run, {n:,} pictures",
        threads="2",
        packages=("openvino", "faiss-cpu"),
        headlines=_headlines(rows, n),
    )


def _headlines(rows: list[tuple[str, float, float]], n: int) -> list[Headline]:
    if len(rows) < 3:
        return []
    taken, alone = rows[1][1], rows[0][1]
    return [
        Headline(
            f"a new store of {n:,} pictures of 32x32",
            f"{taken:.0f} s",
            f"the network alone {alone:.0f} s",
            alone / taken,
        )
    ]


def _network_alone(work: Work) -> tuple[float, int]:
    splits = cifar10(work.data).splits
    pictures = np.concatenate([splits[name][0] for name in ("train", "test")])
    if work.short:
        pictures = pictures[:1000]
    encoder = Encoder(Bundle.load(PRETRAINED), cache=default_cache())
    encoder.encode(pictures[:BATCH])
    work.say("the network alone")
    started = time.perf_counter()
    for start in range(0, len(pictures), BATCH):
        encoder.encode(pictures[start : start + BATCH])
    return time.perf_counter() - started, len(pictures)


def _seconds(*arguments: object) -> float:
    started = time.perf_counter()
    prepared.lookalike(*arguments)
    return time.perf_counter() - started
