from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embed import scenes
from embed.corpus import (
    CIFAR10_CLASSES,
    CIFAR10_FOLDER,
    SAMPLE_NOTICE,
    CorpusError,
    FolderCorpus,
    Item,
    TableCorpus,
    _is_missing,
    cifar10,
    find_corpus,
    open_corpus,
    sample,
)
from embed.folders.options import FolderOptions
from embed.pictures import FORMATS, PictureError, PictureLimits, encode_png
from tests.embed.helpers import encoded, noise, slope


def put(path: Path, data: bytes = encode_png(noise(8, 8))) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_labels_and_splits_come_from_folders(tmp_path: Path) -> None:
    for name in (
        "loose.png",
        "cats/a.png",
        "cats/deep/er/b.PNG",
        "dogs/c.png",
        "Test/cats/d.png",
        "test/e.png",
        "valid/dogs/f.png",
        "train/dogs/g.png",
    ):
        put(tmp_path / name)
    corpus = FolderCorpus(tmp_path, options=FolderOptions(splits="yes"))
    assert corpus.items == (
        Item("loose.png", None, None),
        Item("Test/cats/d.png", "test", "cats"),
        Item("cats/a.png", None, "cats"),
        Item("cats/deep/er/b.PNG", None, "cats"),
        Item("dogs/c.png", None, "dogs"),
        Item("test/e.png", "test", None),
        Item("train/dogs/g.png", "train", "dogs"),
        Item("valid/dogs/f.png", "val", "dogs"),
    )


def test_hidden_and_other_files_are_ignored(tmp_path: Path) -> None:
    for name in (".hidden.png", ".cache/a.png", "cats/.b.png", "notes.txt", "cats/c.png"):
        put(tmp_path / name)
    assert [item.source for item in FolderCorpus(tmp_path).items] == ["cats/c.png"]


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    secret = put(tmp_path / "outside" / "secret.png")
    inside = put(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "link.png").symlink_to(secret)
    (tmp_path / "in" / "alias.png").symlink_to(inside)
    (tmp_path / "in" / "folder").symlink_to(secret.parent)
    corpus = FolderCorpus(tmp_path / "in")
    assert [item.source for item in corpus.items] == ["a.png", "alias.png"]
    for source in ("link.png", "folder/secret.png", "../outside/secret.png", str(secret)):
        with pytest.raises(CorpusError, match="leads out of"):
            corpus.read(source)


def test_read_gives_the_pixels(tmp_path: Path) -> None:
    put(tmp_path / "a.png", encode_png(noise(5, 9)))
    assert np.array_equal(FolderCorpus(tmp_path).read("a.png"), noise(5, 9))


def test_unusable_files(tmp_path: Path) -> None:
    put(tmp_path / "text.png", b"not a picture")
    gone = put(tmp_path / "gone.png")
    (tmp_path / "folder.png").mkdir()
    corpus = FolderCorpus(tmp_path)
    assert [item.source for item in corpus.items] == ["gone.png", "text.png"]
    gone.unlink()
    with pytest.raises(PictureError) as caught:
        corpus.read("text.png")
    assert caught.value.reason == "not-a-picture"
    with pytest.raises(CorpusError, match=r"gone\.png cannot be read: No such file"):
        corpus.read("gone.png")
    with pytest.raises(CorpusError, match=r"folder\.png cannot be read: Is a directory"):
        corpus.read("folder.png")


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    size = put(tmp_path / "a.png").stat().st_size
    corpus = FolderCorpus(tmp_path, PictureLimits(max_bytes=size - 1))
    with pytest.raises(PictureError, match=f"a.png has {size:,} bytes, more than") as caught:
        corpus.read("a.png")
    assert caught.value.reason == "too-large"


def test_empty_folder(tmp_path: Path) -> None:
    put(tmp_path / "notes.txt")
    with pytest.raises(CorpusError, match=r"no pictures in .*; expected files ending in \.jpg"):
        _ = FolderCorpus(tmp_path).items


def test_not_a_folder(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "none", "does not exist"),
        (put(tmp_path / "file.png"), "is not a folder"),
    ):
        with pytest.raises(CorpusError, match=f"{words}; expected a folder of pictures, or a CSV"):
            open_corpus(path)


