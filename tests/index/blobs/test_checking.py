"""Checking the bytes of added pictures of a whole store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from index.blobs.checking import check_pictures
from index.contract import Finding, JobControl
from index.local.store import LocalStore
from index.records import Record
from tests.index.vectors import random_vectors

XB = random_vectors(5, 8, seed=0)
CONTENTS = (b"kept", b"broken", b"lost", b"in snapshots only", b"in the trash")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore[str]]:
    store: LocalStore[str] = LocalStore(tmp_path, lambda digest: digest)
    names = [store.blobs.put(content) for content in CONTENTS]
    records = [Record(f"key:{i}", None, None, {}, name, "added") for i, name in enumerate(names)]
    store.catalogue.upsert(records, XB, "m")
    store.catalogue.upsert([Record("a.png")], XB[:1], "m")
    store.snapshots.create("monday")
    store.catalogue.delete([4])
    store.catalogue.delete([5], tombstone=True)
    yield store
    store.close()


def path_of(store: LocalStore[str], content: bytes) -> Path:
    name = store.blobs.put(content).removeprefix("sha256:")
    return store.root / "pictures" / name[:2] / name


def test_sound_pictures(store: LocalStore[str]) -> None:
    seen: list[tuple[str, int, int]] = []
    findings = check_pictures(store, control=JobControl(lambda *step: seen.append(step)))
    assert findings == [Finding("pictures")]
    assert seen == [("checking pictures", done, 5) for done in range(6)]


def test_damaged_and_missing_pictures_are_named(store: LocalStore[str]) -> None:
    for content in (b"broken", b"in snapshots only", b"in the trash"):
        path_of(store, content).write_bytes(b"other")
    path_of(store, b"lost").unlink()
    problems = [finding.problem or "" for finding in check_pictures(store)]
    assert len(problems) == 4
    for words, users in (
        ("is damaged", "id 2 (key:1); snapshot monday, id 2 (key:1)"),
        ("No such file", "id 3 (key:2); snapshot monday, id 3 (key:2)"),
        ("is damaged", "snapshot monday, id 4 (key:3)"),
        ("is damaged", "id 5 (key:4) in the trash; snapshot monday, id 5 (key:4)"),
    ):
        assert any(words in p and p.endswith(f"it belongs to {users}") for p in problems), problems
    for content in CONTENTS:
        store.blobs.put(content)
    assert check_pictures(store) == [Finding("pictures")]


def test_what_is_deleted_or_mended_meanwhile_is_no_finding(store: LocalStore[str]) -> None:
    store.snapshots.remove("monday")
    path_of(store, b"broken").write_bytes(b"other")
    path_of(store, b"lost").unlink()

    def meanwhile(stage: str, done: int, total: int) -> None:
        if done == total:
            store.catalogue.delete([3])
            store.catalogue.trash.purge(None)
            store.blobs.put(b"broken")

    assert check_pictures(store, control=JobControl(meanwhile)) == [Finding("pictures")]


def test_an_unreadable_snapshot_is_a_finding(store: LocalStore[str]) -> None:
    path = store.root / "snapshots" / "monday" / "catalogue.sqlite"
    path.write_bytes(path.read_bytes()[:-1])
    path_of(store, b"broken").write_bytes(b"other")
    parts = [(finding.part, finding.problem or "") for finding in check_pictures(store)]
    assert parts[0][0] == "pictures of snapshots"
    assert "has SHA-256" in parts[0][1]
    assert parts[1][1].endswith("it belongs to id 2 (key:1)")
    assert len(parts) == 2


def test_the_rate(store: LocalStore[str], monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.monotonic", lambda: sum(waits))
    monkeypatch.setattr("time.sleep", waits.append)
    check_pictures(store, rate=10.0)
    size = sum(map(len, CONTENTS))
    assert sum(waits) == pytest.approx(size / 10.0)
    assert time.monotonic() == sum(waits)


def test_a_store_without_pictures(tmp_path: Path) -> None:
    store: LocalStore[str] = LocalStore(tmp_path, lambda digest: digest)
    assert check_pictures(store) == []
    store.close()
