"""Jobs in a process of their own: what the two processes say, and how either may end."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from embed.bundle import Bundle
from embed.corpus import FolderCorpus
from embed.pictures import PictureLimits
from index.snapshots import Manifest
from search_api.app import create_app
from search_api.aside import Aside, AsideError
from search_api.builder import Builder
from search_api.commands.open import open_model
from search_api.engine import SearchEngine
from search_api.ingest import CancelledError
from search_api.job import Job
from search_api.jobs import Report
from search_api.settings import Milvus, Place
from search_api.store import StoreBusyError, store_lock
from search_api.tasks import Task, perform
from tests.search_api.conftest import colour, png
from tests.search_api.test_server import until


class Seen:
    def __init__(self) -> None:
        self.progress: list[tuple[str, int, int]] = []
        self.skipped: dict[str, str] = {}

    def change(self, *, stage: str, done: int, total: int, eta_seconds: object) -> Job:
        self.progress.append((stage, done, total))
        return Job("1", "rebuild")

    @property
    def report(self) -> Report:
        return Report(self.change, self.skipped.update)


def never() -> bool:
    return False


def acting(engine: SearchEngine, script: str) -> Aside:
    """Aside, with a program that says what a test wants."""
    code = "import json, os, signal, sys, time\norder = json.loads(sys.stdin.readline())\n"
    code += "say = lambda **x: print(json.dumps(x), flush=True)\n" + textwrap.dedent(script)
    return Aside(engine, program=(sys.executable, "-c", code))


def test_progress_skipped_and_result(engine: SearchEngine) -> None:
    seen = Seen()
    aside = acting(
        engine,
        """
        say(progress=["embedding", 1, 2])
        say(skip={"a.png": "damaged"})
        say(progress=["indexing", 2, 2])
        say(result={"total": order["task"]["reembed"] + 1})
        """,
    )
    assert aside(Task("rebuild", "7", reembed=True), seen.report, never) == {"total": 2}
    assert seen.progress == [("embedding", 1, 2), ("indexing", 2, 2)]
    assert seen.skipped == {"a.png": "damaged"}


def test_the_order(engine: SearchEngine, tmp_path: Path) -> None:
    aside = acting(engine, "say(result={}); open(order['data'] + '/order', 'w').write(str(order))")
    aside = replace(aside, data=tmp_path, picture=PictureLimits(10, 20), log_format="json")
    aside = replace(aside, place=Place(Milvus("http://m", "t", "p", False)))
    aside(Task("compact", "7"), Seen().report, never)
    assert eval((tmp_path / "order").read_text()) == {
        "task": {"kind": "compact", "job": "7", "model": engine.encoder.digest, "reembed": False},
        "data": str(tmp_path),
        "var": str(engine.var),
        "bundle": None,
        "picture": {"max_bytes": 10, "max_pixels": 20, "max_scans": 50},
        "log_format": "json",
        "place": {
            "milvus": {"uri": "http://m", "token": "t", "prefix": "p", "flush": False},
            "pictures": None,
        },
    }


def test_only_a_file_of_milvus_lite_is_of_one_process() -> None:
    assert Place(Milvus("var/milvus.db")).of_one_process
    assert not Place(Milvus("http://127.0.0.1:19530")).of_one_process
    assert not Place().of_one_process


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("say(cancelled='stopped early')", CancelledError, "stopped early"),
        ("say(busy='another builds', job='9')", StoreBusyError, "another builds"),
        ("say(failed='no room')", AsideError, "no room"),
        ("os.kill(os.getpid(), signal.SIGKILL)", AsideError, "signal SIGKILL"),
        ("say(progress=['embedding', 1, 2]); sys.exit(3)", AsideError, "exit code 3"),
        ("", AsideError, "exit code 0"),
    ],
)
def test_how_it_may_end(
    engine: SearchEngine, script: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        acting(engine, script)(Task("rebuild", "7"), Seen().report, never)


def test_what_outlives_the_program_is_not_waited_for(engine: SearchEngine) -> None:
    script = """
    import subprocess
    left = subprocess.Popen(["sleep", "1000"])
    say(progress=["left", left.pid, 0])
    say(result={"total": 1})
    """
    seen = Seen()
    try:
        assert acting(engine, script)(Task("compact", "7"), seen.report, never) == {"total": 1}
    finally:
        ((_, pid, _),) = seen.progress
        os.kill(pid, signal.SIGKILL)


def test_a_program_that_reads_nothing(engine: SearchEngine) -> None:
    aside = replace(acting(engine, ""), program=(sys.executable, "-c", "pass"))
    with pytest.raises(AsideError, match="exit code 0"):
        aside(Task("rebuild", "7"), Seen().report, never)


def test_it_is_told_to_stop(engine: SearchEngine) -> None:
    aside = acting(engine, "say(cancelled='told: ' + sys.stdin.readline().strip())")
    with pytest.raises(CancelledError, match="told: stop"):
        aside(Task("rebuild", "7"), Seen().report, lambda: True)


def test_work_in_this_process_gives_way_more_often(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, seen = sys.getswitchinterval(), []

    def compact(*_: object) -> Manifest:
        seen.append(sys.getswitchinterval())
        return engine.manifest

    monkeypatch.setattr(Builder, "compact", compact)
    done = perform(engine, Task("compact", "7"), Seen().report, never)
    assert done == {"generation": 1, "total": 24}
    assert seen == [pytest.approx(0.0005)]
    assert sys.getswitchinterval() == pytest.approx(usual)


def test_a_job_that_is_killed_has_failed(engine: SearchEngine) -> None:
    aside = acting(engine, "os.kill(os.getpid(), signal.SIGKILL)")
    with TestClient(create_app(engine, aside=aside)) as client:
        job = client.post("/v1/index/rebuild").json()["id"]
        client.app.state.context.jobs._thread.join()
        found = client.get(f"/v1/jobs/{job}").json()
        assert found["state"] == "failed"
        assert "SIGKILL" in found["error"]
        assert client.post("/v1/search", files={"image": ("q", png((1, 2, 3)))}).status_code == 200


@pytest.fixture
def tiny(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    tiny_bundle.save(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_rebuild_by_another_process_is_served(folder: Path, tiny: Path, tmp_path: Path) -> None:
    engine = SearchEngine(open_model(tiny), FolderCorpus(folder), tmp_path / "var")
    engine.rebuild()
    (folder / "train" / "red" / "new.png").write_bytes(png(colour("red", 3)))
    (folder / "train" / "red" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    seen = Seen()
    aside = Aside(engine, folder, tiny)
    result = aside(Task("rebuild", "7"), seen.report, never)
    assert result == {"generation": 2, "total": 25, "embedded": 1, "removed": 0, "skipped": 1}
    assert seen.progress[-1] == ("indexing", 25, 25)
    assert list(seen.skipped) == ["train/red/bad.png"]
    assert engine.served.last is not None
    assert engine.served.last.manifest.generation == 2
    with store_lock(engine.var), pytest.raises(StoreBusyError):
        aside(Task("compact", "8"), seen.report, never)
    engine.close()


def test_with_more_connections_than_select_can_name(engine: SearchEngine) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip(f"only {hard} files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        aside = acting(engine, "say(result={'total': 1})")
        assert aside(Task("compact", "7"), Seen().report, never) == {"total": 1}
    finally:
        for handle in opened:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# A job that never gets far, in the program that does jobs, and a server of it that is killed.
JOB = """
import contextlib, sys, time
from search_api import aside
from search_api.commands import open as opening
from search_api.ingest import CancelledError

