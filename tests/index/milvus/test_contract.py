"""One contract, three engines: vectors, the catalogue, generations."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from index.contract import (
    MAX_K,
    NO_ID,
    FilterError,
    Ids,
    IndexInputError,
    ModelChangedError,
    ModelMismatchError,
    NoGenerationError,
    Searchable,
    StoreBusyError,
    UnknownIdError,
    Vectors,
)
from index.filters import parse_filter
from index.milvus.rows import as_mapping
from index.records import PayloadBounds, Record
from index.scans import UNBOUNDED, FilterScans, FilterTimeoutError, ScansBusyError
from index.sorting import OrderBy, Sorted, first_of, sort_value
from tests.index.milvus.conftest import Opener
from tests.index.vectors import assert_same, brute_force, random_vectors, signs

XB = random_vectors(300, 16, seed=0)
XQ = random_vectors(5, 16, seed=1)


def published(store: Any, model: str, dimension: int, kind: str = "auto") -> Any:
    with store.lock():
        return store.publish(model, dimension, kind)


class Stored(NamedTuple):
    """A store's index and its content, ordered by id."""

    index: Searchable
    ids: Ids
    xb: Vectors


@pytest.fixture(scope="module")
def stored(open_shared: Opener) -> Iterator[Stored]:
    store = open_shared()
    ids = np.array(store.catalogue.upsert([Record(f"{i}") for i in range(300)], XB, "m"))
    published(store, "m", 16)
    order = np.argsort(ids)
    yield Stored(store.served.current().index, ids[order], XB[order])
    store.close()


def test_search_is_brute_force(stored: Stored) -> None:
    index, ids, xb = stored
    assert (index.dimension, index.kind, index.count()) == (16, "exact", 300)
    np.testing.assert_array_equal(index.ids(), ids)
    for k in (1, 10, 299, 300, 400):
        assert_same(index.search(XQ, k), brute_force(ids, xb, XQ, k))


def test_a_copy_scores_one_and_nothing_more(stored: Stored) -> None:
    index, ids, xb = stored
    for allowed in (None, ids, ids[:50]):
        scores, found = index.search(xb[:50], 3, allowed)
        np.testing.assert_array_equal(found[:, 0], ids[:50])
        assert (scores[:, 0] == 1).all()
        assert scores.max() == 1


def test_allowed_ids(stored: Stored) -> None:
    index, ids, xb = stored
    allowed = np.concatenate((ids[5:60:3], [2**52 + 5]))
    rows = np.isin(ids, allowed)
    assert_same(index.search(XQ, 12, allowed), brute_force(ids[rows], xb[rows], XQ, 12))
    assert index.has(allowed).tolist() == [True] * 19 + [False]
    assert (index.search(XQ, 3, []).ids == -1).all()
    assert index.search(XQ[:0], 3).ids.shape == (0, 3)


@pytest.mark.parametrize("k", [0, MAX_K + 1, 2_000_000_000])
def test_k_is_capped(stored: Stored, k: int) -> None:
    with pytest.raises(IndexInputError, match="expected 1 to 16384"):
        stored.index.search(XQ, k)


def test_bad_queries_are_refused(stored: Stored) -> None:
    nan = XQ.copy()
    nan[0, 3] = np.nan
    for wrong, words in (
        (nan, "NaN or infinity"),
        (XQ[:, :8], r"expected \(n, 16\)"),
        (XQ * 2, "L2-normalised"),
        (XQ.astype(np.float64), "float32"),
    ):
        with pytest.raises(IndexInputError, match=words):
            stored.index.search(wrong, 3)


def test_vectors_come_back(stored: Stored) -> None:
    index, ids, xb = stored
    np.testing.assert_array_equal(index.vectors(ids[[7, 3, 7]]), xb[[7, 3, 7]])
    with pytest.raises(UnknownIdError, match=f"no such id: {2**52 + 5}, {2**52 + 6}"):
        index.vectors([int(ids[3]), 2**52 + 5, 2**52 + 6])


def test_equal_scores_come_by_id(open_store: Opener) -> None:
    store = open_store()
    xb = signs(200, 16, seed=3)
    store.catalogue.upsert([Record(f"s{i}") for i in range(200)], xb, "m")
    published(store, "m", 16)
    index = store.served.current().index
    ids = index.ids()
    stored = index.vectors(ids)
    assert_same(index.search(xb[:4], 30), brute_force(ids, stored, xb[:4], 30))
    store.close()


