"""What identifies a picture's content, and how a corpus is recognised at another place."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from embed.corpus import ArrayCorpus, CorpusError, FolderCorpus
from search_api.service.engine import SearchEngine
from search_api.service.following.contents import content_name, pixels_hash, same_pictures
from tests.search_api.conftest import MeanColour, colour, plain, png, rebuild, source_of
from tests.search_api.helpers import NEW

RED = source_of("red", 0)


def test_a_file_is_named_by_its_bytes_and_an_older_record_by_its_pixels(folder: Path) -> None:
    corpus, digest = FolderCorpus(folder), hashlib.sha256(png(colour("red", 0))).hexdigest()
    assert content_name(corpus, RED, 32) == (f"file:{digest}", None)
    assert content_name(corpus, RED, 32, "file:other")[0] == f"file:{digest}"
    name, picture = content_name(corpus, RED, 32, "pixels:other")
    assert name == pixels_hash(plain(colour("red", 0)))
    assert picture is not None
    assert picture.shape == (32, 32, 3)


def test_a_picture_without_a_file_is_named_by_its_pixels() -> None:
    pictures = np.zeros((1, 4, 4, 3), np.uint8)
    corpus = ArrayCorpus("one", ("a",), lambda: {"train": (pictures, np.zeros(1, np.int64))})
    assert content_name(corpus, "train/00000", 4)[0] == pixels_hash(pictures[0])


def test_content_that_cannot_be_read_is_an_error(folder: Path) -> None:
    with pytest.raises(CorpusError, match="cannot be read: No such file"):
        content_name(FolderCorpus(folder), "train/red/none.png", 32)


def test_the_hash_is_of_shape_and_values() -> None:
    picture = plain((1, 2, 3), (2, 1))
    expected = hashlib.sha256(b"(1, 2, 3)" + bytes([1, 2, 3, 1, 2, 3])).hexdigest()
    assert pixels_hash(picture) == f"pixels:{expected}"
    assert pixels_hash(picture) != pixels_hash(plain((1, 2, 3), (1, 2)))
    assert pixels_hash(picture[:, ::-1]) == pixels_hash(picture)


def test_a_folder_is_recognised_at_another_place(
    engine: SearchEngine, folder: Path, tmp_path: Path
) -> None:
    place = shutil.move(folder, tmp_path / "elsewhere")
    moved = FolderCorpus(Path(place))
    assert same_pictures(engine.catalogue, moved, 32) == 1
    assert same_pictures(engine.catalogue, moved, 32, sample=5) == 1
    (moved.root / RED).write_bytes(png(NEW))
    (moved.root / source_of("red", 1)).unlink()
    (moved.root / source_of("blue", 1)).write_bytes(b"")
    assert same_pictures(engine.catalogue, moved, 32) == 21 / 24


def test_other_pictures_under_the_same_names_are_another_folder(
    engine: SearchEngine, folder: Path
) -> None:
    for path in folder.rglob("*.png"):
        path.write_bytes(png(NEW))
    assert same_pictures(engine.catalogue, FolderCorpus(folder), 32) == 0


def test_an_empty_store_is_of_no_corpus(folder: Path, tmp_path: Path) -> None:
    engine = SearchEngine(MeanColour(), FolderCorpus(folder), tmp_path / "var")
    assert same_pictures(engine.catalogue, engine.corpus, 32) == 0
    rebuild(engine)
    engine.ingest.delete(engine.catalogue.all_sources()[RED])
    assert same_pictures(engine.catalogue, engine.corpus, 32) == 1
    engine.close()
