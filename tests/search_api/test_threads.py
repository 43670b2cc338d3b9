from __future__ import annotations

import threading

import faiss
import pytest
import threadpoolctl

from search_api import threads


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


def test_matrix_products_are_bound_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def blas() -> set[int]:
        found = threadpoolctl.threadpool_info()
        return {library["num_threads"] for library in found if library["user_api"] == "blas"}

    monkeypatch.setattr(threads, "share", lambda: 1)
    with threadpoolctl.threadpool_limits(None):
        threads.share_blas()
        assert blas() == {1}
