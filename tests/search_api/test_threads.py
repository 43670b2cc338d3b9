"""Limits on library threads and memory pools."""

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
from fastapi.testclient import TestClient

from index.ann.exact import ExactIndex
from search_api import threads
from tests.search_api.conftest import png


def test_cores_are_shared_between_two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, share in ((1, 1), (2, 1), (5, 2), (16, 8)):
        monkeypatch.setattr(threads, "available_cores", lambda cores=cores: cores)
        assert threads.threads_per_worker() == share


ALLOCATING = """
import ctypes, sys, threading
from search_api.threads import limit_arenas
if sys.argv[1] == "limited":
    limit_arenas()
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has such pools")
def test_threads_share_two_memory_pools(tmp_path: Path) -> None:
    heaps = {}
    for how in ("limited", "free"):
        out = tmp_path / how
        command = [sys.executable, "-c", ALLOCATING, how, str(out)]
        subprocess.run(command, check=True)
        heaps[how] = out.read_text().count("<heap nr=")
    assert heaps["limited"] <= 2 < heaps["free"]


def test_faiss_is_limited_in_the_calling_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "threads_per_worker", lambda: 3)
    before = faiss.omp_get_max_threads()
    seen: list[int] = []

    def worker() -> None:
        threads.limit_faiss_threads()
        seen.append(faiss.omp_get_max_threads())

    thread = threading.Thread(target=worker)
    thread.start()
    thread.join()
    assert seen == [3]
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize("route", ["search", "similar", "grouped", "recommend"])
def test_every_scan_limits_its_threads(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    """Those in the threads of the web framework too, not only those of the batcher."""
    monkeypatch.setattr(threads, "threads_per_worker", lambda: 3)
    seen: list[int] = []
    search = ExactIndex.search

    def scan(*args: Any) -> Any:
        seen.append(faiss.omp_get_max_threads())
        return search(*args)

    monkeypatch.setattr(ExactIndex, "search", scan)
    files = {"image": ("q.png", png((1, 2, 3)))}
    match route:
        case "search":
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


def test_matrix_products_are_limited_in_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def blas() -> set[int]:
        found = threadpoolctl.threadpool_info()
        return {library["num_threads"] for library in found if library["user_api"] == "blas"}

    monkeypatch.setattr(threads, "threads_per_worker", lambda: 1)
    with threadpoolctl.threadpool_limits(None):
        threads.limit_blas_threads()
        assert blas() == {1}
