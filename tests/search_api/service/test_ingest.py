"""Adding, changing and deleting single pictures, without HTTP."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embed.pictures import PictureError
from embed.preprocess import Preprocess
from index.contract import IndexInputError, ModelChangedError, Quota, UnknownIdError
from index.filters import parse_filter
from search_api.service.engine import SearchEngine
from search_api.service.ingest import Ingest, KeyExistsError, Stored, Upload
from search_api.service.page import Page
from tests.search_api.conftest import MeanColour, colour, png, rebuild, source_of, unit
from tests.search_api.helpers import NEW

RED = parse_filter({"must": [{"key": "label", "match": {"value": "red"}}]})


def test_added_pictures_are_found_at_once(engine: SearchEngine) -> None:
    one, two = engine.ingest.add(
        [
            Upload(png(NEW), "k", "purple", "val", {"price": 9.5}, "C:\\new\\one.png"),
            Upload(png((9, 99, 9))),
        ]
    )
    assert (one, two) == (25, 26)
    point = engine.search(png(NEW), Page(1)).points[0]
    assert (point.entry.id, point.score) == (25, pytest.approx(1))
    entry = point.entry
    assert (entry.source, entry.label, entry.split, entry.origin) == (
        "key:k", "purple", "val", "added"
    )  # fmt: skip
    file = {"name": "one.png", "bytes": len(png(NEW)), "format": "PNG", "width": 32, "height": 32}
    assert dict(entry.payload) == {"price": 9.5, "file": file}
    assert engine.blobs.get(entry.content_hash or "") == png(NEW)
    (other,) = engine.catalogue.get([26])
    assert other.source.startswith("added:") and other.label is None
    ids, xb = engine.catalogue.embeddings("sha256:mean-colour")
    np.testing.assert_allclose(xb[ids.tolist().index(25)], unit(NEW), atol=1e-6)


def test_the_same_key_replaces_the_picture_if_that_is_wanted(engine: SearchEngine) -> None:
    (one,) = engine.ingest.add([Upload(png(NEW), "k", "a")])
    (refused,) = engine.ingest.add([Upload(png((9, 99, 9)), "k", "b")])
    assert isinstance(refused, KeyExistsError)
    assert (refused.id, str(refused)) == (
        one,
        "'k' is stored already with other content, as picture 25",
    )
    assert engine.catalogue.get([25])[0].label == "a"
    (again,) = engine.ingest.add([Upload(png((9, 99, 9)), "k", "b")], replace=True)
    assert isinstance(again, Stored)
    assert (again, again.status, again.key) == (one, "replaced", "k")
    assert engine.catalogue.count() == 25
    entry = engine.search(png((9, 99, 9)), Page(1)).points[0].entry
    assert (entry.id, entry.label) == (one, "b")
    first, second = engine.ingest.add([Upload(png(NEW)), Upload(png(NEW))])
    assert first != second


def test_keys_that_look_alike_are_one(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    first, second = (
        engine.ingest.add([Upload(png(NEW), key)])[0] for key in (decomposed, composed)
    )
    assert first == second
    assert engine.catalogue.get([25])[0].source == f"key:{composed}"
    # One that an earlier version stored as it was given keeps its name and its id.
    with monkeypatch.context() as earlier:
        earlier.setattr("search_api.service.storage.identity.nfc", lambda text: text)
        (old,) = engine.ingest.add([Upload(png(NEW), f"{decomposed}2")])
    again = [engine.ingest.add([Upload(png(NEW), f"{key}2")]) for key in (composed, decomposed)]
    assert again == [[old], [old]]
    assert isinstance(old, int)
    assert engine.catalogue.get([old])[0].source == f"key:{decomposed}2"


def test_a_bad_picture_does_not_harm_the_others(engine: SearchEngine) -> None:
    one, bad, two = engine.ingest.add(
        [Upload(png(NEW), "a"), Upload(b"rubbish", "b"), Upload(png((9, 99, 9)), "c")]
    )
    assert isinstance(bad, PictureError)
    added = {e.source for e in engine.catalogue.page(24, 10)}
    assert ({one, two}, added) == ({25, 26}, {"key:a", "key:c"})
    assert [str(e) for e in engine.ingest.add([Upload(b"rubbish")])] == [str(bad)]


@pytest.mark.parametrize(
    "uploads",
    [
        [Upload(png(NEW), "a"), Upload(png(NEW), "b", label="\ud800")],
        [Upload(png(NEW), "a"), Upload(png((1, 2, 3)), "a")],
        [Upload(png(NEW), "a", payload={"x": float("nan")})],
    ],
)
def test_what_cannot_be_stored_adds_nothing(engine: SearchEngine, uploads: list[Upload]) -> None:
    with pytest.raises(IndexInputError):
        engine.ingest.add(uploads)
    assert engine.catalogue.count() == 24


@pytest.mark.parametrize(("switches", "added"), [(1, True), (4, True), (5, False)])
def test_a_switch_of_models_in_between_is_followed(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch, switches: int, added: bool
) -> None:
    """Each of five attempts embeds with the encoder that is in use by then."""
    upsert = engine.catalogue.upsert
    attempts: list[str] = []

    def counted(
        records: object, embeddings: object, digest: str, quota: Quota, **options: object
    ) -> list[int]:
        attempts.append(digest)
        return upsert(records, embeddings, digest, quota, **options)  # type: ignore[arg-type]

    def encoder() -> MeanColour:
        return MeanColour("sha256:old") if len(attempts) < switches else MeanColour()

    monkeypatch.setattr(engine.catalogue, "upsert", counted)
    ingest = Ingest(engine.catalogue, engine.blobs, engine.limits, encoder, engine.storage)
    if added:
        assert ingest.add([Upload(png(NEW), "k")]) == [25]
        assert attempts == ["sha256:old"] * switches + ["sha256:mean-colour"]
    else:
        with pytest.raises(ModelChangedError):
            ingest.add([Upload(png(NEW), "k")])
        assert attempts == ["sha256:old"] * 5


def test_after_a_switch_the_picture_is_fitted_to_the_new_model(engine: SearchEngine) -> None:
    class Larger(MeanColour):
        input_size = 8
        preprocess = Preprocess(input_size=8)

        def __init__(self) -> None:
            super().__init__()
            self.got: list[tuple[int, ...]] = []

        def fit(self, picture):
            return np.full((8, 8, 3), picture.mean((0, 1)).astype(np.uint8), np.uint8)

        def encode(self, pictures, *, spare=False):
            self.got += [picture.shape for picture in pictures]
            return super().encode(pictures)

    old, new = MeanColour("sha256:old"), Larger()
    encoders = iter([old, new])
    ingest = replace(engine.ingest, encoder=lambda: next(encoders))
    assert ingest.add([Upload(png(NEW), "k")]) == [25]
    assert new.got == [(8, 8, 3)]


def test_changes_are_found_at_once_and_survive_a_rebuild(engine: SearchEngine) -> None:
    id_ = engine.catalogue.all_sources()[source_of("red", 0)]
    engine.ingest.update(id_, label="ruby", payload={"a": 1, "b": 2})
    engine.ingest.update(id_, payload={"b": 3})
    rebuild(engine)
    entry = engine.search(png(colour("red", 0)), Page(1)).points[0].entry
    assert (entry.label, entry.split) == ("ruby", "train")
    assert entry.payload.pop("file")["name"] == "0.png"
    assert entry.payload == {"a": 1, "b": 3}
    engine.ingest.update(id_, split=None, payload={"c": 4}, replace_payload=True)
    (entry,) = engine.catalogue.get([id_])
    assert (entry.label, entry.split, dict(entry.payload)) == ("ruby", None, {"c": 4})
    with pytest.raises(UnknownIdError, match="999"):
        engine.ingest.update(999, label="x")


def test_a_deleted_picture_is_gone_and_stays_so(engine: SearchEngine) -> None:
    id_ = engine.catalogue.all_sources()[source_of("red", 0)]
    engine.ingest.delete(id_)
    point = engine.search(png(colour("red", 0)), Page(1)).points[0]
    assert point.entry.source == source_of("red", 1)
    with pytest.raises(UnknownIdError, match=str(id_)):
        engine.ingest.delete(id_)
    assert rebuild(engine)[0].count == 23


def test_delete_by_ids_or_filter(engine: SearchEngine) -> None:
    assert engine.ingest.delete_many([1, 2, 999], None) == 2
    assert engine.ingest.delete_many(None, RED) == 8
    assert engine.ingest.delete_many(None, RED) == 0
    assert engine.ingest.delete_many(None, None) == 0
    assert engine.catalogue.count() == 14
    assert rebuild(engine)[0].count == 14
