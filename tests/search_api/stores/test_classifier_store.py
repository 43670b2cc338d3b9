"""The store's classifier on disk: whole or not at all, and shared between servers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from embed.classes.classifier import Classifier, ClassifierError
from embed.classes.novelty import Novelty
from index.contract import IndexInputError
from index.local.catalogue import SqliteCatalogue
from index.milvus.settings import MilvusSettings
from search_api.settings import StoreLocation
from search_api.stores.classifier_store import (
    KEY,
    ClassifierFileError,
    ClassifierFiles,
    ClassifierRecord,
    Sample,
    pack,
    read_record,
    unpack,
    write_record,
)

RECORD = ClassifierRecord("sha256:m", 7, "2026-01-31T12:00:00+00:00", "f" * 64, 5, 60)
CLASSIFIER = Classifier(
    classes=("cat", "dog"),
    weight=np.float32([[1, 0], [0, 1]]),
    bias=np.float32([0, 0.5]),
    temperature=2.0,
    model="sha256:m",
    counts={"cat": 5, "dog": 6},
    left_out={"fox": 1},
    accuracy=0.9,
    ece=0.01,
    c=1.0,
    splits=5,
    novelty=Novelty(0.8, 0.6, 11),
)
SAMPLE = Sample(np.int64([3, 5]), np.int64([9, 8]))


def files(var: Path) -> ClassifierFiles:
    return ClassifierFiles(StoreLocation(var))


def names(var: Path) -> list[str]:
    return sorted(path.stem for path in (var / "classifiers").iterdir())


def test_a_classifier_comes_back_as_it_was() -> None:
    data = pack(CLASSIFIER, SAMPLE)
    classifier, sample = unpack(data)
    assert (classifier.digest, classifier.counts) == (CLASSIFIER.digest, CLASSIFIER.counts)
    assert classifier.novelty == CLASSIFIER.novelty
    assert (sample.ids.tolist(), sample.labels.tolist()) == ([3, 5], [9, 8])
    assert pack(CLASSIFIER, SAMPLE) == data
    for damaged in (b"", data[:-40], b"x" + data[1:], b"PK" * 50):
        with pytest.raises(ClassifierError):
            unpack(damaged)


def test_a_file_is_named_by_its_content_and_checked(tmp_path: Path) -> None:
    store = files(tmp_path)
    name = store.put(b"first")
    assert name == hashlib.sha256(b"first").hexdigest()
    assert store.get(name) == b"first"
    other = store.put(b"second")
    assert names(tmp_path) == sorted([name, other])
    store.sweep(other)
    assert names(tmp_path) == [other]
    with pytest.raises(ClassifierFileError, match="is missing"):
        store.get(name)
    (tmp_path / "classifiers" / f"{other}.npz").write_bytes(b"secon!")
    with pytest.raises(ClassifierFileError, match="is damaged"):
        store.get(other)
    with pytest.raises(IndexInputError, match="64 hex digits"):
        store.get("../../etc/passwd")
    store.sweep(None)
    assert names(tmp_path) == []


def test_the_record_is_in_the_catalogue(tmp_path: Path) -> None:
    with SqliteCatalogue(tmp_path / "catalogue.sqlite") as catalogue:
        assert read_record(catalogue) is None
        write_record(catalogue, RECORD)
        assert read_record(catalogue) == RECORD
        assert len(catalogue.get_meta(KEY) or "") < 500
        catalogue.set_meta(KEY, '{"of": "a newer version"}')
        assert read_record(catalogue) is None
        catalogue.set_meta(KEY, "rubbish")
        assert read_record(catalogue) is None


def test_servers_of_one_store_share_the_file(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    milvus = MilvusSettings("http://127.0.0.1:1")
    one, two = (
        ClassifierFiles(StoreLocation(tmp_path / name, milvus, str(tmp_path / "shared")))
        for name in ("one", "two")
    )
    name = one.put(b"first")
    assert two.get(name) == b"first"
    assert names(tmp_path / "two") == [name]
    (tmp_path / "two" / "classifiers" / f"{name}.npz").write_bytes(b"damaged")
    assert two.get(name) == b"first"
    newer = two.put(b"second")
    two.sweep(newer)
    assert one.get(newer) == b"second"
    assert names(tmp_path / "two") == [newer]
    third = ClassifierFiles(StoreLocation(tmp_path / "three", milvus, str(tmp_path / "shared")))
    with pytest.raises(ClassifierFileError, match="is missing"):
        third.get(name)