def records(n: int) -> list[Record]:
    return [
        Record(
            f"{i}.png",
            "test" if i % 4 == 0 else "train",
            ("cat", "dog", None)[i % 3],
            {"n": i, "tags": ["x", "y"][: i % 3]},
            f"pixels:{i}",
        )
        for i in range(n)
    ]


def where(**fields: Any) -> Any:
    return parse_filter(
        {"must": [{"key": key, "match": {"value": value}} for key, value in fields.items()]}
    )


def test_the_catalogue(open_store: Opener) -> None:
    store = open_store()
    catalogue = store.catalogue
    assert (catalogue.count(), catalogue.model(), catalogue.get_meta("corpus")) == (0, None, None)
    assert catalogue.find([1, 2]) == []
    with pytest.raises(NoGenerationError):
        store.served.load("m")
    ids = catalogue.upsert(records(30), XB[:30], "m")
    assert len(set(ids)) == 30
    assert all(0 < i < 2**53 for i in ids)
    with pytest.raises(NoGenerationError):
        store.served.load("m")  # until it is published
    published(store, "m", 16)
    again = open_store() if store.parallel is False or "://" in store.settings.uri else store
    manifest, problem = again.served.load("m")
    assert (manifest.generation, manifest.count, manifest.model_digest, problem) == (
        1,
        30,
        "m",
        None,
    )
    with pytest.raises(ModelMismatchError):
        again.served.load("other")

    entry = catalogue.get([ids[4]])[0]
    assert (entry.source, entry.split, entry.label) == ("4.png", "test", "dog")
    assert entry.payload == {"n": 4, "tags": ["x"]}
    assert (entry.content_hash, entry.origin, entry.edited) == ("pixels:4", "corpus", False)
    with pytest.raises(UnknownIdError, match="no such id: 77"):
        catalogue.get([ids[0], 77])
    assert catalogue.count(where(label="cat")) == 10
    assert sorted(catalogue.ids(where(label="cat")).tolist()) == sorted(ids[::3])
    assert catalogue.label_counts() == {"cat": 10, "dog": 10}
    assert catalogue.split_counts() == {"test": 8, "train": 22}
    assert catalogue.all_sources("corpus") == {f"{i}.png": ids[i] for i in range(30)}
    assert catalogue.all_sources("added") == {}
    assert catalogue.known_sources("m") == catalogue.all_sources()
    asked = [ids[2], ids[3], ids[4], 77]
    hashes = ["pixels:2", "pixels:3", "pixels:other", "pixels:2"]
    vectors = np.stack([XB[2], XB[9], XB[4], XB[2]])
    assert catalogue.unchanged(asked, vectors, "m", hashes).tolist() == [True, False, False, False]
    assert not catalogue.unchanged(asked, vectors, "other", hashes).any()
    assert not catalogue.unchanged(asked, vectors[:, :8], "m", hashes).any()
    assert [entry.id for entry in store.entries.get([ids[4], ids[2]])] == [ids[4], ids[2]]
    assert store.entries.cached(ids[4]) in (None, entry)
    assert store.entries.cached(77) is None
    cats = list(store.selections.matching(where(label="cat")))
    assert sorted(cats) == sorted(ids[::3])
    members = store.selections.members("label", where(label="cat"))
    assert members.values == ("cat",)
    assert catalogue.model_digests() == {"m": 30}
    assert catalogue.content_hashes("corpus") == {f"pixels:{i}" for i in range(30)}
    found, xb = catalogue.embeddings("m")
    assert found.tolist() == sorted(ids)
    np.testing.assert_array_equal(xb, XB[:30][np.argsort(ids)])
    pages, after = [], -1
    while page := catalogue.page(after, 7):
        pages += page
        after = page[-1].id
    assert [entry.id for entry in pages] == sorted(ids)
    groups = catalogue.members("tags")
    assert (groups.values, len(groups.of(0)), len(groups.of(1))) == (("x", "y"), 20, 10)

    # Every write is visible in the next search, also through another store object.
    def nearest(row: int) -> Any:
        state = again.served.current()
        answer = state.index.search(XB[row : row + 1], 1)
        return again.served.entries(state, answer.ids[0])[0], float(answer.scores[0, 0])

    before = again.served.current().sequence
    new = catalogue.upsert(
        [Record("key:a", None, None, {"v": 1}, "sha256:1", "added")], XB[40:41], "m"
    )
    assert again.served.current().sequence > before
    assert nearest(40)[0].id == new[0]
    assert (
        catalogue.upsert(
            [Record("key:a", None, "dog", {"v": 2}, "sha256:2", "added")], XB[41:42], "m"
        )
        == new
    )
    assert (nearest(41)[0].label, nearest(41)[0].payload) == ("dog", {"v": 2})
    assert nearest(40)[1] < 0.99
    assert catalogue.count() == 31
    assert catalogue.update([new[0]], split="val", payload={"w": [1.5, True]}, by_hand=True) == 1
    entry = nearest(41)[0]
    assert (entry.split, entry.label, entry.payload) == ("val", "dog", {"v": 2, "w": [1.5, True]})
    assert entry.edited
    assert catalogue.update([new[0]], label=None, payload={"z": None}, replace_payload=True) == 1
    entry = nearest(41)[0]
    assert (entry.label, entry.split, entry.payload) == (None, "val", {"z": None})
    with pytest.raises(UnknownIdError):
        catalogue.update([new[0], 77], label="x")
    assert catalogue.embed([new[0], 77], XB[42:44], "m", ["sha256:3", None]) == 1
    assert nearest(42)[0].content_hash == "sha256:3"
    assert catalogue.delete([new[0], 77]) == 1
    assert catalogue.delete([new[0]]) == 0
    assert nearest(42)[0].id != new[0]
    gone = catalogue.delete_where(where(label="cat"))
    assert gone == sorted(ids[::3])
    assert catalogue.tombstones() == {f"{i}.png" for i in range(0, 30, 3)}
    assert again.served.current().index.count() == catalogue.count() == 20
    catalogue.upsert(records(1), XB[:1], "m")
    assert "0.png" not in catalogue.tombstones()
    catalogue.forget_tombstones()
    assert catalogue.tombstones() == set()

    catalogue.set_meta("corpus", "pictures")
    assert again.catalogue.get_meta("corpus") == "pictures"
    for wrong, error in (
        (lambda: catalogue.upsert([Record("1.png", origin="added")], XB[:1], "m"), IndexInputError),
        (lambda: catalogue.upsert([Record("x"), Record("x")], XB[:2], "m"), IndexInputError),
        (lambda: catalogue.upsert([Record("x")], XB[:2], "m"), IndexInputError),
        (lambda: catalogue.upsert([Record("x")], XB[:1, :8] * 9, "m"), IndexInputError),
        (
            lambda: catalogue.upsert([Record("x", payload={"a": float("nan")})], XB[:1], "m"),
            IndexInputError,
        ),
        (lambda: catalogue.upsert([Record("x")], XB[:1], "other"), ModelChangedError),
        (lambda: catalogue.upsert([Record("x")], random_vectors(1, 8, 0), "m"), IndexInputError),
    ):
        with pytest.raises(error):
            wrong()
    assert catalogue.count() == 21
    if again is not store:
        again.close()
    store.close()


