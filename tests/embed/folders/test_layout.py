from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from embed.corpus import CorpusError, FolderCorpus
from embed.folders.layout import LayoutError, are_splits
from embed.folders.options import FolderOptions
from tests.embed.folders.helpers import PICTURE, put

Found = list[tuple[str, str | None, str | None]]


def found(root: Path, splits: str = "auto") -> Found:
    items = FolderCorpus(root, options=FolderOptions.from_dict({"splits": splits})).items
    return [(item.source, item.split, item.label) for item in items]


def test_a_class_that_is_named_like_a_split_stays_a_class(tmp_path: Path) -> None:
    put(tmp_path, "bus/a.png", "car/b.png", "train/c.png", "train/old.d/e.png")
    with pytest.raises(CorpusError):
        found(tmp_path)  # train holds a folder, too
    (tmp_path / "train/old.d/e.png").unlink()
    assert found(tmp_path) == [
        ("bus/a.png", None, "bus"),
        ("car/b.png", None, "car"),
        ("train/c.png", None, "train"),
    ]


def test_folders_that_hold_classes_are_splits(tmp_path: Path) -> None:
    names = (
        "Test/cats/d.png",
        "stray.png",
        "train/cats/sub/a.png",
        "train/loose.png",
        "VALID/x/f.png",
    )
    put(tmp_path, *names, "README.md", "docs/notes.txt", "@eaDir/thumbnail.png")
    assert found(tmp_path) == [
        ("stray.png", None, None),
        ("Test/cats/d.png", "test", "cats"),
        ("VALID/x/f.png", "val", "x"),
        ("train/loose.png", "train", None),
        ("train/cats/sub/a.png", "train", "cats"),
    ]


AMBIGUOUS = {
    "a split next to a class": (
        ("train/cats/a.png", "train/dogs/b.png", "bus/c.png"),
        "train can be a split with the classes cats and dogs, or a class, like bus;",
        [("bus/c.png", None, "bus"), ("train/cats/a.png", "train", "cats")],
        [("bus/c.png", None, "bus"), ("train/cats/a.png", None, "train")],
    ),
    "pictures without classes": (
        ("train/a.png", "test/b.png"),
        "test and train can be splits of pictures without a class, or classes;",
        [("test/b.png", "test", None), ("train/a.png", "train", None)],
        [("test/b.png", None, "test"), ("train/a.png", None, "train")],
    ),
    "nothing but trains, or for training": (
        ("Train/a.png",),
        "Train can be a split of pictures without a class, or a class;",
        [("Train/a.png", "train", None)],
        [("Train/a.png", None, "Train")],
    ),
    "a test without classes": (
        ("train/cats/a.png", "test/b.png"),
        "test and train can be splits with the class cats, or classes;",
        [("test/b.png", "test", None), ("train/cats/a.png", "train", "cats")],
        [("test/b.png", None, "test"), ("train/cats/a.png", None, "train")],
    ),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_is_ambiguous_names_both_readings(case: str, tmp_path: Path) -> None:
    names, words, as_splits, as_classes = AMBIGUOUS[case]
    put(tmp_path, *names)
    with pytest.raises(CorpusError) as caught:
        found(tmp_path)
    choice = " choose with --splits yes (or LOOKALIKE_SPLITS=yes) or --splits no"
    assert str(caught.value) == f"{tmp_path}: {words}{choice}"
    assert [one for one in found(tmp_path, "yes") if one in as_splits] == as_splits
    assert [one for one in found(tmp_path, "no") if one in as_classes] == as_classes


def test_layouts_without_a_doubt() -> None:
    assert not are_splits([(), ("cats",), ("cats", "train"), ("traine",)])
    assert are_splits([("train", "cats")])
    assert are_splits([("train", "cats"), ("validation", "dogs", "old"), ("TEST", "cats"), ()])
    assert not are_splits([("test",), ("val",), ("screws", "m3")])
    assert not are_splits([])
    assert are_splits([("Training", "glioma"), ("Testing", "glioma")])
    assert not are_splits([("training",), ("cycling",)])
    assert not are_splits([("bus", "test"), ("bus", "old", "x")])


def test_a_folder_around_splits_is_no_class_without_a_word(tmp_path: Path) -> None:
    put(tmp_path, "zip/pets/train/cats/a.png", "zip/pets/Test/dogs/b.png", "cover.png")
    with pytest.raises(CorpusError, match="zip can be the class of all pictures, or just a folder"):
        found(tmp_path)
    with pytest.raises(CorpusError, match="name zip/pets itself for the second, or choose"):
        found(tmp_path)
    assert {label for _, _, label in found(tmp_path, "no")} == {None, "zip"}
    assert found(tmp_path / "zip" / "pets") == [
        ("Test/dogs/b.png", "test", "dogs"),
        ("train/cats/a.png", "train", "cats"),
    ]


def test_an_error_names_a_few_of_many() -> None:
    places = [("train", f"c{n:03d}") for n in range(1234)]
    with pytest.raises(
        LayoutError, match="c000, c001, c002, c003, c004 and 1,229 more, or a class"
    ):
        are_splits([*places, ("bus",)])


def test_folders_that_look_alike_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    put(tmp_path, f"{composed}/a.png", f"{decomposed}/b.png", f"{decomposed}/{decomposed}.png")
    corpus = FolderCorpus(tmp_path)
    # The files are found by their names on disk.
    assert {(item.source, item.label) for item in corpus.items} == {
        (f"{composed}/a.png", composed),
        (f"{decomposed}/b.png", composed),
        (f"{decomposed}/{decomposed}.png", composed),
    }
    assert [corpus.content(item.source) for item in corpus.items] == [PICTURE] * 3
