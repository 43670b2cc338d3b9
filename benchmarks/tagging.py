"""Rate of `lookalike classify` over a folder, against the encoder alone on the same pictures.

    python -m benchmarks.tagging --data ../shared --pictures 10000

Writes pictures of CIFAR-10's test split as PNG files into a temporary folder, then measures in
turn, three times: the encoder alone on the decoded pictures in memory; reading, decoding and
classifying the files into a table; the same with tags voted by a store (`--var`, if given), which
is opened again each time; and with sidecar files. Prints medians of pictures per second, each as
a share of the first, too. Then how many pictures get the same tags as from the exact search.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

from embed.bundle import PRETRAINED
from embed.corpus import open_corpus
from embed.encoder import Encoder
from embed.pictures import RGB, decode, encode_png
from search_api.cli.classify import judging
from search_api.offline import sidecars, tables
from search_api.service.corpus_sync import BATCH
from search_api.service.labelling.tagging import StoreJudge, tag_files
from search_api.settings import StoreLocation
from search_api.stores.model_store import open_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared"))
    parser.add_argument("--bundle", type=Path, default=PRETRAINED)
    parser.add_argument("--var", type=Path)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    corpus = open_corpus(options.data)
    items = [item for item in corpus.items if item.split == "test"][: options.pictures]
    encoder = open_model(options.bundle)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = [root / f"{item.source.replace('/', '-')}.png" for item in items]
        for file, item in zip(files, items, strict=True):
            file.write_bytes(encode_png(corpus.read(item.source)))
        pictures = [decode(file.read_bytes()) for file in files]

        def alone() -> None:
            for start in range(0, len(pictures), BATCH):
                encoder.encode(pictures[start : start + BATCH])

        def run(judge: StoreJudge | None = None, xmp: bool = False, name: str = "tags.csv") -> None:
            with tables.table(root / name) as add:
                for batch in tag_files(encoder, files, judge or StoreJudge(encoder)):
                    if xmp:
                        for result in batch:
                            sidecars.write(result, encoder.digest)
                    add(batch)

        def voted(xmp: bool = False) -> None:
            location = StoreLocation(options.var)
            with judging(location, encoder, len(files), with_tags=True) as judge:
                run(judge, xmp)

        ways = {"encoder alone": alone, "classify --out tags.csv": run}
        if options.var:
            ways |= {"with voted tags": voted, "and sidecar files": lambda: voted(True)}
        else:
            ways["with sidecar files"] = lambda: run(None, xmp=True)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        alone()
        for _ in range(options.repeats):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                rates[name].append(len(files) / (time.perf_counter() - started))
    base = statistics.median(rates["encoder alone"])
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores;", end=" ")
    print(
        f"{type(encoder.runtime).__name__}, {len(files):,} PNG files of 32x32, medians of", end=" "
    )
    print(f"{options.repeats}:")
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"{name:<26} {rate:8,.0f} pictures/s {rate / base:7.1%}  {sorted(map(int, found))}")
    if options.var:
        print(f"{agreement(options.var, encoder, pictures):.1%} have the tags of the exact search")


def agreement(var: Path, encoder: Encoder, pictures: list[RGB]) -> float:
    """The share of pictures whose tags are the same by inverted lists as by the exact search."""
    encoding = encoder.encode(pictures)
    location = StoreLocation(var)
    with (
        judging(location, encoder, 1, with_tags=True) as exact,
        judging(location, encoder, len(pictures), with_tags=True) as lists,
    ):
        pairs = zip(exact(encoding), lists(encoding), strict=True)
        return statistics.mean(one[1] == other[1] for one, other in pairs)


if __name__ == "__main__":
    main()
