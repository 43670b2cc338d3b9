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
from dataclasses import dataclass
from pathlib import Path

from benchmarks.suite import prepared
from benchmarks.suite.result import Result, Work, table
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

ALONE = "encoder alone"


@dataclass(frozen=True)
class Found:
    """Pictures per second by way, each time; and how many got the tags of the exact search."""

    rates: dict[str, list[float]]
    runtime: str
    agreement: float | None

    def table(self) -> str:
        """Markdown."""
        medians = {name: statistics.median(found) for name, found in self.rates.items()}
        return table(
            ("", "pictures/s", "share of the encoder alone"),
            (
                (name, f"{rate:,.0f}", f"{rate / medians[ALONE]:.0%}")
                for name, rate in medians.items()
            ),
        )


def measure(
    data: Path,
    bundle: Path = PRETRAINED,
    var: Path | None = None,
    pictures: int = 10_000,
    repeats: int = 3,
) -> Found:
    """Classify a folder of pictures in each way in turn; ``var`` is a store, for voted tags."""
    corpus = open_corpus(data)
    items = [item for item in corpus.items if item.split == "test"][:pictures]
    encoder = open_model(bundle)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = [root / f"{item.source.replace('/', '-')}.png" for item in items]
        for file, item in zip(files, items, strict=True):
            file.write_bytes(encode_png(corpus.read(item.source)))
        decoded = [decode(file.read_bytes()) for file in files]

        def alone() -> None:
            for start in range(0, len(decoded), BATCH):
                encoder.encode(decoded[start : start + BATCH])

        def run(judge: StoreJudge | None = None, xmp: bool = False, name: str = "tags.csv") -> None:
            with tables.table(root / name) as add:
                for batch in tag_files(encoder, files, judge or StoreJudge(encoder)):
                    if xmp:
                        for result in batch:
                            sidecars.write(result, encoder.digest)
                    add(batch)

        def voted(xmp: bool = False) -> None:
            location = StoreLocation(var)
            with judging(location, encoder, len(files), with_tags=True) as judge:
                run(judge, xmp)

        ways = {ALONE: alone, "`classify --out tags.csv` without a store": run}
        if var:
            ways |= {
                "with tags voted by the store": voted,
                "with tags and sidecar files": lambda: voted(True),
            }
        else:
            ways["with sidecar files"] = lambda: run(None, xmp=True)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        alone()
        for _ in range(repeats):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                rates[name].append(len(files) / (time.perf_counter() - started))
    agreed = None if var is None else agreement(var, encoder, decoded)
    return Found(rates, type(encoder.runtime).__name__, agreed)


def part(work: Work) -> Result:
    """For `make bench`."""
    pictures, repeats = (300, 1) if work.short else (10_000, 2)
    found = measure(work.data, var=prepared.store(work), pictures=pictures, repeats=repeats)
    return Result(
        f"PNG files of 32x32, and a store of 60,000.\n\n{found.table()}\n\n"
        f"{found.agreement:.1%} of the pictures get exactly the tags of the exact search.",
        n=f"{pictures:,} files, medians of {repeats}",
        threads="2",
        packages=("openvino", "faiss-cpu"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared"))
    parser.add_argument("--bundle", type=Path, default=PRETRAINED)
    parser.add_argument("--var", type=Path)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found = measure(**vars(options))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores;", end=" ")
    print(f"{found.runtime}, {options.pictures:,} PNG files of 32x32, medians of", end=" ")
    print(f"{options.repeats}:\n\n{found.table()}\n")
    if found.agreement is not None:
        print(f"{found.agreement:.1%} have the tags of the exact search")


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
