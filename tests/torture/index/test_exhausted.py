"""Servers with few file handles and little address space: clear refusals, and recovery."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from embed.corpus import FolderCorpus
from search_api.service.engine import SearchEngine
from tests.search_api.conftest import MeanColour, encoder, engine, folder, png
from tests.torture.index.conftest import COUNTS

__all__ = ["encoder", "engine", "folder"]
ROOT = Path(__file__).parents[3]
LIMITS = ("40 file handles", "8 MB of address space left", "no address space left")


def restrict(process: int, limit: str) -> Callable[[], object]:
    """Set the limit of a running process; returns what lifts it."""
    if limit == "40 file handles":
        resource.prlimit(process, resource.RLIMIT_NOFILE, (40, 4096))
        return lambda: None  # it recovers by itself
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[0])
    value = pages * resource.getpagesize() + (8_000_000 if limit.startswith("8 MB") else 0)
    before = resource.prlimit(process, resource.RLIMIT_AS, (value, resource.RLIM_INFINITY))
    return lambda: resource.prlimit(process, resource.RLIMIT_AS, before)


@pytest.mark.slow
@pytest.mark.parametrize("limit", LIMITS)
def test_a_server_that_runs_out(
    engine: SearchEngine, folder: Path, limit: str, counted: Callable[[str, str], None]
) -> None:
    var = engine.var
    engine.close()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.torture.index.server", str(folder), str(var)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    outcome: Counter[str] = Counter()
    acknowledged: set[str] = set()
    faults: list[str] = []

    def add(url: str, number: int) -> None:
        for i in range(COUNTS.exhausting):
            try:
                # Where even an error does not fit into memory, nothing comes back.
                with httpx2.Client(base_url=url, timeout=10) as client:
                    files = {"images": ("x.png", png((9 * number % 256, i, 7)))}
                    key = f"{number}-{i}"
                    answer = client.post("/v1/images", files=files, data={"key": key})
            except httpx2.HTTPError:
                outcome["no connection"] += 1
                continue
            outcome[str(answer.status_code)] += 1
            if answer.status_code == 201:
                acknowledged.add(f"key:{key}")
            elif answer.status_code != 503 or "retry-after" not in answer.headers:
                faults.append(answer.text)

    try:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        assert httpx2.get(f"{url}/readyz", timeout=60).status_code == 200
        lift = restrict(process.pid, limit)
        threads = [threading.Thread(target=add, args=(url, number)) for number in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        lift()
        assert limit != "40 file handles" or outcome["503"] + outcome["no connection"]
        with httpx2.Client(base_url=url, timeout=60) as client:
            files = {"images": ("x.png", png((1, 2, 3)))}
            assert client.post("/v1/images", files=files, data={"key": "last"}).status_code == 201
            assert client.get("/readyz").status_code == 200
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    again = SearchEngine(MeanColour(), FolderCorpus(folder), var)
    again.load()
    assert acknowledged <= set(again.catalogue.all_sources("added"))
    assert [found for found in again.store.verify() if found.problem is not None] == []
    again.close()
    counted(f"a server with {limit}", f"{dict(outcome)}; none acknowledged is lost, it recovers")
