"""A corpus as tensors in memory, split for training, validation and the final test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from embed.corpus import Corpus, CorpusError, Item
from embed.pictures import RGB, PictureError, turn
from embed.preprocess import Preprocess


@dataclass(frozen=True)
class Split:
    """``pictures`` uint8 ``(n, 3, size, size)`` and ``labels`` int64 ``(n,)``.

    ``groups`` int64 ``(n,)`` are finer labels within the classes, -1 where a picture has none; None
    where the corpus has no finer labels.
    """

    pictures: Tensor
    labels: Tensor
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> Split:
        groups = None if self.groups is None else self.groups[index]
        return Split(self.pictures[index], self.labels[index], groups)


@dataclass(frozen=True)
class Dataset:
    """A labelled corpus, ready to train on.

    Attributes:
        classes: class names in the order of the labels.
        train: for learning.
        validation: for choosing the epoch, the recipe and the temperature.
        test: for one measurement at the end; None where the corpus has no test split.
        skipped: the reason why each unreadable picture was left out, by its source.
    """

    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None
    skipped: dict[str, str]


ItemProgress = Callable[[Iterable[Item]], Iterable[Item]]


def load_dataset(
    corpus: Corpus,
    size: int | Preprocess = 32,
    validation: float = 0.05,
    seed: int = 0,
    progress: ItemProgress = lambda items: items,
    test: float = 0.0,
) -> Dataset:
    """Read all labelled pictures of a corpus, made square as a network takes them.

    Args:
        corpus: the source. Pictures without a split count as training pictures.
        size: side of the network's input in pixels, or how pictures become that input.
        validation: share of each class's training pictures to hold out for validation, 0..0.5;
            used only if the corpus has no validation split.
        seed: for the random choice of held-out pictures.
        progress: wraps the items to show progress, as tqdm does.
        test: share to hold out for the test, likewise, 0..0.5; 0 for none.

    Raises:
        CorpusError: fewer than two classes, or a class with too few pictures to split.
    """
    preprocess = size if isinstance(size, Preprocess) else Preprocess(input_size=size)
    labelled = [item for item in corpus.items if item.label is not None]
    classes = tuple(sorted({item.label for item in labelled if item.label}))
    if len(classes) < 2:
        raise CorpusError(
            f"{corpus.name} has {len(classes)} labelled classes ({', '.join(classes) or 'none'});"
            " training needs at least two: put the pictures of each class into their own folder"
        )
    number = {name: i for i, name in enumerate(classes)}
    skipped: dict[str, str] = {}

    def read(item: Item) -> RGB | None:
        try:
            with turn(patient=True):
                picture = corpus.read(item.source, at_least=preprocess.shorter_side)
                return preprocess.fit(picture)
        except (PictureError, CorpusError) as error:
            skipped[item.source] = str(error)
            return None

    pictures: dict[str, list[RGB]] = {"train": [], "val": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    groups: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    finer_labels = {(item.label, item.tags[0]) for item in labelled if item.tags}
    group_number = {label: i for i, label in enumerate(sorted(finer_labels, key=str))}
    # Decoding releases the interpreter's lock, so threads help.
    with ThreadPoolExecutor(max_workers=4) as pool:
        for item, picture in zip(labelled, pool.map(read, progress(labelled)), strict=True):
            if picture is not None and item.label is not None:
                split = item.split or "train"
                pictures[split].append(picture)
                labels[split].append(number[item.label])
                group = group_number[item.label, item.tags[0]] if item.tags else -1
                groups[split].append(group)

    splits = {
        name: _split(pictures.pop(name), labels[name], groups[name] if finer_labels else None)
        for name in labels
        if labels[name]
    }
    train = splits.get("train")
    if train is None:
        raise CorpusError(f"{corpus.name} has no readable labelled training pictures")
    test_split = splits.get("test")
    if test_split is None and test > 0:
        held_out = stratified(train.labels, test, seed)
        train, test_split = train[~held_out], train[held_out]
    validation_split = splits.get("val")
    if validation_split is None:
        held_out = stratified(train.labels, validation, seed)
        train, validation_split = train[~held_out], train[held_out]
    counts = torch.bincount(train.labels, minlength=len(classes))
    if not bool((counts > 0).all()) or len(validation_split) == 0:
        few = ", ".join(name for name, count in zip(classes, counts, strict=True) if count == 0)
        raise CorpusError(
            f"{corpus.name} has too few training pictures{f' of {few}' if few else ''};"
            " each class needs at least two"
        )
    return Dataset(classes, train, validation_split, test_split, skipped)


def stratified(labels: Tensor, share: float, seed: int) -> Tensor:
    """Choose ``share`` of each class at random, at least one picture of a class of two or more.

    Args:
        labels: int64 ``(n,)``.
        share: 0..1.
        seed: random seed.

    Returns:
        bool ``(n,)``, True for the chosen pictures.
    """
    generator = Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():  # type: ignore[no-untyped-call]
        members = (labels == label).nonzero().flatten()
        count = round(len(members) * share) or int(len(members) > 1)
        chosen[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return chosen


def in_batches(pictures: Tensor) -> Iterator[Tensor]:
    """Split ``pictures`` evenly into batches: at most 500 of 32 pixels, fewer of larger ones."""
    largest = max(500 * 32 * 32 // pictures.shape[-1] ** 2, 16)
    yield from pictures.tensor_split(max(math.ceil(len(pictures) / largest), 1))


def _split(pictures: list[RGB], labels: Sequence[int], groups: Sequence[int] | None) -> Split:
    height, width, channels = pictures[0].shape
    stacked = np.empty((len(pictures), channels, height, width), np.uint8)
    for row in range(len(pictures)):
        stacked[row] = pictures[row].transpose(2, 0, 1)
        pictures[row] = pictures[0]  # frees it: large pictures should not be in memory twice
    return Split(
        torch.from_numpy(stacked),
        torch.tensor(labels, dtype=torch.int64),
        None if groups is None else torch.tensor(groups, dtype=torch.int64),
    )