def perform(engine, task, report, stop):
    report("waiting", 1, 2)
    while not (stop() and "{obeys}"):
        time.sleep(0.01)
    raise CancelledError("told to stop")

aside._ORPHAN_SECONDS = 0.3
aside.perform = perform
opening.open_engine = lambda *args, **options: contextlib.nullcontext()
aside.main()
"""
SERVER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from search_api.aside import Aside
from search_api.jobs import Report
from search_api.tasks import Task

engine = SimpleNamespace(var=Path(sys.argv[1]))
report = Report(lambda **values: print("begun", flush=True), print)
aside = Aside(engine, program=(sys.executable, "-c", sys.argv[2]))
aside(Task("compact", "7", "sha256:0"), report, lambda: False)
"""


@pytest.mark.parametrize("obeys", ["yes", ""])
def test_it_ends_when_the_server_is_killed(tmp_path: Path, obeys: str) -> None:
    """In order, or after a moment where the work does not look whether to stop."""
    job = JOB.replace("{obeys}", obeys)
    command = [sys.executable, "-c", SERVER, str(tmp_path), job]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"begun\n"
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    server.kill()
    server.wait()
    server.stdout.close()
    (child,) = map(int, children)
    try:
        until(lambda: gone(child))
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def gone(pid: int) -> bool:
    """Whether the process has ended; nobody may have taken note of that yet."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_server_that_is_gone_at_once(folder: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    order = {
        "task": {"kind": "rebuild", "job": "7", "model": "", "reembed": False},
        "data": str(folder),
        "var": str(tmp_path / "var"),
        "bundle": str(tiny),
        "picture": {"max_bytes": 10**6, "max_pixels": 10**6},
        "log_format": "json",
        "place": {"milvus": None, "pictures": None},
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "search_api.aside"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(order).encode() + b"\n")
    process.stdin.close()  # as when the server is killed
    *_, last = process.stdout.read().splitlines() or [b"{}"]
    assert process.wait(120) in (0, 1)
    assert set(json.loads(last)) <= {"cancelled", "progress"}
    with store_lock(tmp_path / "var"):
        pass  # given back
    process.stdout.close()