def test_a_table_names_pictures_labels_and_splits(tmp_path: Path) -> None:
    put(tmp_path / "a.png", encode_png(noise(5, 9)))
    put(tmp_path / "not-in-the-table.png")
    table = tmp_path / "labels.csv"
    table.write_text("file,label,split\na.png,cat,Valid\ngone.png,dog,\n")
    corpus = open_corpus(table)
    assert isinstance(corpus, TableCorpus)
    assert corpus.name == str(table)
    assert corpus.items == (Item("a.png", "val", "cat"), Item("gone.png", None, "dog"))
    assert np.array_equal(corpus.read("a.png"), noise(5, 9))
    with pytest.raises(CorpusError, match=r"gone\.png cannot be read: No such file"):
        corpus.read("gone.png")
    table.write_text("file,label\na.png,cat,extra\n")
    with pytest.raises(CorpusError, match=r"labels\.csv, line 2: 3 fields; expected 2"):
        _ = corpus.items


def test_sample_counts_labels_and_splits() -> None:
    corpus = sample(per_class=10)
    assert len(corpus.items) == 100
    assert corpus.items[0] == Item("train/00000", "train", "balloon")
    assert corpus.items[-1] == Item("test/00019", "test", "tree")
    for split, count in (("train", 8), ("test", 2)):
        labels = [item.label for item in corpus.items if item.split == split]
        assert {label: labels.count(label) for label in labels} == dict.fromkeys(
            scenes.SCENES, count
        )
    assert corpus.notice == SAMPLE_NOTICE
    assert corpus.name == "rendered sample"


def test_sample_pictures_are_those_of_the_scene() -> None:
    corpus = sample(per_class=10)
    assert np.array_equal(corpus.read("test/00011"), scenes.render("boat", 1))
    assert np.array_equal(corpus.read("train/00003"), scenes.render("flower", 2))


@pytest.mark.parametrize(
    "source", ["test/99999", "test/-1", "val/00000", "test/x", "test", "", "test/0/0"]
)
def test_array_corpus_knows_only_its_own_sources(source: str) -> None:
    with pytest.raises(CorpusError, match=f"rendered sample has no picture '{source}'"):
        sample(per_class=5).read(source)


class FakeCIFAR10:
    """Replaces torchvision's; ``calls`` are (root, train, download)."""

    calls: list[tuple[str, bool, bool]]
    error: Exception | None = None

    def __init__(self, root: str, train: bool, download: bool) -> None:
        self.calls.append((root, train, download))
        if self.error is not None:
            raise self.error
        n = 3 if train else 2
        self.data = np.full((n, 32, 32, 3), n, np.uint8)
        self.targets = [9, 0, 5][:n]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    FakeCIFAR10.calls = []
    monkeypatch.setattr("torchvision.datasets.CIFAR10", FakeCIFAR10)
    return FakeCIFAR10


def test_cifar10_items_and_pictures(fake: Any, tmp_path: Path) -> None:
    corpus = cifar10(tmp_path)
    assert fake.calls == []
    assert corpus.items == (
        Item("train/00000", "train", "truck"),
        Item("train/00001", "train", "airplane"),
        Item("train/00002", "train", "dog"),
        Item("test/00000", "test", "truck"),
        Item("test/00001", "test", "airplane"),
    )
    assert (corpus.read("test/00001") == 2).all()
    assert fake.calls == [(str(tmp_path), True, False), (str(tmp_path), False, False)]
    assert corpus.notice is None


def test_damaged_cifar10(tmp_path: Path) -> None:
    put(tmp_path / CIFAR10_FOLDER / "data_batch_1", b"damaged")
    with pytest.raises(CorpusError, match=r"CIFAR-10 is missing or damaged in"):
        _ = open_corpus(tmp_path).items


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, in an otherwise empty folder."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def test_find_takes_what_was_named(fake: Any, home: Path, said: list[str]) -> None:
    put(home / "mine" / "a.png")
    (home / "data" / CIFAR10_FOLDER).mkdir(parents=True)
    assert find_corpus(home / "mine", said.append).name == str(home / "mine")
    with pytest.raises(CorpusError, match="does not exist"):
        find_corpus(home / "none", said.append)
    assert said == []
    assert fake.calls == []


def test_find_prefers_shared_then_data(fake: Any, home: Path, said: list[str]) -> None:
    (home / "data" / CIFAR10_FOLDER).mkdir(parents=True)
    _ = find_corpus(None, said.append).items
    (home.parent / "shared" / CIFAR10_FOLDER).mkdir(parents=True)
    _ = find_corpus(None, said.append).items
    shared = os.path.join("..", "shared")  # noqa: PTH118 - as the call gives it
    assert [call[0] for call in fake.calls] == ["data", "data", shared, shared]
    assert not any(download for _, _, download in fake.calls)
    assert said == []


