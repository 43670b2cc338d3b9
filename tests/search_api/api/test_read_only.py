"""A store that can only be read: it is searched, and says so when it is written to."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from embed.corpus import FolderCorpus
from index.contract import CatalogueError, ReadOnlyError
from index.local.catalogue import SqliteCatalogue
from index.records import Record
from search_api.api.access import needed
from search_api.api.app import create_app
from search_api.api.intake.declared import Parameters
from search_api.keys import Level
from search_api.problems import meaning
from search_api.service.engine import SearchEngine
from search_api.service.ingest import Upload
from tests.index.vectors import random_vectors
from tests.search_api.api.intake.test_strict import routes
from tests.search_api.cli.helpers import run
from tests.search_api.conftest import MeanColour, colour, png
from tests.search_api.helpers import NEW, add, assert_problem, first

RED = png(colour("red", 3))


@pytest.fixture(params=["mounted", "modes"])
def read_only(
    request: pytest.FixtureRequest,
    engine: SearchEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """A store with an added picture and a snapshot, where nobody may write."""
    with TestClient(create_app(engine)) as client:
        assert add(client, png(NEW), key="k").status_code == 201
        assert client.post("/v1/snapshots", json={"name": "monday"}).status_code == 201
        assert client.delete("/v1/images/1").status_code == 200
    if request.param == "modes":
        # As the modes of another user's files look to anyone but root.
        monkeypatch.setattr("index.local.database.os.access", lambda *_: False)
        yield engine.var
        return
    with mounted_read_only(engine.var, tmp_path / "read-only") as place:
        yield place


@contextmanager
def mounted_read_only(folder: Path, place: Path) -> Iterator[Path]:
    """The folder, mounted at ``place`` so that nobody can write there."""
    place.mkdir()
    for options in (["--bind", str(folder)], ["-o", "remount,bind,ro"]):
        done = subprocess.run(["mount", *options, str(place)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("only root may mount a folder read-only")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if "jobs" not in path.parts and path.is_file()
    }


def body(takes: Parameters) -> dict[str, Any]:
    """Something that the route would accept."""
    if takes.files:
        return {"files": {name: ("x.png", png((9, 9, 9))) for name in takes.files}}
    if "payload" in takes.members:
        return {"json": {"payload": {"label": "x"}}}
    if takes.json:
        return {"json": {"name": "x"} if "name" in takes.members else {"ids": [2]}}
    return {}


def test_over_http(read_only: Path, folder: Path) -> None:
    """Every route that only reads answers; every other one says why not."""
    before = contents(read_only)
    engine = SearchEngine(MeanColour(), FolderCorpus(folder), read_only)
    assert engine.store.read_only
    engine.load()
    with TestClient(create_app(engine), raise_server_exceptions=False) as client:
        refused = 0
        for method, path, takes in routes(client):
            answer = client.request(method, path, **body(takes))
            if needed(method, path) is not Level.WRITE:
                assert answer.status_code in (200, 404, 409, 422), (path, answer.text)
                continue
            refused += 1
            problem = assert_problem(answer, 409, "read-only")
            assert problem["type"] == "urn:lookalike:problem:read-only-store"
        assert refused >= 15
        assert client.get("/readyz").status_code == 200
        assert first(client, NEW)["payload"]["source"] == "key:k"
        assert client.get("/v1/images").json()["total"] == 24
        assert client.get("/v1/images/2/file").status_code == 200
        assert client.get("/v1/trash").json()["total"] == 1
        assert [s["problem"] for s in client.get("/v1/snapshots").json()["snapshots"]] == [None]
        assert all(found.problem is None for found in engine.store.verify())
    assert contents(read_only) == before


def test_in_a_program(read_only: Path, folder: Path) -> None:
    with closing(SearchEngine(MeanColour(), FolderCorpus(folder), read_only)) as engine:
        engine.load()
        writes = (
            lambda: engine.ingest.add([Upload(RED, "new")]),
            lambda: engine.ingest.delete(2),
            lambda: engine.ingest.update(2, label="x"),
            lambda: engine.trash.purge(None),
            lambda: engine.trash.restore(None),
            lambda: engine.builder.compact(engine.encoder),
            lambda: engine.store.snapshots.create("x"),
            lambda: engine.store.snapshots.restore("monday"),
            lambda: engine.store.snapshots.remove("monday"),
            lambda: engine.catalogue.set_meta("corpus", "x"),
        )
        for write in writes:
            with pytest.raises(ReadOnlyError, match="read-only here") as raised:
                write()
            found = meaning(raised.value)
            assert found is not None
            assert (found.status, found.kind, found.exit_code) == (409, "read-only-store", 2)
        assert engine.search(RED).points


def test_a_store_that_another_process_has_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log and shared memory are there, so every write of it is seen."""
    path = tmp_path / "catalogue.sqlite"
    with SqliteCatalogue(path) as writer:
        writer.upsert([Record("a")], random_vectors(1, 8, seed=0), "m")
        with monkeypatch.context() as patch:
            patch.setattr("index.local.database.os.access", lambda *_: False)
            reader = SqliteCatalogue(path)
        assert (reader.read_only, reader.count()) == (True, 1)
        writer.upsert([Record("b")], random_vectors(1, 8, seed=1), "m")
        assert reader.count() == 2
        reader.close()


