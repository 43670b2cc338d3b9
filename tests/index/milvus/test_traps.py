"""Surprising behaviour of Milvus and milvus-lite, and tests that each trap is avoided."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from index.contract import EngineCannotError, IndexInputError
from index.milvus.connection import Connection, MilvusUnavailableError, without_password
from index.milvus.copying import with_vector
from index.milvus.rows import ALL, MAX_FACTS, entry_of
from index.milvus.settings import MilvusSettings
from index.records import PayloadBounds, Record
from tests.index.milvus.conftest import Opener
from tests.index.milvus.test_contract import XB, XQ, published, records
from tests.index.vectors import random_vectors


def test_each_trap(open_milvus: Opener) -> None:
    store = open_milvus()
    catalogue = store.catalogue
    ids = catalogue.upsert(records(250), XB[:250], "m")

    # milvus-lite accepts any word as a kind of index, and fails silently in the background.
    with pytest.raises(IndexInputError, match="expected one of auto, exact, hnsw"):
        store.check_kind("IVF_NONSENSE", 16)

    # A graph search with `ef` below `limit` returns too few.
    manifest = published(store, "m", 16, "hnsw")
    assert (manifest.kind, manifest.recall["k"]) == ("hnsw", 10)
    assert manifest.recall["value"] >= 0.95
    index = store.served.current().index
    assert (index.search(XQ, 200).ids >= 0).all()
    assert ((index.search(XQ, 300).ids >= 0).sum(axis=1) == 250).all()

    # For NaN, or a wrong dimension, Milvus returns nothing, or anything, or an error late.
    for wrong in (np.full((1, 16), np.nan, np.float32), XQ[:, :4]):
        with pytest.raises(IndexInputError):
            index.search(wrong, 3)

    # Fields must be named, or all of them are returned, or none.
    generation = store._generations.current()
    (row,) = store._connection.query(generation.name, f"id == {ids[0]}", ["id", "fields"], 1)
    assert set(row) == {"id", "fields"}
    assert entry_of(row).source == "0.png"
    (hits,) = store._connection.search(generation.name, XQ[:1], 2, "", ["id"], {"ef": 64})
    assert [set(hit) for hit in hits] == [{"id"}, {"id"}]

    # delete() returns a dict, a list, or a count that includes keys that never existed.
    assert catalogue.delete([ids[0], 77]) == 1
    assert catalogue.delete([77]) == 0
    assert catalogue.delete([ids[1], 78]) == 1

    # A killed server may lose a deletion; it is repeated once the restart is noticed.
    (row,) = store._connection.query(generation.name, f"id == {ids[2]}", ALL, 1)
    assert catalogue.delete([ids[2]]) == 1
    store._connection.upsert(generation.name, [with_vector(row, row["vector"], embedded=True)])
    assert catalogue.count() == 248
    store._connection.disrupted.set()
    assert store.served.current().index.count() == 247
    assert catalogue.repeat_deletions() == 0
    assert catalogue.upsert(records(3)[2:], XB[2:3], "m") == [ids[2]]
    assert catalogue.repeat_deletions() == 0

    # A collection that is not loaded, as after a restart, is loaded by the first call.
    store._connection.release(generation.name)
    store._connection.release(store._ledger._name)
    assert store.served.current().index.search(XB[5:6], 1).ids[0, 0] == ids[5]
    assert catalogue.get_meta("corpus") is None

    # Snapshots are refused, with advice.
    with pytest.raises(EngineCannotError, match="milvus-backup"):
        store.snapshots.create("x")
    assert store.snapshots.names() == []
    assert store.snapshots.referring({"sha256:00"}) == {}
    assert store.remove_orphans() == 0
    assert [f.problem for f in store.verify()] == [None, None]
    assert store.status()["pictures"] == 248

    # More than Milvus can store in one field, or in one array, whatever our own bounds are.
    catalogue.bounds = PayloadBounds(size=2**20, keys=2**20)
    for payload in (
        {"text": "x" * 70_000},
        {"values": list(map(str, range(MAX_FACTS + 1)))},
        {str(i): i for i in range(1001)},
    ):
        with pytest.raises(IndexInputError, match="send a smaller payload"):
            catalogue.upsert([Record("big", payload=payload)], XB[:1], "m")
    full: dict[str, Any] = {str(i): i / 7 for i in range(900)}
    (big,) = catalogue.upsert([Record("big", payload=full)], XB[260:261], "m")
    assert catalogue.get([big])[0].payload == full
    store.close()


def test_aliases_changed_at_once(open_milvus: Opener) -> None:
    """milvus-lite writes every change of an alias through one temporary name."""
    store = open_milvus()
    store.catalogue.upsert(records(20), XB[:20], "m")
    published(store, "m", 16)
    made: list[bool] = []

    def claim(thread: int) -> None:
        for number in range(40):
            alias = f"at_once_{thread}_{number}"
            made.append(store._connection.create_alias(alias, store._generations.current().name))
            store._connection.drop_alias(alias)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [True] * 160


def test_without_milvus() -> None:
    pytest.importorskip("pymilvus")
    with pytest.raises(
        MilvusUnavailableError, match=r"Milvus at http://127.0.0.1:9 is not available"
    ):
        Connection(MilvusSettings("http://127.0.0.1:9"), connect_seconds=1.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"uri": " "}, "MILVUS_URI"), ({"uri": "x.db", "prefix": "a-b"}, "prefix is 'a-b'")],
)
def test_invalid_settings(settings: dict[str, str], words: str) -> None:
    with pytest.raises(IndexInputError, match=words):
        MilvusSettings(**settings)


def test_no_secret_is_shown() -> None:
    settings = MilvusSettings("http://user:secret@host:19530", token="secret")
    assert "token" not in repr(settings)
    assert without_password(settings.uri) == "http://host:19530"


def test_congruence_of_the_engines(
    open_milvus: Opener, reported: Callable[[str, str], None]
) -> None:
    """The share of neighbours that FAISS and Milvus have in common."""
    from index.ann.exact import ExactIndex

    xb, xq = random_vectors(1000, 16, seed=11), random_vectors(20, 16, seed=12)
    store = open_milvus()
    ids = np.array(store.catalogue.upsert([Record(f"{i}") for i in range(1000)], xb, "m"))
    local = ExactIndex(16)
    local.add(ids, xb)
    truth = local.search(xq, 10)
    shares = {}
    for kind in ("exact", "hnsw"):
        published(store, "m", 16, kind)
        found = store.served.current().index.search(xq, 10)
        shares[kind] = float(
            np.mean([np.isin(a, b).mean() for a, b in zip(truth.ids, found.ids, strict=True)])
        )
        if kind == "exact":
            np.testing.assert_array_equal(found.scores, truth.scores)
    said = store.verify()[0].part
    reported(f"overlap of FAISS and {said}, 20 queries, 10 nearest of 1,000", f"{shares}")
    assert shares["exact"] == 1.0
    assert shares["hnsw"] >= 0.97
    store.close()