def test_find_downloads(fake: Any, home: Path, said: list[str]) -> None:
    assert find_corpus(None, said.append).name == "CIFAR-10"
    assert fake.calls == [("data", True, True), ("data", False, True)]
    assert said == ["CIFAR-10 was not found; downloading it into ./data (170 MB)."]


def test_find_falls_back_to_the_sample(
    fake: Any, home: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "error", OSError("no route to host"))
    corpus = find_corpus(None, said.append)
    assert corpus.name == "rendered sample"
    assert corpus.notice == SAMPLE_NOTICE
    assert said[1:] == [
        "CIFAR-10 could not be downloaded into data (no route to host);"
        " using a small rendered sample instead."
    ]


def real_cifar10() -> Path | None:
    shared = Path(__file__).parents[3] / "shared"
    roots = [Path(os.environ["LOOKALIKE_DATA"])] if "LOOKALIKE_DATA" in os.environ else []
    return next((root for root in [*roots, shared] if (root / CIFAR10_FOLDER).is_dir()), None)


@pytest.mark.slow
@pytest.mark.skipif(real_cifar10() is None, reason="CIFAR-10 is not here; set LOOKALIKE_DATA")
def test_the_real_cifar10() -> None:
    root = real_cifar10()
    assert root is not None
    corpus = cifar10(root)
    items = corpus.items
    assert len(items) == 60_000
    assert items[0] == Item("train/00000", "train", "frog")
    assert items[50_000] == Item("test/00000", "test", "cat")
    assert corpus.read("train/00000")[0, 0].tolist() == [59, 62, 63]
    test_labels = [item.label for item in items if item.split == "test"]
    assert {name: test_labels.count(name) for name in CIFAR10_CLASSES} == dict.fromkeys(
        CIFAR10_CLASSES, 1000
    )


def test_other_kinds_of_files_are_not_read(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    put(root / "a.png")
    os.mkfifo(root / "pipe.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    corpus = FolderCorpus(root)
    for source in (
        "pipe.png",
        "loop.png",
        "a\0.png",
        "../" + "x" * 5000,
        "/etc/passwd",
        "/dev/zero",
    ):
        with pytest.raises(CorpusError) as caught:
            corpus.read(source)
        # Whoever requested the picture reads this, and must not learn where it is stored.
        assert str(tmp_path) not in str(caught.value)


def test_a_table_names_a_file_once_however_it_is_written(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9.png", "cafe\u0301.png"
    put(tmp_path / composed)
    table = tmp_path / "labels.tsv"
    table.write_text(f"file\tlabel\n{composed}\tx\n{decomposed}\ty\n")
    with pytest.raises(CorpusError, match=r"names the file café\.png twice"):
        open_corpus(table).scan()
    put(tmp_path / decomposed)
    assert len(open_corpus(table).scan().items) == 2


def test_a_table_may_name_files_that_do_not_exist(tmp_path: Path) -> None:
    put(tmp_path / "a.png", encode_png(noise(5, 9)))
    put(tmp_path / "b" / "c.png", encode_png(noise(5, 9)))
    table = tmp_path / "labels.csv"
    table.write_text("file,label\na.png,x\nb/c.png,x\nb/none.png,x\na.png/inside.png,x\n")
    assert open_corpus(table).scan().missing == {"b/none.png", "a.png/inside.png"}
    table.write_text("file,label\nwrong/a.png,x\nwrong/b.png,x\n")
    with pytest.raises(CorpusError, match=r"none of the 2 files that .* for example wrong/a\.png"):
        open_corpus(table).scan()
    # What cannot be looked at may exist.
    assert not _is_missing(tmp_path / ("x" * 300))


def test_a_folder_of_every_format(tmp_path: Path) -> None:
    endings = {"HEIF": "HEIC", "AVIF": "avif", "JPEG2000": "JP2", "ICO": "ico", "PPM": "pnm",
               "DIB": "dib", "JPEG": "JFIF", "PNG": "apng", "TIFF": "tif", "WEBP": "webp",
               "GIF": "Gif", "BMP": "bmp"}  # fmt: skip
    assert set(endings) == set(FORMATS)
    for form, ending in endings.items():
        (tmp_path / f"{form}.{ending}").write_bytes(encoded(slope(96, 128), form))
    corpus = FolderCorpus(tmp_path)
    assert {item.source for item in corpus.items} == {f"{f}.{e}" for f, e in endings.items()}
    for item in corpus.items:
        picture = corpus.read(item.source)
        assert picture.shape == (96, 128, 3)
        assert np.abs(picture.astype(int) - slope(96, 128)).mean() < 6, item.source
