"""Stores on each of the three engines: FAISS, milvus-lite and the real Milvus."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from index.blobs.folder import FolderBlobs
from tests.index.milvus.server import NoServerError, RealServer

ENGINES = (
    "faiss",
    pytest.param("lite", marks=pytest.mark.slow),
    pytest.param("server", marks=[pytest.mark.milvus_server, pytest.mark.timeout(1800)]),
)
MILVUS = ENGINES[1:]
_numbers = itertools.count(1)
_figures: list[tuple[str, str]] = []

Opener = Callable[..., Any]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section("engines compared")
    for name, value in _figures:
        terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(scope="session")
def reported() -> Callable[[str, str], None]:
    """Adds a line to the report at the end."""
    return lambda name, value: _figures.append((name, value))


@pytest.fixture(scope="session")
def real_server() -> Iterator[RealServer]:
    """The real Milvus, running; skips if it is not available."""
    pytest.importorskip("pymilvus")
    folder = Path(tempfile.mkdtemp(prefix="milvus-"))
    try:
        server = RealServer(folder)
    except NoServerError as error:
        shutil.rmtree(folder)
        pytest.skip(str(error))
    try:
        server.start()
        yield server
    except NoServerError as error:
        pytest.skip(str(error))
    finally:
        server.close()


def uri_of(engine: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The URI of a Milvus engine."""
    pytest.importorskip("pymilvus")
    if engine == "lite":
        pytest.importorskip("milvus_lite")
        return str(folder / "lite.db")
    return request.getfixturevalue("real_server").uri


def opener(engine: str, request: pytest.FixtureRequest, folder: Path) -> Opener:
    """Returns a function that opens stores over the same data, as further processes would."""
    if engine == "faiss":
        from index.local.store import LocalStore

        return lambda model_of=lambda digest: digest: LocalStore(folder / "var", model_of)
    from index.milvus.settings import MilvusSettings
    from index.milvus.store import MilvusStore

    settings = MilvusSettings(
        uri_of(engine, request, folder),
        prefix=f"t{next(_numbers)}",
        # Flushing takes a second a write on the real server; only the test that kills it flushes.
        flush=engine == "lite",
    )

    def open_store(model_of=lambda digest: digest, **more: Any) -> Any:
        more.setdefault("lease_seconds", 10.0)
        return MilvusStore(settings, model_of, FolderBlobs(folder / "pictures"), **more)

    return open_store


@pytest.fixture(params=ENGINES)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens stores on one engine."""
    return opener(request.param, request, tmp_path)


@pytest.fixture(params=MILVUS)
def open_milvus(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """The same, for Milvus only."""
    return opener(request.param, request, tmp_path)


@pytest.fixture(scope="module", params=ENGINES)
def open_shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opener:
    """The same, shared by all tests of a module."""
    return opener(request.param, request, tmp_path_factory.mktemp("shared"))
