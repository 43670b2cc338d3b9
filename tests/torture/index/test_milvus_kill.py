"""kill -9 of the real Milvus while pictures are added, changed and deleted."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.blobs.folder import FolderBlobs
from index.contract import CatalogueError, StateGoneError, StoreBusyError
from index.milvus.settings import MilvusSettings
from index.milvus.store import MilvusStore
from index.records import Record
from tests.index.milvus.conftest import real_server
from tests.index.milvus.server import RealServer
from tests.index.vectors import random_vectors
from tests.torture.index.conftest import COUNTS

__all__ = ["real_server"]
pytestmark = [pytest.mark.milvus_server, pytest.mark.timeout(3600)]

XB = random_vectors(4096, 16, seed=0)
ANSWERS_AGAIN_SECONDS = 600.0


class Writing:
    """A thread that writes until Milvus dies, and records what was acknowledged."""

    def __init__(self, store: MilvusStore[str], acknowledged: dict[str, int], first: int) -> None:
        self.acknowledged = acknowledged
        self.open: set[str] = set()
        self.written = 0
        self.next = first
        self._store = store
        self.thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        catalogue = self._store.catalogue
        try:
            while True:
                number = self.next
                self.next += 1
                batch = [f"{number}:{i}" for i in range(1 + number % 5)]
                if number % 7 == 3:
                    batch = [random.choice([*self.acknowledged, *batch])]
                self.open = set(batch)
                rows = [Record(f"key:{k}", payload={"v": number}, origin="added") for k in batch]
                catalogue.upsert(rows, XB[[vector_of(k, number) for k in batch]], "m")
                self.acknowledged.update(dict.fromkeys(batch, number))
                self.written += 1
                if number % 5 == 4:
                    (key,) = self.open = {random.choice(list(self.acknowledged))}
                    catalogue.delete([catalogue.all_sources()[f"key:{key}"]])
                    del self.acknowledged[key]
                    self.written += 1
                self.open = set()
        except (CatalogueError, StateGoneError, StoreBusyError):
            return  # Milvus has been killed


def vector_of(key: str, number: int) -> int:
    return hash((key, number)) % len(XB)


def test_no_acknowledged_row_is_lost(
    real_server: RealServer, tmp_path: Path, counted: Callable[[str, str], None]
) -> None:
    settings = MilvusSettings(real_server.uri, prefix="killed")
    store: MilvusStore[str] = MilvusStore(settings, str, FolderBlobs(tmp_path), lease_seconds=5)
    store.catalogue.upsert([Record("key:0", origin="added", payload={"v": 0})], XB[:1], "m")
    store.publish("m", 16, "auto")
    acknowledged = {"0": 0}
    written, number = 0, 1
    for _ in range(COUNTS.milvus_kills):
        writing = Writing(store, acknowledged, number)
        writing.thread.start()
        wanted = random.randint(1, 6)
        while writing.written < wanted and writing.thread.is_alive():
            time.sleep(0.05)
        time.sleep(random.uniform(0.0, 1.5))
        real_server.kill()
        writing.thread.join()
        written += writing.written
        number = writing.next
        real_server.start()
        until = time.monotonic() + ANSWERS_AGAIN_SECONDS
        while not store.served.available():
            assert time.monotonic() < until
            time.sleep(0.5)
        store.served.current()  # repeats deletions that were lost
        stored = {e.source.removeprefix("key:"): e for e in store.catalogue._all()}
        for key, version in acknowledged.items():
            if key not in writing.open:
                assert stored[key].payload == {"v": version}
        # What was under way may be done or not; nothing else has changed.
        assert set(acknowledged) - set(stored) <= writing.open, "added, and lost"
        assert set(stored) - set(acknowledged) <= writing.open, "deleted, and back"
        for key in writing.open:
            acknowledged.pop(key, None)
            if key in stored:
                acknowledged[key] = stored[key].payload["v"]
        sample = random.sample(sorted(acknowledged), min(20, len(acknowledged)))
        index = store.served.current().index
        vectors = index.vectors([stored[key].id for key in sample])
        for key, vector in zip(sample, vectors, strict=True):
            if key != "0":
                np.testing.assert_array_equal(vector, XB[vector_of(key, acknowledged[key])])
        found = index.search(vectors, 1)
        assert (found.scores[:, 0] > 0.9999).all()
    assert written >= COUNTS.milvus_kills
    counted(
        "kill -9 of Milvus",
        f"{COUNTS.milvus_kills} kills, {written} acknowledged writes, none lost",
    )
    store.close()
