from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from embed.corpus import ArrayCorpus, CorpusError, FolderCorpus, Item
from embed.folders.options import FolderOptions
from embed.pictures import encode_png
from embed.preprocess import Preprocess
from train.data import Split, in_batches, load_dataset, stratified


def put(root: Path, *names: str, shade: int = 50, shape: tuple[int, int] = (32, 32)) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(np.full((*shape, 3), shade, np.uint8)))


def array_corpus(labels: list[int]) -> ArrayCorpus:
    """Pictures whose every pixel is their number."""
    numbers = np.arange(len(labels), dtype=np.uint8)
    pictures = np.broadcast_to(numbers[:, None, None, None], (len(labels), 32, 32, 3)).copy()
    # Class names out of order, so that labels must be numbered by name.
    return ArrayCorpus(
        "made", ("b", "c", "a"), lambda: {"train": (pictures, np.array(labels, np.int64))}
    )


def test_stratified_takes_the_share_of_each_class() -> None:
    labels = torch.tensor([0] * 40 + [1] * 20 + [2] * 3 + [3])
    chosen = stratified(labels, 0.1, seed=1)
    assert chosen.dtype == torch.bool
    # At least one of a class of two or more, none of a class of one.
    assert [int(chosen[labels == i].sum()) for i in range(4)] == [4, 2, 1, 0]
    assert torch.equal(chosen, stratified(labels, 0.1, seed=1))
    assert not torch.equal(chosen, stratified(labels, 0.1, seed=2))


def test_labels_follow_the_sorted_class_names() -> None:
    data = load_dataset(array_corpus([0, 1, 2] * 10), validation=0.1)
    assert data.classes == ("a", "b", "c")
    assert data.test is None
    assert data.skipped == {}
    assert (len(data.train), len(data.validation)) == (27, 3)
    for split in (data.train, data.validation):
        number = split.pictures[:, 0, 0, 0].long()
        # Picture i has class (b, c, a)[i % 3], which is number (1, 2, 0)[i % 3] when sorted.
        assert torch.equal(split.labels, torch.tensor([1, 2, 0])[number % 3])
    assert sorted(data.validation.labels.tolist()) == [0, 1, 2]


def test_no_picture_is_in_both_splits() -> None:
    data = load_dataset(array_corpus([0, 1, 2] * 10), validation=0.3)
    numbers = [split.pictures[:, 0, 0, 0].tolist() for split in (data.train, data.validation)]
    assert sorted(numbers[0] + numbers[1]) == list(range(30))


def test_pictures_are_channels_first(tmp_path: Path) -> None:
    picture = np.arange(3072, dtype=np.uint16).astype(np.uint8).reshape(32, 32, 3)
    corpus = ArrayCorpus(
        "made", ("a", "b"), lambda: {"train": (np.stack([picture] * 4), np.array([0, 0, 1, 1]))}
    )
    pictures = load_dataset(corpus).train.pictures
    assert pictures.dtype == torch.uint8
    assert pictures.is_contiguous()
    assert np.array_equal(pictures[0].permute(1, 2, 0).numpy(), picture)