def test_labels_and_tags_are_composed(open_store: Opener) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    store = open_store()
    catalogue = store.catalogue
    tags: Any = [decomposed, composed, "plain"]
    ids = catalogue.upsert(
        [
            Record(f"{decomposed}/a", label=composed),
            Record(f"{decomposed}/b", label=decomposed, payload={"tags": tags, "note": decomposed}),
            Record(f"{composed}/b", None, "plain"),
        ],
        XB[:3],
        "m",
    )
    assert catalogue.label_counts() == {composed: 2, "plain": 1}
    first, second, third = catalogue.get(ids)
    # A source is the file's name on disk, and other fields stay as they were given.
    assert (first.source, second.source) == (f"{decomposed}/a", f"{decomposed}/b")
    assert second.payload == {"tags": [composed, "plain"], "note": decomposed}
    catalogue.update(ids[2:], label=decomposed, payload={"tags": [decomposed]})
    third = catalogue.get(ids)[2]
    assert (third.label, third.payload) == (composed, {"tags": [composed]})
    for text in (composed, decomposed):
        for key, found in (("label", ids), ("tags", ids[1:]), ("note", ids[1:2])):
            assert catalogue.ids(where(**{key: text})).tolist() == sorted(found)
            any_of = {"must": [{"key": key, "match": {"any": ["?", text]}}]}
            assert catalogue.ids(parse_filter(any_of)).tolist() == sorted(found)
        assert catalogue.ids(where(source=f"{text}/a")).tolist() == ids[:1]
        none = {"must": [{"key": "label", "match": {"except": [text]}}]}
        assert catalogue.ids(parse_filter(none)).tolist() == []
    store.close()


