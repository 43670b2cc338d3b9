"""Following a corpus, with events that the test makes."""

from __future__ import annotations

import queue
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from fastapi.testclient import TestClient

from embed.corpus import ArrayCorpus, Corpus, FolderCorpus, TableCorpus, file_stamp
from search_api.api.app import create_app
from search_api.jobs import watching
from search_api.jobs.model import Job
from search_api.jobs.tasks import Task
from search_api.service.engine import SearchEngine
from tests.search_api.conftest import MeanColour, colour, png, rebuild
from tests.search_api.helpers import NEW, first, search, until

Tell = queue.Queue[bool]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("STILL", 0.02), ("WAIT", 0.02), ("AWAY", 0.02), ("RETRY", 0.1)):
        monkeypatch.setattr(watching, f"_{name}_SECONDS", seconds)


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Where the test puts events in place of the system's."""
    told: Tell = queue.Queue()

    def events(folder: Path, polling: bool, stop: threading.Event) -> Iterator[bool]:
        while not stop.is_set():
            try:
                yield told.get(timeout=0.02)
            except queue.Empty:
                yield False

    monkeypatch.setattr(watching, "watched", events)
    return told


@contextmanager
def following(engine: SearchEngine, **options: Any) -> Iterator[TestClient]:
    with TestClient(create_app(engine, watch="auto", **options)) as client:
        yield client


