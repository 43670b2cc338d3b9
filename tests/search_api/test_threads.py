from __future__ import annotations

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
