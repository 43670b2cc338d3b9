"""CPU time of the network and of the search alone, which `benchmarks.serving` subtracts.

    python -m benchmarks.stages --data ../shared --var var

Prints, as JSON by batch size, milliseconds of CPU time for one picture or query: of all threads of
a process that does nothing else, with as many threads as a server gives to such a batch. With
``--plain STORED.npz`` those of `peers/tutorial.py`, which knows only batches of one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

# As `lookalike serve` sets it, before FAISS is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

SIZES = (1, 2, 4, 8, 16, 32, 64)
LIMIT = 12
"""Of the searches that `benchmarks.serving` sends; a page needs one neighbour more."""
_SECONDS = 0.4


def milliseconds(work: Callable[[], object], items: int) -> float:
    """CPU time of one item, the median of three measurements."""
    found = []
    for _ in range(3):
        count, spent, started = 0, time.process_time(), time.perf_counter()
        while not count or time.perf_counter() - started < _SECONDS / 3:
            work()
            count += items
        found.append(1000 * (time.process_time() - spent) / count)
    return statistics.median(found)


def ours(data: Path, var: Path, bundle: Path | None, sizes: tuple[int, ...]) -> dict:
    """Of this project's encoder and of the store's index."""
    from search_api.service.engine import open_engine
    from search_api.service.search import MIN_BATCH
    from search_api.settings import StoreLocation
    from search_api.threads import limit_blas_threads, limit_faiss_threads

    with open_engine(data, StoreLocation(var), bundle, say=lambda text: None) as engine:
        engine.load()
        limit_blas_threads()
        limit_faiss_threads()
        index, encoder = engine.served.current().index, engine.encoder
        rng = np.random.default_rng(0)
        xb = index.vectors(rng.choice(index.ids(), max(sizes), replace=False))
        side = encoder.input_size
        pictures = rng.integers(0, 256, (max(sizes), side, side, 3), np.uint8)
        found: dict[str, dict[int, float]] = {"network": {}, "search": {}}
        for n in sizes:
            encode = lambda n=n: encoder.encode(list(pictures[:n]), spare=n >= MIN_BATCH)  # noqa: E731
            encode()
            found["network"][n] = milliseconds(encode, n)
            search = lambda n=n: index.search(xb[:n], LIMIT + 1)  # noqa: E731
            search()
            found["search"][n] = milliseconds(search, n)
        return found


def plain(stored: Path, bundle: Path) -> dict:
    """Of the plain service: eager float32, `IndexFlatIP`, a picture at a time."""
    import faiss
    import torch

    from embed.bundle import Bundle

    model = Bundle.load(bundle)
    network = model.network()
    side = model.preprocess.input_size
    batch = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    xb = np.load(stored)["xb"]
    index = faiss.IndexFlatIP(xb.shape[1])
    index.add(xb)

    def encode() -> None:
        with torch.no_grad():
            network(model.preprocess.normalise(batch))

    encode()
    index.search(xb[:1], LIMIT)
    return {
        "network": {1: milliseconds(encode, 1)},
        "search": {1: milliseconds(lambda: index.search(xb[:1], LIMIT), 1)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the corpus that is indexed")
    parser.add_argument("--var", type=Path, help="its store")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--plain", type=Path, metavar="STORED.npz")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    args = parser.parse_args()
    if args.plain:
        found = plain(args.plain, args.bundle)
    else:
        found = ours(args.data, args.var, args.bundle, tuple(args.sizes))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
