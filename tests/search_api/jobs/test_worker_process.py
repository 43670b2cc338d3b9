"""Jobs in a process of their own: what the two processes exchange, and how either may end."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from embed.bundle import Bundle
from embed.corpus import FolderCorpus
from embed.folders.options import FolderOptions
from embed.pictures import PictureLimits
from index.contract import CancelledError, JobControl, StoreBusyError
from index.local.lock import store_lock
from index.milvus.settings import MilvusSettings
from search_api.api.app import create_app
from search_api.jobs.tasks import Task
from search_api.jobs.worker_process import WorkerError, WorkerProcess
from search_api.service.engine import SearchEngine
from search_api.settings import Quotas, StoreLocation
from search_api.stores.model_store import open_model
from tests.search_api.conftest import colour, png, rebuild
from tests.search_api.helpers import garden, tint, until

pytestmark = pytest.mark.slow


class Seen:
    """What a worker reports."""

    def __init__(self) -> None:
        self.progress: list[tuple[str, int, int]] = []
        self.skipped: dict[str, str] = {}
        self.control = JobControl(
            lambda *step: self.progress.append(step), skip=self.skipped.update, job="7"
        )


def worker_of(engine: SearchEngine, script: str) -> WorkerProcess:
    """A WorkerProcess whose program does what a test wants."""
    code = "import json, os, signal, sys, time\nrequest = json.loads(sys.stdin.readline())\n"
    code += "send = lambda **x: print(json.dumps(x), flush=True)\n" + textwrap.dedent(script)
    return WorkerProcess(engine, StoreLocation(engine.var), program=(sys.executable, "-c", code))


def test_progress_skipped_and_result(engine: SearchEngine) -> None:
    seen = Seen()
    worker = worker_of(
        engine,
        """
        send(progress=["embedding", 1, 2])
        send(skip={"a.png": "damaged"})
        send(progress=["indexing", 2, 2])
        send(result={"total": request["task"]["reembed"] + 1})
        """,
    )
    assert worker(Task("rebuild", reembed=True), seen.control) == {"total": 2}
    assert seen.progress == [("embedding", 1, 2), ("indexing", 2, 2)]
    assert seen.skipped == {"a.png": "damaged"}


def test_the_worker_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "search_api.py").write_text("print('taken over')")
    monkeypatch.chdir(tmp_path)
    started = subprocess.run(
        [*WorkerProcess(None, StoreLocation(tmp_path)).program],  # type: ignore[arg-type]
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "taken over" not in started.stdout
    assert "JSONDecodeError" in started.stderr  # it was the real one, without a task


def test_the_request(engine: SearchEngine, tmp_path: Path) -> None:
    worker = worker_of(
        engine, "send(result={}); open(request['data'] + '/request', 'w').write(str(request))"
    )
    worker = replace(worker, data=tmp_path, picture=PictureLimits(10, 20), log_format="json")
    worker = replace(worker, memory=2**30, quotas=Quotas(trash_days=3))
    worker = replace(worker, folder_options=FolderOptions("no", hidden=True))
    milvus = MilvusSettings("http://m", "t", "p", False)
    worker = replace(worker, location=StoreLocation(tmp_path / "var", milvus))
    worker(Task("compact"), Seen().control)
    assert eval((tmp_path / "request").read_text()) == {
        "task": {
            "kind": "compact",
            "model": engine.encoder.digest,
            "reembed": False,
            "allow_removal": False,
            "first": False,
            "index": "",
            "leave": [],
        },
        "job": "7",
        "data": str(tmp_path),
        "bundle": None,
        "picture": asdict(PictureLimits(10, 20)),
        "quotas": asdict(Quotas(trash_days=3)),
        "log_format": "json",
        "memory": 2**30,
        "folder_options": {
            "splits": "no",
            "follow_links": False,
            "hidden": True,
            "program_folders": False,
            "table_payload": False,
            "gps_place": False,
        },
        "location": {
            "var": str(tmp_path / "var"),
            "milvus": {"uri": "http://m", "token": "t", "prefix": "p", "flush": False},
            "pictures": None,
        },
    }


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("send(cancelled='stopped early')", CancelledError, "stopped early"),
        ("send(busy='another builds', job='9')", StoreBusyError, "another builds"),
        ("send(failed='no room')", WorkerError, "no room"),
        ("os.kill(os.getpid(), signal.SIGKILL)", WorkerError, "signal SIGKILL"),
        ("os.abort()", WorkerError, "perhaps for lack of memory: it may allocate"),
        ("send(progress=['embedding', 1, 2]); sys.exit(3)", WorkerError, "exit code 3"),
        ("", WorkerError, "exit code 0"),
    ],
)
def test_how_a_worker_may_end(
    engine: SearchEngine, script: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        worker_of(engine, script)(Task("rebuild"), Seen().control)


def test_a_process_that_outlives_the_worker_is_not_waited_for(engine: SearchEngine) -> None:
    script = """
    import subprocess
    left = subprocess.Popen(["sleep", "1000"])
    send(progress=["left", left.pid, 0])
    send(result={"total": 1})
    """
    seen = Seen()
    try:
        assert worker_of(engine, script)(Task("compact"), seen.control) == {"total": 1}
    finally:
        ((_, pid, _),) = seen.progress
        os.kill(pid, signal.SIGKILL)


def test_a_worker_that_reads_nothing(engine: SearchEngine) -> None:
    worker = replace(worker_of(engine, ""), program=(sys.executable, "-c", "pass"))
    with pytest.raises(WorkerError, match="exit code 0"):
        worker(Task("rebuild"), Seen().control)


def test_a_worker_is_told_to_stop(engine: SearchEngine) -> None:
    worker = worker_of(engine, "send(cancelled='told: ' + sys.stdin.readline().strip())")
    with pytest.raises(CancelledError, match="told: stop"):
        worker(Task("rebuild"), JobControl(cancelled=lambda: True))


def test_a_job_that_is_killed_has_failed(engine: SearchEngine) -> None:
    worker = worker_of(engine, "os.kill(os.getpid(), signal.SIGKILL)")
    with TestClient(create_app(engine, worker=worker)) as client:
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


def test_a_rebuild_by_a_worker_is_served(folder: Path, tiny: Path, tmp_path: Path) -> None:
    engine = SearchEngine(open_model(tiny), FolderCorpus(folder), tmp_path / "var")
    rebuild(engine)
    (folder / "train" / "red" / "new.png").write_bytes(png(colour("red", 3)))
    (folder / "train" / "red" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    seen = Seen()
    worker = WorkerProcess(engine, StoreLocation(engine.var), folder, tiny)
    result = worker(Task("rebuild"), seen.control)
    assert result == {
        "generation": 2,
        "total": 25,
        "embedded": 1,
        "changed": 0,
        "moved": 0,
        "removed": 0,
        "unreachable": 0,
        "skipped": 1,
        "skipped unreadable pictures": 1,
    }
    assert ("indexing", 25, 25) in seen.progress
    assert seen.progress[-1] == ("fitting the classifier", 25, 25)
    assert list(seen.skipped) == ["train/red/bad.png"]
    assert engine.served.last is not None
    assert engine.served.last.manifest.generation == 2
    with store_lock(engine.var), pytest.raises(StoreBusyError):
        worker(Task("compact"), seen.control)
    engine.close()


def test_a_classifier_fitted_by_a_worker_is_used(tiny: Path, tmp_path: Path) -> None:
    folder = garden(tmp_path / "garden")
    engine = SearchEngine(open_model(tiny), FolderCorpus(folder), tmp_path / "var")
    rebuild(engine)
    ids = [entry.id for entry in engine.catalogue.page(-1, 100) if entry.label == "sea"]
    engine.catalogue.update(ids, label="lake")
    worker = WorkerProcess(engine, StoreLocation(engine.var), folder, tiny)
    assert worker(Task("fit"), Seen().control) == {"classes": 3, "total": 60}
    found = engine.search(png(tint("sea", 3)), classes="store").prediction
    assert found is not None and set(found.probabilities) == {"lake", "leaf", "rose"}
    engine.close()


def test_a_task_that_needs_too_much_memory_fails_alone(tiny: Path, tmp_path: Path) -> None:
    folder = garden(tmp_path / "garden")
    engine = SearchEngine(open_model(tiny), FolderCorpus(folder), tmp_path / "var")
    before = rebuild(engine)[0]
    runaway = """
        from index.ann import kinds
        from search_api.jobs import worker_main
        kinds.build_collected = lambda collected: [bytearray(2**24) for _ in range(2**10)]
        worker_main.main()
    """
    worker = WorkerProcess(engine, StoreLocation(engine.var), folder, tiny, memory=2**28)
    program = (sys.executable, "-c", textwrap.dedent(runaway))
    with pytest.raises(WorkerError, match=r"more than the 0\.3 GB .*--job-memory-share"):
        replace(worker, program=program)(Task("compact", index="ivf"), Seen().control)
    assert engine.served.current().manifest == before
    assert engine.builder.kind() == "auto"
    assert worker(Task("compact", index="ivf"), Seen().control) == {"generation": 2, "total": 60}
    assert engine.builder.kind() == "ivf"
    engine.close()


def test_with_more_open_files_than_select_can_handle(engine: SearchEngine) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip(f"only {hard} files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        worker = worker_of(engine, "send(result={'total': 1})")
        assert worker(Task("compact"), Seen().control) == {"total": 1}
    finally:
        for handle in opened:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# A worker whose job never finishes, and its server, which is killed.
JOB = """
import contextlib, time
from index.contract import CancelledError
from search_api.jobs import tasks, worker_main
from search_api.service import engine as service

