import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index.contract import (
    CatalogueError,
    GenerationAheadError,
    GenerationCorruptError,
    GenerationFormatError,
    ModelMismatchError,
    NoGenerationError,
)
from index.local.caches import EntryCache
from index.local.catalogue import SqliteCatalogue
from index.local.generations import publish
from index.local.serving import LocalServedIndex
from index.records import Record
from tests.index.local.test_generations import rewritten
from tests.index.vectors import filled, random_vectors

XB = random_vectors(50, 8, seed=0)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[SqliteCatalogue]:
    with SqliteCatalogue(tmp_path / "catalogue.sqlite") as opened:
        opened.upsert([Record(str(i)) for i in range(10)], XB[:10], "m")
        yield opened


def build(root: Path, catalogue: SqliteCatalogue, model: str = "m") -> int:
    with catalogue.reading_embeddings(model) as stored:
        ((ids, xb),) = stored.pieces
    return publish(root, filled(ids, xb), model, stored.moment).generation


def served(root: Path, catalogue: SqliteCatalogue, *models: str) -> LocalServedIndex[str]:
    known = {"m", *models}
    entries = EntryCache(catalogue, 100)
    return LocalServedIndex(
        root, catalogue, lambda digest: digest if digest in known else None, entries
    )


def test_writes_of_any_process_are_in_the_next_search(
    tmp_path: Path, catalogue: SqliteCatalogue
) -> None:
    build(tmp_path, catalogue)
    follower = served(tmp_path, catalogue)
    assert follower.last is None
    assert follower.load("m")[1] is None
    with SqliteCatalogue(tmp_path / "catalogue.sqlite") as other:
        (new,) = other.upsert([Record("new")], XB[20:21], "m")
        assert follower.current().index.search(XB[20:21], 1).ids.tolist() == [[new]]
        other.delete([new, 1])
        assert follower.current().index.ids().tolist() == list(range(2, 11))
        other.update([2], label="x")
        before = follower.current()
        assert follower.peek() is before
        other.embed([2], XB[30:31], "m", [None])
        assert follower.peek() is None
        assert follower.current().index.search(XB[30:31], 1).ids.tolist() == [[2]]
        # A state taken earlier does not change.
        assert before.index.search(XB[30:31], 1).scores[0, 0] < 0.99
        assert follower.peek() is follower.last
        assert build(tmp_path, other) == 2
        assert follower.peek() is None
        state = follower.current()
        assert (state.manifest.generation, state.index.added, state.index.masked) == (2, 0, 0)
        assert state.sequence == other.sequence()


def test_falls_back_to_an_older_generation_and_loses_nothing(
    tmp_path: Path, catalogue: SqliteCatalogue
) -> None:
    build(tmp_path, catalogue)
    catalogue.upsert([Record("a")], XB[20:21], "m")
    build(tmp_path, catalogue)
    catalogue.delete([1])
    build(tmp_path, catalogue)
    (new,) = catalogue.upsert([Record("b")], XB[21:22], "m")
    for generation in (3, 2):
        path = tmp_path / "generations" / f"{generation:06d}" / "index.faiss"
        path.write_bytes(path.read_bytes()[:-1])
        follower = served(tmp_path, catalogue)
        manifest, problem = follower.load("m")
        assert manifest.generation == generation - 1
        assert "000003/index.faiss: has SHA-256" in str(problem)
        index = follower.current().index
        assert index.ids().tolist() == [*range(2, 12), new]
        assert index.search(XB[21:22], 1).ids.tolist() == [[new]]
    shutil.rmtree(tmp_path / "generations" / "000001")
    with pytest.raises(GenerationCorruptError, match="000003"):
        served(tmp_path, catalogue).load("m")


def test_a_generation_that_is_ahead_of_the_catalogue(
    tmp_path: Path, catalogue: SqliteCatalogue
) -> None:
    build(tmp_path, catalogue)
    rewritten(tmp_path, sequence=99)
    with pytest.raises(
        GenerationAheadError, match="up to 99, and the catalogue has 1: it is older"
    ):
        served(tmp_path, catalogue).load("m")


def test_generations_of_the_first_format(tmp_path: Path, catalogue: SqliteCatalogue) -> None:
    build(tmp_path, catalogue)
    rewritten(tmp_path, format_version=1)
    with pytest.raises(GenerationFormatError, match="format version 1, and this Lookalike reads 2"):
        served(tmp_path, catalogue).load("m")


def test_nothing_built_or_another_model(tmp_path: Path, catalogue: SqliteCatalogue) -> None:
    follower = served(tmp_path, catalogue)
    for call in (lambda: follower.load("m"), follower.current):
        with pytest.raises(NoGenerationError):
            call()
    build(tmp_path, catalogue)
    with pytest.raises(ModelMismatchError):
        follower.load("other")


def test_another_model_is_loaded_if_available(tmp_path: Path, catalogue: SqliteCatalogue) -> None:
    build(tmp_path, catalogue)
    able, unable = served(tmp_path, catalogue, "next"), served(tmp_path, catalogue)
    able.load("m")
    unable.load("m")
    wide = random_vectors(11, 16, seed=3)
    catalogue.staging.add(catalogue.ids(), wide[:10], "next")
    catalogue.staging.promote("next")
    assert able.current().model == "m"
    build(tmp_path, catalogue, "next")
    catalogue.upsert([Record("late")], wide[10:], "next")
    assert (able.current().model, able.current().index.count()) == ("next", 11)
    assert able.dimension == 16
    # Without the model, a process keeps serving what it has.
    assert (unable.current().model, unable.current().index.count()) == ("m", 10)


def test_a_catalogue_that_went_back(tmp_path: Path, catalogue: SqliteCatalogue) -> None:
    build(tmp_path, catalogue)
    copy = tmp_path / "copy"
    catalogue.backup(copy)
    catalogue.upsert([Record("a")], XB[20:21], "m")
    follower = served(tmp_path, catalogue)
    follower.load("m")
    with SqliteCatalogue(copy) as older:
        follower._catalogue = older
        with pytest.raises(CatalogueError, match="went back from write 2 to 1"):
            follower.current()


def test_threads_see_whole_writes(tmp_path: Path, catalogue: SqliteCatalogue) -> None:
    build(tmp_path, catalogue)
    follower = served(tmp_path, catalogue)
    follower.load("m")
    faults: list[object] = []
    done = threading.Event()

    def search() -> None:
        last = 0
        while not done.is_set():
            state = follower.current()
            ids = state.index.ids()
            extra = np.setdiff1d(ids, np.arange(1, 11))
            if len(extra) not in (0, 3) or len(ids) - len(extra) != 10 or state.sequence < last:
                faults.append((ids, state.sequence, last))
                return
            last = state.sequence

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(30):
        ids = catalogue.upsert([Record(f"n{i}") for i in range(3)], XB[20:23], "m")
        if number % 5 == 0:
            build(tmp_path, catalogue)
        catalogue.delete(ids)
    done.set()
    for thread in threads:
        thread.join()
    assert faults == []
