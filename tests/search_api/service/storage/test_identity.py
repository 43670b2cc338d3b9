"""Which stored picture an added one is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from embed.pictures import PictureError
from index.contract import IndexInputError, StoreBusyError
from index.records import Entry
from search_api.service.engine import SearchEngine
from search_api.service.ingest import KeyExistsError, Stored, Upload
from search_api.service.storage.identity import Place
from tests.search_api.conftest import png
from tests.search_api.helpers import NEW

OTHER = (9, 99, 9)


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders, each with a file of the same name and another content."""
    for name, rgb in (("x", NEW), ("y", OTHER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "IMG_0001.jpg").write_bytes(png(rgb))
    return tmp_path / "x", tmp_path / "y"


def upload(file: Path, key: str = "", prefix: str = "", **fields: object) -> Upload:
    place = Place.of(file, key or file.name, prefix)
    return Upload(file.read_bytes(), place=place, filename=file.name, **fields)  # type: ignore[arg-type]


def add(
    engine: SearchEngine, *uploads: Upload, replacing: bool = False
) -> list[tuple[int, str, str | None]]:
    """Id, status and key of each."""
    results = engine.ingest.add(uploads, replace=replacing)
    assert all(isinstance(result, Stored) for result in results), results
    return [(int(r), r.status, r.key) for r in results if isinstance(r, Stored)]


def entry(engine: SearchEngine, id_: int) -> Entry:
    return engine.catalogue.get([id_])[0]


def test_files_of_one_name_in_two_places_are_two_pictures(
    engine: SearchEngine, roots: tuple[Path, Path]
) -> None:
    x, y = (root / "IMG_0001.jpg" for root in roots)
    assert add(engine, upload(x, label="x")) == [(25, "added", "IMG_0001.jpg")]
    assert add(engine, upload(y, label="y")) == [(26, "added", "y/IMG_0001.jpg")]
    assert [entry(engine, i).label for i in (25, 26)] == ["x", "y"]
    # Again, from wherever the path begins, and in one batch.
    assert add(engine, upload(y), upload(x)) == [
        (26, "unchanged", "y/IMG_0001.jpg"),
        (25, "unchanged", "IMG_0001.jpg"),
    ]
    assert add(engine, upload(y, "y/IMG_0001.jpg")) == [(26, "unchanged", "y/IMG_0001.jpg")]
    assert [entry(engine, i).label for i in (25, 26)] == ["x", "y"]
    assert engine.catalogue.count() == 26


def test_both_in_one_batch(engine: SearchEngine, roots: tuple[Path, Path]) -> None:
    x, y = (root / "IMG_0001.jpg" for root in roots)
    y.write_bytes(x.read_bytes())  # the same content is another picture all the same
    assert [key for *_, key in add(engine, upload(x), upload(y))] == [
        "IMG_0001.jpg",
        "y/IMG_0001.jpg",
    ]
    assert {status for _, status, _ in add(engine, upload(y), upload(x))} == {"unchanged"}


def test_a_changed_file_replaces_its_picture_if_that_is_wanted(
    engine: SearchEngine, roots: tuple[Path, Path]
) -> None:
    x = roots[0] / "IMG_0001.jpg"
    add(engine, upload(x, label="shoe", payload={"price": 3, "tags": ["new"]}))
    x.write_bytes(png(OTHER, (40, 20)))
    (result,) = engine.ingest.add([upload(x)])
    assert isinstance(result, KeyExistsError)
    assert (result.id, "as picture 25" in str(result)) == (25, True)
    assert entry(engine, 25).payload["file"]["width"] == 32
    assert add(engine, upload(x, default_label="folder"), replacing=True) == [
        (25, "replaced", "IMG_0001.jpg")
    ]
    found = entry(engine, 25)
    assert (found.label, found.payload["price"], found.payload["tags"]) == ("shoe", 3, ["new"])
    assert found.payload["file"]["width"] == 40
    assert engine.blobs.get(found.content_hash or "") == x.read_bytes()


def test_label_and_payload_are_kept_unless_given(
    engine: SearchEngine, roots: tuple[Path, Path]
) -> None:
    x = roots[0] / "IMG_0001.jpg"
    add(engine, upload(x, default_label="x", payload={"a": 1}))
    engine.ingest.update(25, label="boot", payload={"b": 2})
    before = engine.catalogue.get([25])
    assert add(engine, upload(x, default_label="x"))[0][1] == "unchanged"
    assert engine.catalogue.get([25]) == before
    assert add(engine, upload(x, label="hat", payload={"a": 5}))[0][1] == "updated"
    found = entry(engine, 25)
    assert (found.label, found.payload["a"], found.payload["b"]) == ("hat", 5, 2)
    assert add(engine, upload(x, label="hat", payload={"a": 5}))[0][1] == "unchanged"


def test_what_earlier_versions_added_is_the_same_picture(
    engine: SearchEngine, roots: tuple[Path, Path]
) -> None:
    """They kept the path within what was added as the key, and no place."""
    x, y = (root / "IMG_0001.jpg" for root in roots)
    engine.ingest.add([Upload(x.read_bytes(), "IMG_0001.jpg", "old")])
    engine.ingest.add([Upload(y.read_bytes(), "sub/IMG_0001.jpg")])
    assert add(engine, upload(x)) == [(25, "unchanged", "IMG_0001.jpg")]
    assert add(engine, upload(x, "deeper/x/IMG_0001.jpg"))[0][:2] == (25, "unchanged")
    # Another content: it may be another file, so nothing is overwritten.
    assert add(engine, upload(y), replacing=True) == [(27, "added", "y/IMG_0001.jpg")]
    assert entry(engine, 25).label == "old"


def test_links_lead_to_one_place(engine: SearchEngine, roots: tuple[Path, Path]) -> None:
    x, _ = roots
    (x.parent / "link").symlink_to(x)
    add(engine, upload(x / "IMG_0001.jpg"))
    assert add(engine, upload(x.parent / "link" / "IMG_0001.jpg"))[0][:2] == (25, "unchanged")


def test_a_prefix_comes_before_every_key(engine: SearchEngine, roots: tuple[Path, Path]) -> None:
    x, y = (root / "IMG_0001.jpg" for root in roots)
    found = add(engine, upload(x, prefix="shop/"), upload(y, prefix="shop/"))
    assert [key for *_, key in found] == ["shop/IMG_0001.jpg", "shop/y/IMG_0001.jpg"]


def test_the_place_is_not_revealed(engine: SearchEngine, roots: tuple[Path, Path]) -> None:
    add(engine, upload(roots[0] / "IMG_0001.jpg"))
    about = entry(engine, 25).payload["file"]
    assert len(about["path_sha256"]) == 32
    assert str(roots[0].parent) not in str(entry(engine, 25))


def test_one_whose_keys_are_all_in_use(engine: SearchEngine, roots: tuple[Path, Path]) -> None:
    x = roots[0] / "IMG_0001.jpg"
    place = Place.of(x, x.name)
    keys = [place.key, *place.longer]
    engine.ingest.add([Upload(png((1, n, 1)), key) for n, key in enumerate(keys[:-1])])
    ((_, status, key),) = add(engine, upload(x))
    assert (status, key) == ("added", keys[-1])
    assert key == f"IMG_0001.jpg#{place.name}"
    engine.catalogue.update([engine.catalogue.all_sources()[f"key:{key}"]], payload={"file": 1})
    x.write_bytes(png(OTHER))
    with pytest.raises(IndexInputError, match="--prefix or --key"):
        engine.ingest.add([upload(x)])


@pytest.mark.parametrize("first", ["added", "replaced", "deleted", "same"])
def test_what_another_process_did_first_is_not_overwritten(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Between looking and writing."""
    ingest = engine.ingest
    if first in ("replaced", "deleted"):
        ingest.add([Upload(png(OTHER), "k", "mine")])

    def meddle() -> None:
        if first == "deleted":
            ingest.delete(25)
        elif first == "same":
            ingest.add([Upload(png(NEW), "k", "theirs")])
        else:
            ingest.add([Upload(png((1, 2, 200)), "k", "theirs")], replace=True)

    once(monkeypatch, engine, "upsert", meddle)
    replacing = first in ("replaced", "deleted")
    (result,) = ingest.add([Upload(png(NEW), "k", payload={"n": 1})], replace=replacing)
    assert engine.catalogue.count() == 25
    if first == "added":
        assert isinstance(result, KeyExistsError)
        assert entry(engine, result.id).label == "theirs"
        return
    assert isinstance(result, Stored)
    assert result.status == {"replaced": "replaced", "deleted": "added", "same": "updated"}[first]
    found = entry(engine, result)
    assert found.label == (None if first == "deleted" else "theirs")
    assert found.payload["n"] == 1
    assert engine.blobs.get(found.content_hash or "") == png(NEW)


def test_a_change_that_another_process_makes_first_is_kept(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = engine.ingest
    ingest.add([Upload(png(NEW), "k", "a", payload={"n": 1})])
    once(monkeypatch, engine, "update", lambda: ingest.update(25, label="theirs"))
    (result,) = ingest.add([Upload(png(NEW), "k", payload={"m": 2})])
    assert isinstance(result, Stored)
    assert result.status == "updated"
    found = entry(engine, 25)
    assert (found.label, found.payload["n"], found.payload["m"]) == ("theirs", 1, 2)


def test_those_who_never_get_their_turn_are_told(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.ingest.add([Upload(png(NEW), "k", "a")])
    monkeypatch.setattr(engine.catalogue, "update", lambda *_, **__: 0)
    with pytest.raises(StoreBusyError, match="try again"):
        engine.ingest.add([Upload(png(NEW), "k", "b")])


def test_what_is_stored_already_is_not_embedded_but_its_bytes_are_mended(
    engine: SearchEngine, roots: tuple[Path, Path]
) -> None:
    x = roots[0] / "IMG_0001.jpg"
    add(engine, upload(x))
    (path,) = (engine.var / "pictures").glob("??/*")
    path.write_bytes(b"damaged")
    embedded = engine.encoder.encoded  # type: ignore[attr-defined]
    assert add(engine, upload(x))[0][1] == "unchanged"
    assert engine.encoder.encoded == embedded  # type: ignore[attr-defined]
    assert path.read_bytes() == x.read_bytes()


def test_a_key_that_is_given_twice_or_a_bad_picture(engine: SearchEngine) -> None:
    with pytest.raises(IndexInputError, match="'k' is given more than once"):
        engine.ingest.add([Upload(png(NEW), "k"), Upload(png(OTHER), "k")])
    engine.ingest.add([Upload(png(NEW), "k")])
    (bad,) = engine.ingest.add([Upload(b"rubbish", "k")])
    assert isinstance(bad, PictureError)


def once(
    monkeypatch: pytest.MonkeyPatch, engine: SearchEngine, name: str, meddle: Callable[[], object]
) -> None:
    """Do something just before the catalogue's method ``name`` is called for the first time."""
    method = getattr(engine.catalogue, name)
    calls: list[int] = []

    def patched(*args: object, **options: object) -> Sequence[int]:
        calls.append(1)
        if len(calls) == 1:
            meddle()
        return method(*args, **options)

    monkeypatch.setattr(engine.catalogue, name, patched)


def test_a_place_of_odd_paths() -> None:
    place = Place.of(Path("/a/\udce9/b.jpg"), "b.jpg")
    assert (place.key, place.longer) == ("b.jpg", (f"b.jpg#{place.name}",))
    assert replace(place, others=()) != Place.of(Path("/a/c/b.jpg"), "b.jpg")
    assert Place.of(Path("/a/c/b.jpg"), "b.jpg").longer[:2] == ("c/b.jpg", "a/c/b.jpg")
