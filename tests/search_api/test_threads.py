from __future__ import annotations

import platform
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import faiss
import pytest
import threadpoolctl
import torch
from fastapi.testclient import TestClient

from embed.bundle import Bundle
from index.local import ExactIndex
from search_api import threads
from search_api.commands import open as opening
from tests.search_api.conftest import png


def test_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, share in ((1, 1), (2, 1), (5, 2), (16, 8)):
        monkeypatch.setattr(threads, "available_cores", lambda cores=cores: cores)
        assert threads.share() == share


ALLOCATING = """
import ctypes, sys, threading
from search_api.threads import bound_arenas
if sys.argv[1] == "bound":
    bound_arenas()
libc = ctypes.CDLL(None)
libc.fopen.restype = libc.malloc.restype = ctypes.c_void_p
all_at_once = threading.Barrier(6)
def work():
    all_at_once.wait()
    libc.malloc(1000)
    all_at_once.wait()
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others have no such pools")
def test_threads_share_two_pools_of_memory(tmp_path: Path) -> None:
    heaps = {}
    for how in ("bound", "free"):
        out = tmp_path / how
        command = [sys.executable, "-c", ALLOCATING, how, str(out)]
        subprocess.run(command, check=True)
        heaps[how] = out.read_text().count("<heap nr=")
    assert heaps["bound"] <= 2 < heaps["free"]


def test_faiss_is_bound_in_the_thread_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "share", lambda: 3)
    before = faiss.omp_get_max_threads()
    seen: list[int] = []

    def lane() -> None:
        threads.take_share()
        seen.append(faiss.omp_get_max_threads())

    thread = threading.Thread(target=lane)
    thread.start()
    thread.join()
    assert seen == [3]
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize("ask", ["by the batcher", "similar", "grouped", "recommend"])
def test_every_scan_takes_its_share(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    """Also those in the many threads of the framework, not only those of the batcher."""
    monkeypatch.setattr(threads, "share", lambda: 3)
    seen: list[int] = []
    search = ExactIndex.search

    def scan(*args: Any) -> Any:
        seen.append(faiss.omp_get_max_threads())
        return search(*args)

    monkeypatch.setattr(ExactIndex, "search", scan)
    files = {"image": ("q.png", png((1, 2, 3)))}
    match ask:
        case "by the batcher":
            response = client.post("/v1/search", files=files)
        case "grouped":
            response = client.post("/v1/search", files=files, params={"group_by": "label"})
        case "similar":
            response = client.get("/v1/images/1/similar")
        case _:
            response = client.post("/v1/recommend", json={"positive": [1], "negative": [2]})
    assert response.status_code == 200
    assert seen
    assert set(seen) == {3}


def test_the_runtime_has_the_cores_of_this_process(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch too, which by itself would count those of the machine."""
    tiny_bundle.save(tmp_path)
    monkeypatch.setattr("search_api.commands.open.available_cores", lambda: 3)
    monkeypatch.setattr("embed.runtime.importlib.util.find_spec", lambda _: None)
    before = torch.get_num_threads()
    try:
        assert opening.open_model(tmp_path).runtime.name == "torch"
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_matrix_products_are_bound_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def blas() -> set[int]:
        found = threadpoolctl.threadpool_info()
        return {library["num_threads"] for library in found if library["user_api"] == "blas"}

    monkeypatch.setattr(threads, "share", lambda: 1)
    with threadpoolctl.threadpool_limits(None):
        threads.share_blas()
        assert blas() == {1}
