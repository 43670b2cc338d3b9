"""The time of `/v1/search` by stage, over HTTP, against a running server.

    lookalike up &
    python -m benchmarks.search --data ../shared --requests 300

Prints the median and the 99th percentile, in milliseconds, of the times that the server reports for
each stage and of the whole request as the client sees it. Also prints the share of searches that
find the picture itself first: the queries are pictures of the indexed corpus, so it should be 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import urllib.request
import uuid
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from benchmarks.suite.result import table
from embed.corpus import open_corpus
from embed.pictures import encode_png


def post(url: str, data: bytes) -> dict:
    """Upload one picture as a browser does."""
    boundary = uuid.uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="q.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as response:
        return json.load(response)


@dataclass(frozen=True)
class Found:
    """Milliseconds of each request by stage, and the share that found itself first."""

    times: dict[str, list[float]]
    itself_first: float

    def table(self) -> str:
        """Markdown."""
        rows = table(
            ("stage", "median ms", "99th percentile"),
            (
                (stage, f"{statistics.median(x):.2f}", f"{statistics.quantiles(x, n=100)[98]:.2f}")
                for stage, x in self.times.items()
            ),
        )
        return f"{rows}\n\nItself first: {self.itself_first:.3f}."


def measure(url: str, data: Path, requests: int, warm_up: int = 20) -> Found:
    """Upload pictures of the indexed corpus ``data``, one after the other."""
    corpus = open_corpus(data)
    items = corpus.items
    step = max(1, len(items) // (requests + warm_up))
    times: dict[str, list[float]] = defaultdict(list)
    found = 0
    for number in range(requests + warm_up):
        item = items[number * step % len(items)]
        picture = encode_png(corpus.read(item.source))
        started = time.perf_counter()
        answer = post(f"{url}/v1/search?limit=12", picture)
        seconds = time.perf_counter() - started
        if number < warm_up:
            continue
        for stage, value in answer["time"].items():
            times[stage].append(value)
        times["whole request"].append(1000 * seconds)
        found += answer["points"][0]["payload"]["source"] == item.source
    return Found(times, found / requests)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--data", type=Path, required=True, help="the indexed corpus")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--warm-up", type=int, default=20)
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"n = {arguments.requests}\n\n{measure(**vars(arguments)).table()}")


if __name__ == "__main__":
    main()
