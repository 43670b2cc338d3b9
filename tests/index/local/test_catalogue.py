import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.contract import KEEP, CatalogueError, IndexInputError, UnknownIdError
from index.filters import parse_filter
from index.local.catalogue import SqliteCatalogue
from index.local.filter_sql import where_sql
from index.records import Entry, Record
from index.scans import UNBOUNDED, FilterScans, FilterTimeoutError
from tests.index.vectors import random_vectors

XB = random_vectors(100, 8, seed=0)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[SqliteCatalogue]:
    opened = SqliteCatalogue(tmp_path / "new folder" / "catalogue.db")
    yield opened
    opened.close()


def animals(catalogue: SqliteCatalogue) -> list[int]:
    records = [
        Record("a.png", "train", "cat", {"year": 1999, "tags": ["x", "y"]}),
        Record("b.png", "test", "dog"),
        Record("c.png", None, None, {"meta": {"ok": True}, "none": None}),
    ]
    return catalogue.upsert(records, XB[:3], "m1")


def test_what_is_stored_comes_back(catalogue: SqliteCatalogue) -> None:
    ids = animals(catalogue)
    assert ids == [1, 2, 3]
    assert catalogue.get([3, 1, 3]) == [
        Entry("c.png", None, None, {"meta": {"ok": True}, "none": None}, id=3),
        Entry("a.png", "train", "cat", {"year": 1999, "tags": ["x", "y"]}, id=1),
        Entry("c.png", None, None, {"meta": {"ok": True}, "none": None}, id=3),
    ]
    assert catalogue.get([]) == []
    found, xb = catalogue.embeddings("m1")
    assert (found.dtype, found.tolist(), xb.dtype) == (np.int64, [1, 2, 3], np.float32)
    np.testing.assert_array_equal(xb, XB[:3])
    assert catalogue.embeddings("m2")[1].shape == (0, 0)
    assert catalogue.count() == 3
    assert catalogue.label_counts() == {"cat": 1, "dog": 1}
    assert catalogue.all_sources() == {"a.png": 1, "b.png": 2, "c.png": 3}


def test_a_source_keeps_its_id_and_gets_the_new_fields(catalogue: SqliteCatalogue) -> None:
    animals(catalogue)
    ids = catalogue.upsert(
        [Record("z.png"), Record("b.png", "train", "frog", {"n": 1})], XB[5:7], "m1"
    )
    assert ids[1] == 2
    assert ids[0] > 3
    assert catalogue.get([2]) == [Entry("b.png", "train", "frog", {"n": 1}, id=2)]
    assert catalogue.model_digests() == {"m1": 4}
    assert catalogue.known_sources("m1") == {"a.png": 1, "b.png": 2, "c.png": 3, "z.png": ids[0]}
    found, xb = catalogue.embeddings("m1")
    assert found.tolist() == [1, 2, 3, ids[0]]
    np.testing.assert_array_equal(xb, XB[[0, 6, 2, 5]])


