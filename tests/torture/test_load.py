"""Slow clients, and shutdown with requests in flight."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import httpx2

from tests.torture.conftest import Counts, Service, percentile, until

Note = Callable[[str, str], None]
_CLIENTS = 2


def latencies(service: Service, red: bytes, n: int) -> list[float]:
    """Seconds of ``n`` searches by a few clients."""

    def one_client(share: int) -> list[float]:
        found = []
        with service.client() as client:
            for _ in range(share):
                started = time.perf_counter()
                response = client.post("/v1/search", files={"image": ("q", red)})
                found.append(time.perf_counter() - started)
                assert response.status_code == 200, response.text
        return found

    with ThreadPoolExecutor(_CLIENTS) as pool:
        return list(chain.from_iterable(pool.map(one_client, [n // _CLIENTS] * _CLIENTS)))


def test_slow_clients(service: Service, counts: Counts, note: Note, red: bytes) -> None:
    """Half of them send their head, the others their body, one byte at a time."""
    latencies(service, red, counts.healthy // 2)
    alone = latencies(service, red, counts.healthy)
    head = b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\n"
    whole = head + b"content-type: multipart/form-data; boundary=x\r\ncontent-length: 9999\r\n\r\n"
    slow = [socket.create_connection(service.address) for _ in range(counts.slow)]
    stop = threading.Event()

    def drip() -> None:
        for number, connection in enumerate(slow):
            connection.sendall(whole if number % 2 else head)
        left = list(slow)
        while not stop.wait(1.0):
            for connection in list(left):
                try:
                    connection.sendall(b"x")
                except OSError:
                    left.remove(connection)

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        loaded = latencies(service, red, counts.healthy)
    finally:
        stop.set()
        thread.join()
        for connection in slow:
            connection.close()
    p99, p99_loaded = percentile(alone, 0.99), percentile(loaded, 0.99)
    note(
        f"{counts.slow} slow connections",
        f"healthy clients' p50 {1000 * percentile(alone, 0.5):.1f} ms, with slow ones"
        f" {1000 * percentile(loaded, 0.5):.1f}; p99 {1000 * p99:.1f} ms, with slow ones"
        f" {1000 * p99_loaded:.1f} (x {p99_loaded / p99:.2f}); {counts.healthy} searches each",
    )
    if counts.timed:
        assert p99_loaded < 2 * p99
    service.healthy(red)


def test_sigterm_with_requests_in_flight(
    env: dict[str, str], counts: Counts, tmp_path: Path, note: Note, red: bytes
) -> None:
    """All requests that were sent get a response, and so do those that arrive during the drain."""
    # On a busy machine the searches after the signal take longer than the second of a real drain.
    service = Service({**env, "LOOKALIKE_DRAIN_SECONDS": "5"}, tmp_path / "log")
    try:
        barrier = threading.Barrier(counts.in_flight + 1)
        statuses: Counter[int] = Counter()
        late: Counter[int] = Counter()
        lock = threading.Lock()

        def post() -> None:
            with service.client() as client:
                assert client.get("/livez").status_code == 200  # the connection is open
                barrier.wait()
                status = client.post("/v1/search", files={"image": ("q", red)}).status_code
                with lock:
                    statuses[status] += 1

        threads = [threading.Thread(target=post) for _ in range(counts.in_flight)]
        for thread in threads:
            thread.start()
        barrier.wait()
        # Some have arrived, some are still on their way: none may be dropped.
        time.sleep(0.02)
        started = time.perf_counter()
        service.process.terminate()
        until(lambda: httpx2.get(service.url + "/readyz").status_code == 503, 5)
        for _ in range(5):
            late[
                httpx2.post(service.url + "/v1/search", files={"image": ("q", red)}).status_code
            ] += 1
        for thread in threads:
            thread.join()
        code = service.process.wait(40)
        seconds = time.perf_counter() - started
    finally:
        service.kill()
    note(
        f"SIGTERM with {counts.in_flight} in flight",
        f"{dict(statuses)}, {dict(late)} sent after it; exit code {code} after {seconds:.1f} s",
    )
    assert statuses == {200: counts.in_flight}
    assert late == {200: 5}
    assert code == 0


def test_sigterm_during_a_rebuild(env: dict[str, str], tmp_path: Path, note: Note) -> None:
    """The rebuild stops, the process exits in time, and the next start serves everything."""
    service = Service(env, tmp_path / "log")
    try:
        with service.client() as client:
            before = client.get("/v1/index").json()["count"]
            assert client.post("/v1/index/rebuild", params={"reembed": True}).status_code == 202
        started = time.perf_counter()
        assert service.stop() == 0
        seconds = time.perf_counter() - started
    finally:
        service.kill()
    service = Service(env, tmp_path / "log")
    try:
        with service.client() as client:
            assert client.get("/v1/index").json()["count"] == before
    finally:
        service.kill()
    note("SIGTERM during a rebuild", f"exit code 0 after {seconds:.1f} s; nothing lost")
