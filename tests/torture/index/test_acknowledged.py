"""kill -9 of a server right after it has acknowledged writes of every kind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from embed.corpus import FolderCorpus
from search_api.service.engine import SearchEngine
from search_api.service.page import Page
from tests.search_api.conftest import MeanColour, colour, encoder, engine, folder, png

__all__ = ["encoder", "engine", "folder"]
ROOT = Path(__file__).parents[3]


@contextmanager
def killed(folder: Path, var: Path) -> Iterator[httpx2.Client]:
    """A server's client; the server is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.torture.index.server", str(folder), str(var)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        with httpx2.Client(base_url=url, timeout=60) as client:
            yield client
            process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_a_server_acknowledged_outlives_it(engine: SearchEngine, folder: Path) -> None:
    var = engine.var
    engine.close()
    by_label = {"must": [{"key": "label", "match": {"value": "blue"}}]}
    with killed(folder, var) as client:
        files = [("images", (f"{i}.png", png((200, 100, 220 - i)))) for i in range(3)]
        added = client.post("/v1/images", files=files, data={"key": ["a", "b", "c"]})
        assert added.status_code == 201
        ids = [result["id"] for result in added.json()["results"]]
        body: dict[str, object] = {"filter": by_label}
        assert client.post("/v1/images/delete", json=body).json()["deleted"] == 8
        assert client.post("/v1/snapshots", json={"name": "kept"}).status_code == 201
        body = {"ids": [ids[2], 24]}
        assert client.post("/v1/images/delete", json=body).json()["deleted"] == 2
        restored = client.post("/v1/snapshots/kept/restore").json()
        assert (restored["changed"], restored["deleted"]) == (2, 0)
        assert client.delete(f"/v1/images/{ids[1]}").json()["deleted"] == 1
        change = {"payload": {"label": "pink", "price": 3}}
        assert client.patch(f"/v1/images/{ids[0]}", json=change).status_code == 200

    again = SearchEngine(MeanColour(), FolderCorpus(folder), var)
    assert again.load().generation == 1
    assert again.catalogue.check() is None
    assert again.served.current().index.count() == 24 + 3 - 1 - 8
    (found,) = again.search(png((200, 100, 220)), Page(1)).points
    assert (found.entry.id, found.entry.label) == (ids[0], "pink")
    assert found.entry.payload["price"] == 3
    nearest = again.search(png(colour("blue", 0)), Page(30)).points
    assert not {ids[1]} & {point.entry.id for point in nearest}
    assert ids[2] in {point.entry.id for point in nearest}
    assert "blue" not in {point.entry.label for point in nearest}
    again.close()