def test_payloads_are_bounded(open_store: Opener) -> None:
    store = open_store()
    catalogue = store.catalogue
    catalogue.bounds = PayloadBounds(size=100, keys=4, tags=3, chars=20)
    good = Record("good.png", payload={"tags": ["a", "b"]})
    for payload, words in (
        ({"text": "é" * 50}, "the picture 'bad.png' has 112 bytes as JSON; expected at most 100"),
        ({"a": {"b": [{"c": 1, "d": 2}, {"e": 3}]}}, "has 5 keys; expected at most 4"),
        ({"tags": list("abcd")}, "has 4 tags; expected at most 3"),
        ({"tags": ["x" * 21]}, "has 21 characters in a key or tag; expected at most 20"),
        ({"a": {"x" * 21: 1}}, "has 21 characters in a key or tag"),
    ):
        with pytest.raises(IndexInputError, match=words):
            catalogue.upsert([good, Record("bad.png", payload=payload)], XB[:2], "m")
    with pytest.raises(IndexInputError, match=r"the label of the picture 'bad\.png' has 21"):
        catalogue.upsert([Record("bad.png", label="x" * 21)], XB[:1], "m")
    assert catalogue.count() == 0
    # Fields that grow by merging.
    (first,) = catalogue.upsert([good], XB[:1], "m")
    catalogue.update([first], payload={"a": "x" * 40})
    (other,) = catalogue.upsert([Record("other.png")], XB[1:2], "m")
    with pytest.raises(IndexInputError, match=r"the picture 'good\.png' has 1.. bytes as JSON"):
        catalogue.update([other, first], payload={"b": "x" * 40})
    assert [entry.payload for entry in catalogue.get([first, other])] == [
        {"tags": ["a", "b"], "a": "x" * 40},
        {},
    ]
    # What was stored under wider bounds can be read, relabelled and made smaller, but not larger.
    catalogue.bounds = PayloadBounds(size=30, keys=4, tags=1)
    catalogue.update([first], label="cat")
    catalogue.update([first], payload={"a": "x" * 10})
    with pytest.raises(IndexInputError, match="expected at most 30"):
        catalogue.update([first], payload={"a": "x" * 20})
    assert catalogue.get([first])[0].payload == {"tags": ["a", "b"], "a": "x" * 10}
    store.close()


def test_upsert_leaves_out_what_is_stored_otherwise_than_expected(open_store: Opener) -> None:
    store = open_store()
    catalogue = store.catalogue
    xb = XB[:4]
    ids = catalogue.upsert([Record("key:a", label="x"), Record("key:b", label="y")], xb[:2], "m")
    before = catalogue.of_sources(["key:a", "key:b", "key:none"])
    assert {source: entry.id for source, entry in before.items()} == {
        "key:a": ids[0],
        "key:b": ids[1],
    }
    catalogue.update([ids[1]], label="theirs")
    records = [Record(f"key:{name}", label="new") for name in "abc"]
    expected = [before["key:a"], before["key:b"], None]
    found = catalogue.upsert(records, xb[1:], "m", expected=expected)
    assert (found[0], found[1]) == (ids[0], NO_ID)
    now = catalogue.of_sources(["key:a", "key:b"])
    labels = {source: entry.label for source, entry in now.items()}
    assert labels == {"key:a": "new", "key:b": "theirs"}
    assert catalogue.upsert([Record("key:c")], xb[:1], "m", expected=[None]) == [NO_ID]
    assert catalogue.of_sources(["key:c"])["key:c"].id == found[2]
    assert catalogue.of_sources([]) == {}
    store.close()


