"""Eight searching threads against two server processes, while generations are switched."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from search_api.service.engine import SearchEngine
from tests.search_api.conftest import CLASSES, SHADES, colour, compact, encoder, engine, folder, png
from tests.torture.index.conftest import COUNTS

__all__ = ["encoder", "engine", "folder"]
ROOT = Path(__file__).parents[3]
PAIR = [(77, 88, 99), (99, 88, 77)]


@pytest.fixture
def servers(engine: SearchEngine, folder: Path) -> Iterator[list[str]]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.torture.index.server", str(folder), str(engine.var)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(2)
    ]
    urls = []
    for process in processes:
        assert process.stdout is not None
        urls.append(f"http://127.0.0.1:{int(process.stdout.readline())}")
    yield urls
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_every_answer_is_of_one_state(
    servers: list[str], engine: SearchEngine, counted: Callable[[str, str], None]
) -> None:
    faults: list[str] = []
    answers = [0] * 8
    generations: set[int] = set()
    done = threading.Event()
    whole = {f"{label}/{shade}.png" for label in CLASSES for shade in range(SHADES)}

    def search(number: int) -> None:
        try:
            searches(number)
        except httpx2.HTTPError as error:
            faults.append(repr(error))

    def searches(number: int) -> None:
        with httpx2.Client(base_url=servers[number % 2], timeout=60) as client:
            last = 0
            while not done.is_set() and not faults:
                query = png(colour("red", number))
                response = client.post(
                    "/v1/search", files={"image": ("q.png", query)}, params={"limit": 100}
                )
                if response.status_code != 200:
                    faults.append(response.text)
                    return
                body = response.json()
                sources = [p["payload"]["source"] for p in body["points"]]
                names = {s.partition("/")[2] for s in sources if not s.startswith("key:")}
                pair = [s for s in sources if s.startswith("key:")]
                if names != whole or len(pair) not in (0, 2) or len(set(sources)) != len(sources):
                    faults.append(f"not of one state: {sorted(sources)}")
                if body["generation"] < last:
                    faults.append(f"generation {body['generation']} after {last}")
                last = body["generation"]
                generations.add(last)
                answers[number] += 1

    threads = [threading.Thread(target=search, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    with httpx2.Client(timeout=60) as client:
        for number in range(COUNTS.switches):
            url = servers[number % 2]
            files = [("images", (f"{i}.png", png(rgb))) for i, rgb in enumerate(PAIR)]
            added = client.post(f"{url}/v1/images", files=files, data={"key": ["a", "b"]})
            assert added.status_code == 201, added.text
            ids = [result["id"] for result in added.json()["results"]]
            compact(engine)
            # The other server sees what this one has written.
            other = servers[1 - number % 2]
            gone = client.post(f"{other}/v1/images/delete", json={"ids": ids})
            assert gone.json()["deleted"] == 2
            if faults:
                break
    done.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert min(answers) > 0
    assert max(generations) > 1
    counted(
        f"8 threads, 2 server processes, {COUNTS.switches} switches",
        f"{sum(answers)} answers of {len(generations)} generations, each of one state",
    )