def test_ids_are_never_reused(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    catalogue = SqliteCatalogue(path)
    animals(catalogue)
    assert catalogue.delete([3, 2, 3, 77]) == 2
    assert catalogue.delete([3]) == 0
    catalogue.close()
    catalogue = SqliteCatalogue(path)
    assert catalogue.upsert([Record("c.png"), Record("new.png")], XB[:2], "m1") == [4, 5]
    with pytest.raises(UnknownIdError, match="the catalogue has no such id: 3, 9") as caught:
        catalogue.get([1, 3, 9, 3])
    assert caught.value.ids == (3, 9)
    catalogue.close()


def test_pages(catalogue: SqliteCatalogue) -> None:
    catalogue.upsert([Record(f"{i}", "train", "ab"[i % 2]) for i in range(10)], XB[:10], "m")
    where = parse_filter({"must": [{"key": "label", "match": {"value": "b"}}]})
    assert [e.id for e in catalogue.page(0, 4)] == [1, 2, 3, 4]
    assert [e.id for e in catalogue.page(8, 4)] == [9, 10]
    assert [e.id for e in catalogue.page(3, 3, where)] == [4, 6, 8]
    assert catalogue.page(10, 4) == []
    either = parse_filter({"must": [{"key": "label", "match": {"any": ["b", "a"]}}]})
    assert [e.id for e in catalogue.page(0, 4, either)] == [1, 2, 3, 4]
    assert catalogue.count(where) == 5
    assert catalogue.ids(where).tolist() == [2, 4, 6, 8, 10]
    assert catalogue.ids().dtype == np.int64
    for after, limit in ((0, 0), (0, 2**63), (2**63, 1)):
        with pytest.raises(IndexInputError, match=r"limit is|after_id is"):
            catalogue.page(after, limit)


def test_filters_on_the_real_table(catalogue: SqliteCatalogue) -> None:
    animals(catalogue)
    for obj, expected in (
        ({"must": [{"key": "tags", "match": {"value": "y"}}]}, [1]),
        ({"must": [{"key": "meta.ok", "match": {"value": True}}]}, [3]),
        ({"must": [{"key": "year", "range": {"lt": 2000}}]}, [1]),
        ({"must_not": [{"key": "label", "match": {"any": ["cat"]}}]}, [2, 3]),
        ({"must": [{"has_id": [2, 9]}]}, [2]),
    ):
        where = parse_filter(obj)
        assert catalogue.ids(where).tolist() == expected
        assert [e.id for e in catalogue.page(0, 9) if where.matches(asdict(e))] == expected


def test_update(catalogue: SqliteCatalogue) -> None:
    animals(catalogue)
    assert catalogue.update([1, 2], label="horse", payload={"year": 5, "new": [1]}) == 2
    assert catalogue.get([1, 2]) == [
        Entry("a.png", "train", "horse", {"year": 5, "tags": ["x", "y"], "new": [1]}, id=1),
        Entry("b.png", "test", "horse", {"year": 5, "new": [1]}, id=2),
    ]
    assert catalogue.update([1], label=None, split=None, payload={}, replace_payload=True) == 1
    assert catalogue.get([1]) == [Entry("a.png", None, None, {}, id=1)]
    assert catalogue.update([2], label=KEEP) == 1
    assert catalogue.get([2])[0].label == "horse"
    np.testing.assert_array_equal(catalogue.embeddings("m1")[1], XB[:3])
    with pytest.raises(UnknownIdError, match="no such id: 8"):
        catalogue.update([1, 8], label="ghost")
    assert catalogue.get([1])[0].label is None
    with pytest.raises(IndexInputError, match=r"payload\.a is nan"):
        catalogue.update([1], payload={"a": float("nan")})


@pytest.mark.parametrize(
    ("records", "xb", "message"),
    [
        ([Record("new"), Record("new")], XB[:2], "more than once"),
        ([Record("new")], XB[:2], "got 1 records for 2 embeddings"),
        ([Record("new"), Record("")], XB[:2], r"records\[1\]\.source is empty"),
        ([Record("a\x00")], XB[:1], r"records\[0\]\.source is .* without NUL"),
        ([Record("new", label="\ud800")], XB[:1], r"records\[0\]\.label"),
        ([Record("new", payload={"a": [object()]})], XB[:1], r"records\[0\]\.payload\.a\[0\]"),  # type: ignore[list-item]
        ([Record("new")], XB[0], "expected float32"),
        ([Record("new")], XB[:1] * 2, "embeddings row 0 has length 2"),
        ([Record("new")], random_vectors(1, 4, 0), "has 4 dimensions; model m1 has stored 8"),
    ],
)
def test_upsert_refuses_and_stores_nothing(
    catalogue: SqliteCatalogue, records: list[Record], xb: Any, message: str
) -> None:
    animals(catalogue)
    with pytest.raises(IndexInputError, match=message):
        catalogue.upsert(records, xb, "m1")
    assert catalogue.count() == 3


def test_meta(catalogue: SqliteCatalogue) -> None:
    assert catalogue.get_meta("corpus") is None
    catalogue.set_meta("corpus", "cifar10")
    catalogue.set_meta("corpus", "photos")
    assert catalogue.get_meta("corpus") == "photos"
    assert catalogue.get_meta("format_version") == "3"
    with pytest.raises(IndexInputError, match="'format_version', which is reserved"):
        catalogue.set_meta("format_version", "7")


def test_a_newer_format_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    SqliteCatalogue(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '12' WHERE key = 'format_version'")
    connection.close()
    with pytest.raises(CatalogueError, match=r"has format version 12, .* reads up to 3; upgrade"):
        SqliteCatalogue(path)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM meta")
    connection.close()
    with pytest.raises(CatalogueError, match="has no format version"):
        SqliteCatalogue(path)


def test_another_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(CatalogueError, match=r"tables \['songs'\], not a Lookalike catalogue"):
        SqliteCatalogue(path)
    assert path.read_bytes() == before


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    catalogue = SqliteCatalogue(path)
    catalogue.upsert([Record(str(i), payload={"t": "x" * 500}) for i in range(100)], XB, "m")
    catalogue.close()
    content = path.read_bytes()
    path.write_bytes(b"no database at all " * 100)
    with pytest.raises(
        CatalogueError, match=r"damaged or not a database .* restore it from a backup"
    ):
        SqliteCatalogue(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CatalogueError, match="damaged"):
        opened = SqliteCatalogue(path)
        opened.embeddings("m")
    middle = bytearray(content)
    middle[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(middle)
    with pytest.raises(CatalogueError, match="damaged"):
        opened = SqliteCatalogue(path)
        opened.all_sources()
    with pytest.raises(CatalogueError, match=r"catalogue\.db/x\.db: cannot create its folder"):
        SqliteCatalogue(path / "x.db")


def test_a_stored_embedding_of_another_length_is_found(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    catalogue = SqliteCatalogue(path)
    animals(catalogue)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE images SET embedding = x'00' WHERE id = 2")
    connection.close()
    with pytest.raises(CatalogueError, match="the embedding of id 2 is not 32 bytes long"):
        catalogue.embeddings("m1")
    catalogue.close()


def test_closed(catalogue: SqliteCatalogue) -> None:
    catalogue.close()
    catalogue.close()
    with pytest.raises(CatalogueError, match="is closed"):
        catalogue.count()


def test_eight_threads_write_and_read(catalogue: SqliteCatalogue) -> None:
    failures: list[BaseException] = []
    ids: dict[int, list[int]] = {}

    def work(thread: int) -> None:
        try:
            mine = []
            for i in range(10):
                sources = [Record(f"{thread}/{i}"), Record(f"shared/{i}")]
                mine.append(catalogue.upsert(sources, XB[:2], "m")[0])
                assert catalogue.get(mine)[-1].source == f"{thread}/{i}"
                assert catalogue.count() >= len(mine)
            ids[thread] = mine
        except BaseException as error:  # noqa: BLE001 - any failure of a thread must fail the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert catalogue.count() == 90
    assert len({i for mine in ids.values() for i in mine}) == 80


def test_the_catalogue_is_read_in_pieces_of_one_state(tmp_path: Path) -> None:
    with SqliteCatalogue(tmp_path / "catalogue.sqlite") as catalogue:
        catalogue.upsert([Record(str(i)) for i in range(70)], XB[:70], "m")
        with catalogue.reading_embeddings("m", rows=30) as stored:
            pieces = []
            for ids, xb in stored.pieces:
                pieces.append((ids, xb))
                catalogue.upsert([Record(f"later {len(pieces)}")], XB[:1], "m")
        assert (stored.moment.sequence, stored.count) == (1, 70)
        assert [len(ids) for ids, _ in pieces] == [30, 30, 10]
        np.testing.assert_array_equal(np.concatenate([xb for _, xb in pieces]), XB[:70])
        np.testing.assert_array_equal(np.concatenate([i for i, _ in pieces]), np.arange(1, 71))
        with catalogue.reading_embeddings("other") as stored:
            assert (stored.count, list(stored.pieces)) == (0, [])


def test_the_time_of_a_filter_is_looked_at_between_few_texts(
    catalogue: SqliteCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing the words of one long text takes as long as thousands of SQLite's operations."""
    compared = []
    monkeypatch.setattr(
        "index.local.filter_sql.has_words", lambda text, words: compared.append(text) or False
    )
    records = [Record(f"{i}.png", payload={"title": f"ü {i}"}) for i in range(1000)]
    catalogue.upsert(records, random_vectors(1000, 2, seed=1), "m1")
    where = parse_filter({"must": [{"key": "title", "match": {"text": "ü"}}]})
    catalogue.scans = FilterScans(1e-9, 1)
    with pytest.raises(FilterTimeoutError):
        catalogue.ids(where)
    assert len(compared) < 100
    catalogue.scans = UNBOUNDED
    compared.clear()
    assert catalogue.count(where) == 0
    assert len(compared) == 1000


def test_unlabelled_pictures_are_found_by_index(catalogue: SqliteCatalogue) -> None:
    animals(catalogue)
    where = parse_filter({"must": [{"is_null": {"key": "label"}}]})
    assert catalogue.ids(where).tolist() == [3]
    condition, params = where_sql(where)
    with catalogue._database.read() as connection:
        plan = connection.execute(
            f"EXPLAIN QUERY PLAN SELECT id FROM images WHERE {condition}", params
        ).fetchall()
    assert "USING COVERING INDEX images_label (label=?)" in plan[0][-1]