def test_a_folder_with_its_own_splits(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/1.png", "train/dog/2.png", "train/dog/3.png", shade=1)
    put(tmp_path, "val/cat/4.png", shade=2)
    put(tmp_path, "test/dog/5.png", "test/cat/6.png", shade=3)
    put(tmp_path, "unlabelled.png")
    data = load_dataset(FolderCorpus(tmp_path))
    assert data.classes == ("cat", "dog")
    assert data.test is not None
    for split, labels, shade in (
        (data.train, [0, 1, 1], 1),
        (data.validation, [0], 2),
        (data.test, [0, 1], 3),
    ):
        assert split.labels.tolist() == labels
        assert (split.pictures == shade).all()


def test_pictures_of_any_size_are_fitted(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "a/2.png", "b/1.png", shape=(70, 45))
    put(tmp_path, "b/2.png", shape=(3, 3))
    data = load_dataset(FolderCorpus(tmp_path), size=24)
    assert data.train.pictures.shape == (2, 3, 24, 24)
    assert (data.train.pictures == 50).all()


def test_unreadable_pictures_are_listed(tmp_path: Path) -> None:
    put(tmp_path, *(f"{label}/{i}.png" for label in "ab" for i in range(3)))
    (tmp_path / "a" / "bad.png").write_bytes(b"not a picture")
    data = load_dataset(FolderCorpus(tmp_path))
    assert len(data.train) + len(data.validation) == 6
    assert list(data.skipped) == ["a/bad.png"]
    assert data.skipped["a/bad.png"].startswith("the 13 bytes are not a picture")


def test_progress_sees_every_labelled_item() -> None:
    seen: list[Item] = []

    def progress(items):  # type: ignore[no-untyped-def]
        for item in items:
            seen.append(item)
            yield item

    corpus = array_corpus([0, 1, 2] * 4)
    load_dataset(corpus, progress=progress)
    assert tuple(seen) == corpus.items


def test_too_few_classes(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "cat/2.png")
    with pytest.raises(CorpusError, match=r"has 1 labelled classes \(cat\); training needs at"):
        load_dataset(FolderCorpus(tmp_path))
    put(tmp_path / "plain", "1.png")
    with pytest.raises(CorpusError, match=r"has 0 labelled classes \(none\)"):
        load_dataset(FolderCorpus(tmp_path / "plain"))


def test_too_few_pictures(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/1.png")
    with pytest.raises(CorpusError, match="too few training pictures; each class needs at least"):
        load_dataset(FolderCorpus(tmp_path))
    put(tmp_path, "cat/2.png", "test/bird/1.png")
    with pytest.raises(CorpusError, match="too few training pictures of bird;"):
        load_dataset(FolderCorpus(tmp_path, options=FolderOptions(splits="yes")))


def test_a_layout_with_two_meanings_is_not_trained_on(tmp_path: Path) -> None:
    put(tmp_path, *(f"{label}/{i}.png" for label in ("bus", "car", "train") for i in range(3)))
    assert load_dataset(FolderCorpus(tmp_path)).classes == ("bus", "car", "train")
    put(tmp_path, "train/steam/1.png")
    with pytest.raises(CorpusError, match="a split with the class steam, or a class, like bus"):
        load_dataset(FolderCorpus(tmp_path))


def test_nothing_readable(tmp_path: Path) -> None:
    put(tmp_path, "test/cat/1.png", "test/dog/1.png")
    with pytest.raises(CorpusError, match="no readable labelled training pictures"):
        load_dataset(FolderCorpus(tmp_path))


def test_split_takes_rows() -> None:
    split = Split(torch.arange(4).view(4, 1, 1, 1), torch.tensor([5, 6, 7, 8]))
    part = split[torch.tensor([True, False, False, True])]
    assert len(part) == 2
    assert part.labels.tolist() == [5, 8]
    assert part.pictures.flatten().tolist() == [0, 3]


def test_a_share_is_held_out_for_the_test() -> None:
    data = load_dataset(array_corpus([0, 1, 2] * 20), validation=0.1, test=0.25)
    assert data.test is not None
    # A quarter of 20 of each class; then a tenth of the 15 that are left.
    assert (len(data.train), len(data.validation), len(data.test)) == (39, 6, 15)
    assert data.test.labels.bincount().tolist() == [5, 5, 5]
    splits = (data.train, data.validation, data.test)
    numbers = [n for split in splits for n in split.pictures[:, 0, 0, 0].tolist()]
    assert sorted(numbers) == list(range(60))


def test_a_test_split_of_its_own_is_kept(tmp_path: Path) -> None:
    put(tmp_path, *(f"{label}/{i}.png" for label in "ab" for i in range(10)))
    put(tmp_path, "test/a/1.png", "test/b/1.png", shade=9)
    corpus = FolderCorpus(tmp_path, options=FolderOptions(splits="yes"))
    data = load_dataset(corpus, test=0.5)
    assert data.test is not None
    assert len(data.test) == 2
    assert (data.test.pictures == 9).all()


def test_finer_words_are_numbered_within_their_class() -> None:
    pictures = np.zeros((4, 32, 32, 3), np.uint8)
    labels = np.array([0, 0, 1, 1])
    corpus = ArrayCorpus(
        "made",
        ("cat", "dog"),
        lambda: {"train": (pictures, labels), "val": (pictures, labels)},
        tags=lambda splits: {"train": ["old", "", "old", "young"], "val": ["", "old", "", "old"]},
    )
    data = load_dataset(corpus)
    assert data.train.groups is not None
    assert data.train.groups.tolist() == [0, -1, 1, 2]
    assert data.validation[torch.tensor([1, 3])].groups.tolist() == [0, 1]  # type: ignore[union-attr]
    assert load_dataset(array_corpus([0, 1, 2] * 4)).train.groups is None


def test_batches_of_equal_memory() -> None:
    def sizes(n: int, side: int) -> list[int]:
        return [len(part) for part in in_batches(torch.zeros(n, 1, side, side))]

    assert sizes(1000, 32) == [500, 500]
    assert sizes(501, 32) == [251, 250]
    assert sizes(0, 32) == [0]
    assert sizes(30, 224) == [15, 15]


def test_pictures_become_square_as_the_network_takes_them() -> None:
    tall = np.zeros((2, 64, 32, 3), np.uint8)
    tall[:, :16] = 255  # above what a central crop keeps
    corpus = ArrayCorpus(
        "made",
        ("a", "b"),
        lambda: {"train": (np.repeat(tall, 2, 0), np.array([0, 1, 0, 1], np.int64))},
    )
    whole = load_dataset(corpus, Preprocess(16, resize="squeeze"), validation=0.5)
    assert whole.train.pictures.shape == (2, 3, 16, 16)
    assert whole.train.pictures[:, :, 0].min() == 255
    assert load_dataset(corpus, 16, validation=0.5).train.pictures.max() < 64