def perform(engine, task, control):
    control.progress("waiting", 1, 2)
    while not (control.cancelled() and "{obeys}"):
        time.sleep(0.01)
    raise CancelledError("told to stop")

worker_main._ORPHAN_SECONDS = 0.3
tasks.perform = perform
service.open_engine = lambda *args, **options: contextlib.nullcontext()
worker_main.main()
"""
SERVER = """
import sys
from pathlib import Path
from index.contract import JobControl
from search_api.jobs.tasks import Task
from search_api.jobs.worker_process import WorkerProcess
from search_api.settings import Quotas, StoreLocation

control = JobControl(lambda *step: print("begun", flush=True))
location = StoreLocation(Path(sys.argv[1]))
worker = WorkerProcess(None, location, program=(sys.executable, "-c", sys.argv[2]))
worker(Task("compact", "sha256:0"), control)
"""


@pytest.mark.parametrize("obeys", ["yes", ""])
def test_it_ends_when_the_server_is_killed(tmp_path: Path, obeys: str) -> None:
    """Orderly, or by force a moment later if the work never checks whether to stop."""
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
    """Whether the process has ended, even if nobody has waited for it yet."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_server_that_dies_at_once(folder: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    request = {
        "task": {"kind": "rebuild", "model": "", "reembed": False},
        "job": "7",
        "data": str(folder),
        "bundle": str(tiny),
        "picture": {"max_bytes": 10**6, "max_pixels": 10**6},
        "quotas": {},
        "log_format": "json",
        "memory": 2**30,
        "folder_options": {
            "splits": "no",
            "follow_links": False,
            "hidden": True,
            "program_folders": False,
            "table_payload": False,
            "gps_place": False,
        },
        "location": {"var": str(tmp_path / "var"), "milvus": None, "pictures": None},
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "search_api.jobs.worker_main"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.close()  # as when the server is killed
    *_, last = process.stdout.read().splitlines() or [b"{}"]
    assert process.wait(120) in (0, 1)
    assert set(json.loads(last)) <= {"cancelled", "progress"}
    with store_lock(tmp_path / "var"):
        pass  # the lock was released
    process.stdout.close()
