"""Slow clients, and shutdown with requests in flight."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
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


def unread(service: Service, name: str) -> float:
    """A figure from /metrics."""
    text = httpx2.get(f"{service.url}/metrics", timeout=120).text
    found = re.search(rf"^lookalike_{name} (\S+)$", text, re.M)
    assert found is not None
    return float(found[1])


def test_clients_that_do_not_read(
    env: dict[str, str], counts: Counts, tmp_path: Path, note: Note, red: bytes
) -> None:
    """Each asks for megabytes and reads nothing, or a byte a second; all are disconnected."""
    most = 64 * 2**20
    service = Service(
        {**env, "LOOKALIKE_MAX_UNREAD_BYTES": str(most), "LOOKALIKE_SEND_SECONDS": "5"},
        tmp_path / "log",
    )
    get = b"GET /static-offline-docs/redoc.standalone.js HTTP/1.1\r\nhost: localhost\r\n\r\n"
    listing = b"GET /v1/images?limit=200 HTTP/1.1\r\nhost: localhost\r\n\r\n"
    slow: list[socket.socket] = []
    try:
        latencies(service, red, counts.healthy)
        before = service.memory()
        service.reset_peak()
        for number in range(counts.unreading):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(service.address)
            connection.sendall((get if number % 2 else listing) * 200)
            slow.append(connection)
        started = time.perf_counter()
        while unread(service, "slow_readers_total") < counts.unreading:
            assert time.perf_counter() - started < 240
            for connection in slow[::2]:
                with contextlib.suppress(OSError):
                    connection.recv(1)
            latencies(service, red, 2)
            time.sleep(0.5)
        seconds = time.perf_counter() - started
        growth = service.memory("VmHWM") - before
        until(lambda: unread(service, "unread_bytes") == 0)
        assert unread(service, "requests_running") == 1
        service.healthy(red)
    finally:
        for connection in slow:
            connection.close()
        service.kill()
    note(
        f"{counts.unreading} clients that do not read",
        f"all disconnected after {seconds:.1f} s, memory at most {growth / 2**20:+.1f} MB;"
        " searches served meanwhile",
    )
    assert growth < most + 200 * 2**20


def test_event_streams(env: dict[str, str], counts: Counts, tmp_path: Path, note: Note) -> None:
    """Hundreds follow a job at once, most in vain, and go without a word; the slots come back."""
    service = Service({**env, "LOOKALIKE_MAX_STREAMS": "8"}, tmp_path / "log")
    try:
        statuses: Counter[str] = Counter()
        with service.client() as client:
            job = client.post("/v1/index/rebuild", params={"reembed": True}).json()["id"]
        get = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
        for _ in range(counts.storms):
            streams = [socket.create_connection(service.address) for _ in range(counts.streams)]
            for connection in streams:
                connection.sendall(get)
            statuses.update(connection.recv(12)[9:].decode() for connection in streams)
            assert unread(service, "requests_running") <= 8 + 1
            for number, connection in enumerate(streams):
                if number % 2:  # a reset instead of an orderly end
                    connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                connection.close()
            until(lambda: unread(service, "requests_running") == 1)
        with service.client() as client, client.stream("GET", f"/v1/jobs/{job}/events") as last:
            assert last.status_code == 200
    finally:
        service.kill()
    note(f"{counts.storms} x {counts.streams} event streams", f"{dict(statuses)}; all slots back")
    assert set(statuses) == {"200", "503"}
    assert statuses["503"] >= counts.storms * (counts.streams - 8 - 8)


def test_large_bodies_at_once(
    env: dict[str, str], counts: Counts, tmp_path: Path, note: Note, red: bytes
) -> None:
    """Forms and claims of forms, more than the budget allows: 503, and every byte comes back."""
    budget = 64 * 2**20
    service = Service({**env, "LOOKALIKE_MAX_BYTES_IN_FLIGHT": str(budget)}, tmp_path / "log")
    kind = {"content-type": "multipart/form-data; boundary=x"}
    head = b'--x\r\nContent-Disposition: form-data; name="images"; filename="q"\r\n\r\n'

    def post(number: int) -> int:
        def body() -> Iterator[bytes]:
            yield head
            for _ in range(16):
                yield bytes(2**20)
            yield b"\r\n--x--\r\n"

        path = "/v1/recommend" if number % 4 == 0 else "/v1/classify"
        with service.client() as client:
            return client.post(path, content=body(), headers=kind).status_code

    try:
        latencies(service, red, counts.healthy)
        before = service.memory()
        service.reset_peak()
        with ThreadPoolExecutor(counts.bodies) as pool:
            statuses = Counter(pool.map(post, range(counts.bodies)))
        until(lambda: unread(service, "request_bytes") == 0)
        growth = service.memory("VmHWM") - before
        held = list(Path(f"/proc/{service.process.pid}/fd").iterdir())
        assert not [fd for fd in held if "(deleted)" in str(fd.readlink())]
        service.healthy(red)
    finally:
        service.kill()
    note(
        f"{counts.bodies} bodies of 16 MB at once",
        f"{dict(sorted(statuses.items()))}; memory {growth / 2**20:+.1f} MB, bytes in flight after"
        " it: 0",
    )
    # Where the budget is exhausted first, it is a 503.
    assert 1 <= statuses[413] <= len(range(0, counts.bodies, 4))
    assert statuses[200] >= 1
    assert set(statuses) <= {200, 413, 503}
    assert growth < 3 * budget