def test_what_others_have_changed_meanwhile_is_left(open_store: Opener) -> None:
    store = open_store()
    catalogue, xb = store.catalogue, XB[:6]
    one, two, three = catalogue.upsert(
        [Record("one", label="a", content_hash="c1"), Record("two", label="a"), Record("three")],
        xb[:3],
        "m",
    )
    read = catalogue.get([one, two, three])
    catalogue.update([one], label="by hand", by_hand=True)
    catalogue.delete([two], tombstone=True)
    assert catalogue.update([one, two, three], label="b", expected=read) == 1
    assert catalogue.update([one, two], label="b", expected=read[:2]) == 0
    assert {e.source: e.label for e in catalogue.find([one, two, three])} == {
        "one": "by hand",
        "three": "b",
    }
    with pytest.raises(UnknownIdError):
        catalogue.update([two], label="b")

    records = [Record("one"), Record("two"), Record("four")]
    found = catalogue.upsert(records, xb[3:6], "m", only_new=True)
    assert found[:2] == [NO_ID, NO_ID]
    assert catalogue.get([found[2]])[0].source == "four"
    assert catalogue.tombstones() == {"two"}
    assert {e.source: e.label for e in catalogue.find([one, two])} == {"one": "by hand"}
    assert len(catalogue.upsert(records[1:2], xb[4:5], "m")) == 1
    assert catalogue.tombstones() == set()

    assert catalogue.embed([one, three], xb[4:6], "m", ["c0", None], only_same=True) == 1
    ids, stored = catalogue.embeddings("m")
    vectors = dict(zip(ids.tolist(), stored, strict=True))
    np.testing.assert_allclose(vectors[one], xb[0], atol=1e-6)
    np.testing.assert_allclose(vectors[three], xb[5], atol=1e-6)
    if store.served.last is None:
        published(store, "m", 16)
    wide = random_vectors(2, 8, seed=9)
    assert catalogue.staging.add([one, three], wide, "next", ["c0", None]) == 1
    assert catalogue.staging.embeddings("next")[0].tolist() == [three]
    store.close()


def test_sorted_pages(open_store: Opener) -> None:
    store = open_store()
    catalogue = store.catalogue
    payloads = [{"a": v} for v in (3, "b", 2.5, "2024-05-31", None, [9, 1], True, "B", 3)] + [{}]
    stored = [Record(f"{i}", payload=payload) for i, payload in enumerate(payloads)]
    ids = catalogue.upsert(stored, XB[:10], "m")
    for descending in (False, True):
        order = OrderBy("a", descending)
        entries = [(sort_value(as_mapping(e), order), e) for e in catalogue.get(ids)]
        expected = first_of(entries, order, 99)
        assert len(expected) == 10
        found: list[Sorted] = []
        while page := catalogue.sorted_page(order, 3, None, found[-1].position if found else None):
            found += page
        assert found == expected
    some = parse_filter({"must": [{"key": "a", "range": {"gte": 1}}]})
    numbers = catalogue.sorted_page(OrderBy("a"), 99, some)
    assert [one.position.value for one in numbers] == [1, 2.5, 3, 3]
    with pytest.raises(FilterError, match=r"order_by is 'a\.\.b'"):
        catalogue.sorted_page(OrderBy("a..b"), 1)
    with pytest.raises(IndexInputError, match="limit is 0"):
        catalogue.sorted_page(OrderBy("a"), 0)


