"""A fixed rate of requests for a long time: memory stays flat.

In full it runs one server for ten minutes, in two parts that may be started by separate commands:
the first leaves the server running, with its state in the folder that LOOKALIKE_TORTURE_STEADY
names, and the last one stops it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from embed.pictures import encode_png
from embed.scenes import SCENES, render
from tests.torture.conftest import MB, Counts, Service, draw, percentile, until, wait_until_built

Note = Callable[[str, str], None]
_PARTS = 2


def load(url: str, pid: int, counts: Counts, seconds: float) -> dict[str, list[float]]:
    """Search at the fixed rate, however long responses take: seconds taken, bytes of memory."""
    picture = encode_png(render(next(iter(SCENES)), 0))
    every = 1 / counts.per_second
    taken: list[float] = []
    memory: list[float] = []
    with httpx2.Client(base_url=url, timeout=60) as client:
        start = time.perf_counter()
        for number in range(int(seconds * counts.per_second)):
            due = start + number * every
            time.sleep(max(0.0, due - time.perf_counter()))
            response = client.post("/v1/search", files={"image": ("q", picture)})
            assert response.status_code == 200
            # From when it was due: waiting for a slow response counts against the server.
            taken.append(time.perf_counter() - due)
            if number % 100 == 0:
                text = Path(f"/proc/{pid}/status").read_text()
                memory.append(1024 * int(re.findall(r"^VmRSS:\s+(\d+)", text, re.MULTILINE)[0]))
    return {"taken": taken, "memory": memory}


def judge(found: dict[str, list[float]], counts: Counts, note: Note) -> None:
    taken, memory = found["taken"], found["memory"]
    growth = memory[-1] - memory[len(memory) // 5]
    note(
        f"{len(taken) / counts.per_second:g} s at {counts.per_second:g} a second",
        f"{len(taken):,} searches, p50 {1000 * percentile(taken, 0.5):.1f} ms, p99"
        f" {1000 * percentile(taken, 0.99):.1f} ms; memory {memory[-1] / MB:.0f} MB,"
        f" {growth / MB:+.1f} MB after the first fifth",
    )
    assert len(memory) < 10 or growth < 30 * MB


@pytest.mark.skipif("LOOKALIKE_TORTURE_STEADY" in os.environ, reason="run in parts")
@pytest.mark.timeout(1200)
def test_steady_load(service: Service, counts: Counts, note: Note) -> None:
    found = load(service.url, service.process.pid, counts, counts.steady_seconds)
    judge(found, counts, note)


@pytest.mark.skipif("LOOKALIKE_TORTURE_STEADY" not in os.environ, reason="in one go")
@pytest.mark.timeout(1200)
def test_a_part_of_the_steady_load(counts: Counts, note: Note) -> None:
    folder = Path(os.environ["LOOKALIKE_TORTURE_STEADY"])
    notes = folder / "notes.json"
    state: dict[str, Any] = json.loads(notes.read_text()) if notes.exists() else started(folder)
    name = Path(f"/proc/{state['pid']}/cmdline")
    if not (name.exists() and b"search_api.cli" in name.read_bytes()):
        notes.unlink(missing_ok=True)
        pytest.fail("the server of the first part is gone; start again with the first part")
    found = load(state["url"], state["pid"], counts, counts.steady_seconds / _PARTS)
    for key, values in found.items():
        state["found"].setdefault(key, []).extend(values)
    state["done"] += 1
    if state["done"] < _PARTS:
        notes.write_text(json.dumps(state))
        note(f"steady load, part {state['done']} of {_PARTS}", f"{len(found['taken']):,} searches")
        return
    notes.unlink()
    os.kill(state["pid"], signal.SIGTERM)
    until(lambda: not name.exists() or not name.read_bytes())
    assert '"level": "error"' not in (folder / "log").read_text()
    judge(state["found"], counts, note)


def started(folder: Path) -> dict[str, Any]:
    """A server that outlives this command."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LOOKALIKE_")}
    store = {
        "LOOKALIKE_DATA": str(draw(folder / "pictures")),
        "LOOKALIKE_VAR": str(folder / "var"),
        "LOOKALIKE_LOG_FORMAT": "json",
    }
    output = folder / "said"
    with output.open("w") as out, (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "search_api.cli", "up", "--port", "0"],
            env={**kept, **store, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
            start_new_session=True,
        )
    until(lambda: "http://" in output.read_text() or process.poll() is not None, 120)
    (url,) = re.findall(r"http://127\.0\.0\.1:\d+", output.read_text())
    wait_until_built(url)
    process.returncode = 0  # it keeps running
    return {"pid": process.pid, "url": url, "done": 0, "found": {}}