def watch(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/index").json()["watch"]
    return found


def synced(client: TestClient, **counts: int) -> None:
    """Wait until the last sync has these counts, and no job is running."""
    until(lambda: counts.items() <= watch(client)["counts"].items(), 60)


def sources(client: TestClient) -> dict[str, tuple[int, str | None]]:
    points = client.get("/v1/images", params={"limit": 1000}).json()["points"]
    return {p["payload"]["source"]: (p["id"], p["payload"].get("label")) for p in points}


def test_what_changed_before_the_start_is_followed(
    engine: SearchEngine, folder: Path, tell: Tell
) -> None:
    (folder / "train" / "red" / "new.png").write_bytes(png(NEW))
    with following(engine) as client:
        synced(client, embedded=1, removed=0)
        assert first(client, NEW)["payload"]["source"] == "train/red/new.png"
        info = client.get("/v1/index").json()
        assert (info["count"], info["generation"]) == (25, 1)  # no index is built for it
        (job,) = client.get("/v1/jobs").json()["jobs"]
        assert (job["kind"], job["state"]) == ("sync", "succeeded")
        assert watch(client)["last_sync"] == job["finished"]
        metrics = client.get("/metrics").text
        assert 'lookalike_synced_pictures_total{what="embedded"} 1.0' in metrics
        (line,) = re.findall(r"^lookalike_sync_timestamp_seconds (.+)$", metrics, re.MULTILINE)
        assert float(line) == job["finished"]


def test_new_changed_moved_and_deleted_files(
    engine: SearchEngine, folder: Path, tell: Tell
) -> None:
    red = folder / "train" / "red"
    with following(engine) as client:
        synced(client, embedded=0)
        before = sources(client)
        (red / "new.png").write_bytes(png(NEW))
        (red / "1.png").write_bytes(png((9, 9, 9)))
        (red / "2.png").rename(folder / "train" / "blue" / "from-red.png")
        (red / "3.png").unlink()
        tell.put(True)
        synced(client, embedded=2, changed=1, moved=1, removed=1)
        after = sources(client)
        assert set(after) - set(before) == {"train/red/new.png", "train/blue/from-red.png"}
        assert set(before) - set(after) == {"train/red/2.png", "train/red/3.png"}
        assert after["train/blue/from-red.png"] == (before["train/red/2.png"][0], "blue")
        assert first(client, (9, 9, 9))["id"] == before["train/red/1.png"][0]


def test_a_deleted_picture_stays_deleted(engine: SearchEngine, folder: Path, tell: Tell) -> None:
    with following(engine) as client:
        synced(client, embedded=0)
        gone = sources(client)["train/red/1.png"][0]
        client.delete(f"/v1/images/{gone}")
        (folder / "train" / "red" / "new.png").write_bytes(png(NEW))
        tell.put(True)
        synced(client, embedded=1)
        assert "train/red/1.png" not in sources(client)


def test_events_without_a_change_make_no_job(
    engine: SearchEngine, folder: Path, tell: Tell
) -> None:
    with following(engine) as client:
        synced(client, embedded=0)
        for name in (".hidden.png", "notes.txt"):
            (folder / "train" / "red" / name).write_bytes(b"x")
        (engine.var / "anything").write_bytes(b"x")
        tell.put(True)
        (folder / "train" / "red" / "new.png").write_bytes(png(NEW))
        tell.put(True)
        synced(client, embedded=1)
        assert len(client.get("/v1/jobs").json()["jobs"]) == 2


def test_a_file_that_is_being_written_waits(
    engine: SearchEngine, folder: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = folder / "train" / "red" / "slow.png", png(NEW, (64, 64))
    read: list[str] = []
    load = FolderCorpus.load

    def noted(self: FolderCorpus, source: str, at_least: int | None = None) -> Any:
        read.append(source)
        return load(self, source, at_least)

    monkeypatch.setattr(FolderCorpus, "load", noted)
    with following(engine) as client:
        synced(client, embedded=0)
        writing = threading.Event()

        def growing(file: Path) -> Any:
            if writing.is_set() and file == path:  # a further piece, between two looks
                with path.open("ab") as further:
                    further.write(data[path.stat().st_size :][:8])
                if path.stat().st_size == len(data):
                    writing.clear()
            return file_stamp(file)

        monkeypatch.setattr(watching, "file_stamp", growing)
        path.write_bytes(data[:8])
        (folder / "train" / "red" / "whole.png").write_bytes(png((1, 200, 1)))
        writing.set()
        tell.put(True)
        until(lambda: "train/red/slow.png" in sources(client))
        assert read.count("train/red/slow.png") == 1  # once, when it was whole
        assert first(client, NEW)["payload"]["source"] == "train/red/slow.png"
        assert "train/red/whole.png" in sources(client)


def test_a_folder_that_goes_away_is_no_deletion(
    engine: SearchEngine, folder: Path, tell: Tell, caplog: pytest.LogCaptureFixture
) -> None:
    away = folder.with_name("away")
    with following(engine) as client:
        synced(client, embedded=0)
        folder.rename(away)
        tell.put(True)
        until(lambda: watch(client)["state"] == "away")
        assert client.get("/v1/index").json()["count"] == 24
        assert "is not there; its pictures stay" in caplog.text
        # An empty mount point is no deletion either.
        folder.mkdir()
        until(lambda: watch(client)["problem"] is not None)
        assert "no pictures" in watch(client)["problem"]
        assert client.get("/v1/index").json()["count"] == 24
        folder.rmdir()
        until(lambda: watch(client)["state"] == "away")
        (away / "train" / "red" / "new.png").write_bytes(png(NEW))
        away.rename(folder)
        synced(client, embedded=1)
        assert watch(client)["state"] == "watching"
        assert watch(client)["problem"] is None
        assert client.get("/v1/index").json()["count"] == 25


def test_many_removals_at_once_stop(engine: SearchEngine, folder: Path, tell: Tell) -> None:
    with following(engine) as client:
        synced(client, embedded=0)
        shutil.move(folder / "train" / "red", folder.with_name("red"))
        tell.put(True)
        until(lambda: watch(client)["problem"] is not None)
        assert "would remove 6 of the 24 pictures" in watch(client)["problem"]
        assert "--allow-removal" in watch(client)["problem"]
        assert client.get("/v1/index").json()["count"] == 24
        assert client.get("/v1/jobs").json()["jobs"][0]["state"] == "failed"
        shutil.move(folder.with_name("red"), folder / "train" / "red")
        until(lambda: watch(client)["problem"] is None)
        assert client.get("/v1/index").json()["count"] == 24


def test_it_waits_for_a_running_job(engine: SearchEngine, folder: Path, tell: Tell) -> None:
    with following(engine) as client:
        synced(client, embedded=0)
        go = threading.Event()
        jobs = client.app.state.context.jobs  # type: ignore[attr-defined]
        other = jobs.start("rebuild", lambda control: {"waited": int(go.wait(30))})
        (folder / "train" / "red" / "new.png").write_bytes(png(NEW))
        tell.put(True)
        until(lambda: tell.empty())
        assert watch(client)["counts"]["embedded"] == 0
        go.set()
        synced(client, embedded=1)
        assert jobs.own(other.id).state == "succeeded"


def test_it_rests_as_long_as_the_look_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as long as it waited for another job, which may be a build of hours."""

    class Stop(threading.Event):
        rests: list[float] = []  # noqa: RUF012

        def wait(self, timeout: float | None = None) -> bool:
            self.rests.append(timeout or 0.0)
            return False

    def waits(*_: object) -> Job:
        clock[0] += 1000.0
        return Job("1", "sync", "succeeded", finished=clock[0], result={})

    def looks() -> tuple[Any, set[str]]:
        clock[0] += 0.0625
        return np.zeros(1, np.int64), set()

    clock = [0.0]
    followed = watching.Watching(Mock(), Stop())
    monkeypatch.setattr(watching, "time", Mock(monotonic=lambda: clock[0], time=lambda: 0.0))
    monkeypatch.setattr(followed, "_files", looks)
    monkeypatch.setattr(followed, "_sync", waits)
    followed._look()
    assert Stop.rests == [0.0625]


def test_it_begins_after_the_first_build(folder: Path, tmp_path: Path, tell: Tell) -> None:
    with (
        closing(SearchEngine(MeanColour(), FolderCorpus(folder), tmp_path / "empty")) as engine,
        following(engine, build=Task("rebuild")) as client,
    ):
        until(lambda: client.get("/readyz").status_code == 200)
        synced(client, embedded=0)
        kinds = [job["kind"] for job in client.get("/v1/jobs").json()["jobs"]]
        assert kinds == ["sync", "rebuild"]


def test_a_table_is_followed(folder: Path, tmp_path: Path, tell: Tell) -> None:
    table = folder / "table.csv"
    rows = [f"train/red/{n}.png,warm" for n in range(4)]
    table.write_text("\n".join(["file,label", *rows]))
    corpus = TableCorpus(table)
    with closing(SearchEngine(MeanColour(), corpus, tmp_path / "var")) as engine:
        rebuild(engine)
        with following(engine) as client:
            synced(client, embedded=0)
            rows[0] = rows[0].replace("warm", "hot")
            table.write_text("\n".join(["file,label", *rows, "train/blue/1.png,cold"]))
            tell.put(True)
            synced(client, embedded=1)
            found = {source: label for source, (_, label) in sources(client).items()}
            assert found["train/red/0.png"] == "hot"
            assert found["train/blue/1.png"] == "cold"
            assert len(found) == 5


def test_polling_where_the_system_cannot_watch(
    engine: SearchEngine,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[bool] = []

    def events(folder: Path, polling: bool, stop: threading.Event) -> Iterator[bool]:
        asked.append(polling)
        if not polling:
            raise OSError("OS file watch limit reached. about [...]")
        while not stop.wait(0.02):
            yield True

    monkeypatch.setattr(watching, "watched", events)
    with following(engine) as client:
        synced(client, embedded=0)
        assert watch(client)["state"] == "polling"
        assert asked == [False, True]
        assert "fs.inotify.max_user_watches" in caplog.text
        (folder / "train" / "red" / "new.png").write_bytes(png(NEW))
        synced(client, embedded=1)


def test_a_corpus_in_no_folder_is_not_watched(
    engine: SearchEngine, caplog: pytest.LogCaptureFixture
) -> None:
    corpus: Corpus = ArrayCorpus("digits", ("one",), dict)
    engine.corpus = corpus
    watching.Watching(_tasks(engine), threading.Event()).run()
    assert "digits is no folder, so it is not watched" in caplog.text


def _tasks(engine: SearchEngine) -> Any:
    return create_app(engine).state.context.tasks


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "state"), [("auto", "watching"), ("poll", "polling")])
def test_events_of_the_system(
    engine: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch, mode: Any, state: str
) -> None:
    monkeypatch.setattr(watching, "_POLL_MS", 100)
    with TestClient(create_app(engine, watch=mode)) as client:
        synced(client, embedded=0)
        assert watch(client)["state"] == state
        red = folder / "train" / "red"
        temporary = red / ".new.part"
        temporary.write_bytes(png(NEW))
        temporary.rename(red / "new.png")
        synced(client, embedded=1)
        assert search(client, NEW)["points"][0]["payload"]["source"] == "train/red/new.png"
        shutil.copytree(red, folder / "train" / "violet")
        until(lambda: "train/violet/new.png" in sources(client), 60)
        (folder / "train" / "violet").rename(folder / "train" / "purple")
        until(lambda: sources(client).get("train/purple/1.png", (0, ""))[1] == "purple", 60)
        assert first(client, colour("green", 0))["payload"]["label"] == "green"