def test_filters_are_bounded(open_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.local.database._OPERATIONS", 1)
    store = open_store()
    catalogue = store.catalogue
    ids = catalogue.upsert(records(30), XB[:30], "m")
    # A number is looked up exactly only in the payload, with either engine.
    some = parse_filter({"must": [{"key": "n", "range": {"gte": 0.5}}]})
    reads = [
        lambda: catalogue.ids(some),
        lambda: catalogue.page(-1, 10, some),
        lambda: catalogue.sorted_page(OrderBy("n"), 10),
        lambda: catalogue.members("label", some),
        lambda: len(store.selections.matching(some)),
        lambda: catalogue.delete_where(some),
    ]
    catalogue.scans = FilterScans(1e-9, 1)
    for read in reads:
        with pytest.raises(FilterTimeoutError, match="took longer than 1e-09 seconds"):
            read()
    catalogue.scans = FilterScans(0.01, 1)
    with catalogue.scans.one():
        for read in [*reads, lambda: catalogue.count(some)]:
            with pytest.raises(ScansBusyError, match="1 other filters"):
                read()
    assert catalogue.count() == 30  # without a filter
    assert [entry.id for entry in catalogue.page(-1, 100)] == sorted(ids)
    # The connection that was interrupted serves others, and for as long as they like.
    catalogue.scans = UNBOUNDED
    assert catalogue.count(some) == 29
    assert len(catalogue.delete_where(some)) == 29
    store.close()


def test_rebuilding_while_others_write(open_store: Opener) -> None:
    """What is added, changed and deleted during a rebuild is in the new generation too."""
    store = open_store()
    catalogue = store.catalogue
    ids = catalogue.upsert(records(60), XB[:60], "m")
    published(store, "m", 16)
    kept: dict[int, str | None] = {}
    deleted: list[int] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def write() -> None:
        try:
            for i in range(100, 200):
                if stop.is_set():
                    return
                (new,) = catalogue.upsert([Record(f"key:{i}", origin="added")], XB[i : i + 1], "m")
                kept[new] = None
                catalogue.update([ids[i % 30]], label=f"l{i}")
                kept[ids[i % 30]] = f"l{i}"
                deleted.append(ids[59 - (i - 100) % 20])
                catalogue.delete(deleted[-1:])
        except BaseException as error:  # noqa: BLE001 - seen below
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in (2, 3):
            # Alternate the kind, so that no generation can be reused as it is.
            manifest = published(store, "m", 16, "hnsw" if number == 2 else "exact")
            assert manifest.generation == number
            with store.lock("a" * 32), pytest.raises(StoreBusyError) as busy, store.lock():
                pass
            assert store.parallel or busy.value.job == "a" * 32
    finally:
        stop.set()
        thread.join()
    assert failed == []
    assert len(kept) >= 2
    assert {entry.id: entry.label for entry in catalogue.find(list(kept))} == kept
    assert catalogue.find(deleted) == []
    expected = (set(ids) | set(kept)) - set(deleted)
    state = store.served.current()
    assert set(state.index.ids().tolist()) == expected
    answer = state.index.search(XB[100:101], 1)
    assert store.served.entries(state, answer.ids[0])[0].source == "key:100"
    store.close()


def test_changing_the_model(open_store: Opener) -> None:
    store = open_store()
    catalogue = store.catalogue
    ids = catalogue.upsert(records(20), XB[:20], "m")
    published(store, "m", 16)
    other = random_vectors(300, 24, seed=5)
    vectors = dict(zip(ids, other[:20], strict=True))
    staging = catalogue.staging
    assert staging.counts() == {}
    assert staging.missing("n").tolist() == sorted(ids)
    some = sorted(ids)[:12]
    assert staging.add(some, np.stack([vectors[i] for i in some]), "n") == 12
    assert (staging.counts(), len(staging.missing("n"))) == ({"n": 12}, 8)
    rest = staging.missing("n").tolist()
    assert staging.add([*rest, 77], np.stack([*(vectors[i] for i in rest), other[50]]), "n") == 8
    assert staging.missing("n").tolist() == []
    found, xb = staging.embeddings("n")
    np.testing.assert_array_equal(xb, np.stack([vectors[i] for i in found.tolist()]))
    # Until then the old model serves; changes in between are carried over.
    assert store.served.current().manifest.model_digest == "m"
    catalogue.update([ids[0]], label="new")
    catalogue.delete([ids[1]])
    late = catalogue.upsert([Record("key:late", origin="added")], XB[30:31], "m")
    assert staging.missing("n").tolist() == late
    catalogue.upsert(records(3)[2:], XB[60:61], "m")  # another picture under the same name
    catalogue.embed([ids[3]], XB[61:62], "m", ["pixels:other"])  # the same, found by a rebuild
    assert staging.missing("n").tolist() == sorted([*late, *ids[2:4]])
    staging.add(ids[2:4], other[60:62], "n")
    with store.lock():
        staging.promote("n")
        manifest = store.publish("n", 24, "auto")
    assert (manifest.model_digest, manifest.dimension) == ("n", 24)
    state = store.served.current()
    assert state.manifest.generation == manifest.generation
    assert (state.index.dimension, state.index.count()) == (24, 19)
    assert catalogue.count() == 20
    # What was not embedded is kept, but not found.
    assert catalogue.get(late)[0].source == "key:late"
    assert late[0] not in state.index.search(other[:1], 20).ids
    assert staging.counts() == {}
    np.testing.assert_array_equal(state.index.vectors(ids[2:4]), other[60:62])
    assert catalogue.get([ids[0]])[0].label == "new"
    assert catalogue.model() == "n"
    with pytest.raises(ModelChangedError):
        catalogue.upsert([Record("x")], XB[:1], "m")
    store.close()