def test_a_file_that_changes_although_nobody_should_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under a read-only mount of a folder in which another machine writes."""
    path = tmp_path / "catalogue.sqlite"
    with SqliteCatalogue(path) as writer:
        writer.upsert([Record("a")], random_vectors(1, 8, seed=0), "m")
    with monkeypatch.context() as patch:
        patch.setattr("index.local.database.os.access", lambda *_: False)
        reader = SqliteCatalogue(path)
    assert reader.count() == 1
    with SqliteCatalogue(path) as writer:
        writer.upsert([Record("b")], random_vectors(1, 8, seed=1), "m")
    with pytest.raises(CatalogueError, match="was changed while it was open; restart"):
        reader.count()
    reader.close()


def test_an_older_format_cannot_be_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "catalogue.sqlite"
    SqliteCatalogue(path).close()
    monkeypatch.setattr("index.local.database.os.access", lambda *_: False)
    monkeypatch.setattr("index.local.database.FORMAT_VERSION", 10**6)
    with pytest.raises(ReadOnlyError, match="format has to be brought up to date"):
        SqliteCatalogue(path)


def test_what_a_killed_process_left_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read where SQLite can, and otherwise the store is refused, not opened without it."""
    first, path = tmp_path / "first.sqlite", tmp_path / "catalogue.sqlite"
    with SqliteCatalogue(first) as writer:
        writer.upsert([Record("a")], random_vectors(1, 8, seed=0), "m")
        for end in ("", "-wal", "-shm", "-acknowledged"):  # as kill -9 leaves them
            shutil.copy(f"{first}{end}", f"{path}{end}")
    monkeypatch.setattr("index.local.database.os.access", lambda *_: False)
    with SqliteCatalogue(path) as reader:
        assert (reader.read_only, reader.count()) == (True, 1)
    if not Path(f"{path}-wal").exists():
        return  # SQLite has merged it, as it may here
    Path(f"{path}-shm").unlink()
    monkeypatch.undo()
    place = tmp_path.with_name(f"{tmp_path.name}-mounted")
    with mounted_read_only(tmp_path, place), pytest.raises(ReadOnlyError, match="catalogue"):
        SqliteCatalogue(place / "catalogue.sqlite").close()


@pytest.mark.slow
def test_on_the_command_line(engine: SearchEngine, tmp_path: Path) -> None:
    var = engine.var
    engine.close()
    with mounted_read_only(var, tmp_path / "place") as place:
        for command, code in (
            (["index", "verify"], 0),
            (["index", "status"], 0),
            (["delete", "1"], 2),
            (["purge", "--all"], 2),
            (["index", "snapshot"], 2),
        ):
            done = run(*command, "--var", place)
            assert done.returncode == code, done.stderr
            if code:
                assert "read-only here" in done.stderr
                assert done.stderr.count("\n") == 1


def test_a_file_system_that_becomes_read_only(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("only root may mount a file system of its own")
    try:
        with SqliteCatalogue(disk / "catalogue.sqlite") as catalogue:
            catalogue.upsert([Record("a")], random_vectors(1, 8, seed=0), "m")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert not os.access(disk, os.W_OK)
        with SqliteCatalogue(disk / "catalogue.sqlite") as catalogue:
            assert catalogue.count() == 1
            with pytest.raises(ReadOnlyError):
                catalogue.upsert([Record("b")], random_vectors(1, 8, seed=1), "m")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
