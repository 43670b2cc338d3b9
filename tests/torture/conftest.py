"""Attacks on a real `lookalike up` on 127.0.0.1: small in the suite, in full by `make torture`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from embed.pictures import encode_png
from embed.scenes import SCENES, render
from search_api.client import Client

MB = 2**20
READ, WRITE = "torture-reader-0123", "torture-writer-0123"


@dataclass(frozen=True)
class Counts:
    """The size of each attack; times are asserted only if ``timed``."""

    timed: bool = False
    cases: int = 60
    mutated: int = 120
    fuzzed: int = 300
    traversals: int = 60
    splits: int = 2
    unreading: int = 12
    streams: int = 40
    storms: int = 1
    bodies: int = 8
    links: int = 16
    slow: int = 20
    healthy: int = 40
    in_flight: int = 10
    large: int = 4
    steady_seconds: float = 2.0
    per_second: float = 20.0


FULL = Counts(
    timed=True,
    cases=5000,
    mutated=10_000,
    fuzzed=50_000,
    traversals=500,
    splits=50,
    unreading=24,
    streams=400,
    storms=5,
    bodies=64,
    links=500,
    slow=200,
    healthy=1000,
    in_flight=50,
    large=24,
    steady_seconds=600.0,
)

_figures: list[tuple[str, str]] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.torture)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    show(terminalreporter, "torture", _figures)


def show(reporter: pytest.TerminalReporter, title: str, figures: list[tuple[str, str]]) -> None:
    """Print the table, and append it to the file that LOOKALIKE_TORTURE_TABLE names."""
    if not figures:
        return
    reporter.section(title)
    width = max(len(name) for name, _ in figures)
    lines = [f"{name:<{width}}  {value}" for name, value in figures]
    for line in lines:
        reporter.write_line(line)
    if table := os.environ.get("LOOKALIKE_TORTURE_TABLE"):
        with Path(table).open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="session")
def counts() -> Counts:
    return FULL if os.environ.get("LOOKALIKE_TORTURE") == "full" else Counts()


@pytest.fixture(scope="session")
def note() -> Callable[[str, str], None]:
    """Adds a line to the table that is printed at the end."""
    return lambda name, value: _figures.append((name, value))


def _memory(pid: int, what: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{what}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def wait_until_built(url: str) -> None:
    """Wait for the end of a first build."""
    with httpx2.Client(base_url=url, timeout=60) as client:

        def built() -> bool:
            if client.get("/readyz").status_code == 503:
                return False
            jobs = client.get("/v1/jobs")
            return jobs.status_code == 401 or all(j["finished"] for j in jobs.json()["jobs"])

        until(built, 300)


class Service:
    """A `lookalike up` in its own process."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LOOKALIKE_")}
        self.log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "search_api.cli", "up", "--port", "0"],
                env={**kept, "OMP_NUM_THREADS": "1", "LOOKALIKE_LOG_FORMAT": "json", **env},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert self.process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.process.stdout.readline())
        if found is None:
            self.process.kill()
            raise AssertionError(log.read_text())
        self.url = found[0]
        self.address = ("127.0.0.1", int(found[1]))
        wait_until_built(self.url)

    def client(self, **options: float) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=options.get("timeout", 60))

    def memory(self, what: str = "VmRSS") -> int:
        """Memory in bytes, now or at its peak (``VmHWM``)."""
        return _memory(self.process.pid, what)

    def memory_of_all(self, what: str = "VmRSS") -> int:
        """As ``memory``, of the process and its worker processes together."""
        return sum(_memory(pid, what) for pid in [self.process.pid, *self.workers()])

    def workers(self) -> list[int]:
        """The processes that it has started and that run."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]

    def reset_peak(self) -> None:
        """Reset ``VmHWM`` to the current memory, that of worker processes too."""
        for pid in [self.process.pid, *self.workers()]:
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def healthy(self, picture: bytes) -> None:
        """Assert that it is the same process and responds."""
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        with Client(self.url) as client:
            assert client.search(picture, limit=3).points

    def stop(self, within: float = 40) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("torture") / "pictures")


def draw(root: Path) -> Path:
    """A folder of 200 rendered pictures of ten classes."""
    for label in SCENES:
        for seed in range(20):
            path = root / label / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(render(label, seed)))
    return root


@pytest.fixture(scope="session")
def env(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables for the instance's pictures and store."""
    return {
        "LOOKALIKE_DATA": str(pictures),
        "LOOKALIKE_VAR": str(tmp_path_factory.mktemp("torture-store")),
    }


@pytest.fixture(scope="session")
def service(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The instance that most attacks share; it must survive them all and log no error."""
    log = tmp_path_factory.mktemp("torture-log") / "log"
    service = Service(env, log)
    with service.client() as client:
        for _ in range(20):
            assert client.get("/v1/images").status_code == 200
    yield service
    try:
        assert service.stop() == 0
        text = log.read_text()
        assert '"level": "error"' not in text
        assert "Traceback" not in text
    finally:
        service.kill()


@pytest.fixture(scope="session")
def red(pictures: Path) -> bytes:
    """A good picture."""
    return (pictures / next(iter(SCENES)) / "0.png").read_bytes()


def percentile(values: list[float], share: float) -> float:
    """The value that ``share`` (0..1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
