"""A corpus as tensors in memory, split for training, for choosing, and for the one final test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from embed.corpus import Corpus, CorpusError, Item
from embed.pictures import RGB, PictureError
from embed.preprocess import Preprocess


@dataclass(frozen=True)
class Split:
    """``pictures`` uint8 ``(n, 3, size, size)`` and ``labels`` int64 ``(n,)``.

    ``groups`` int64 ``(n,)`` numbers a finer word for each picture, -1 where there is none; None
    where the corpus has no such words.
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
        train: what the network learns from.
        validation: what epochs, recipes and the temperature are chosen by.
        test: what is measured once at the end; None where the corpus has no test split.
        skipped: why each unreadable picture was left out, by its source.
    """

    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None
    skipped: dict[str, str]


Progress = Callable[[Iterable[Item]], Iterable[Item]]


def load_dataset(
    corpus: Corpus,
    size: int = 32,
    validation: float = 0.05,
    seed: int = 0,
    progress: Progress = lambda items: items,
    test: float = 0.0,
) -> Dataset:
    """Read all labelled pictures of a corpus, scaled and cropped to ``(size, size)``.

    Args:
        corpus: where from. Pictures without a split count as training pictures.
        size: side of the network's input, pixels.
        validation: share of each class's training pictures held out for validation, 0..0.5,
            where the corpus has no validation split of its own.
        seed: decides which.
        progress: wraps the items to show progress, as tqdm does.
        test: share held out for the test, likewise, 0..0.5; 0 for none.

    Raises:
        CorpusError: fewer than two classes, or a class with too few pictures to split.
    """
    fit = Preprocess(input_size=size).fit
    labelled = [item for item in corpus.items if item.label is not None]
    classes = tuple(sorted({item.label for item in labelled if item.label}))
    if len(classes) < 2:
        raise CorpusError(
            f"{corpus.name} has {len(classes)} labelled classes ({', '.join(classes) or 'none'});"
            " training needs at least two: put the pictures into one folder a class"
        )
    number = {name: i for i, name in enumerate(classes)}
    skipped: dict[str, str] = {}

    def read(item: Item) -> RGB | None:
        try:
            return fit(corpus.read(item.source, at_least=size))
        except (PictureError, CorpusError) as error:
            skipped[item.source] = str(error)
            return None

    pictures: dict[str, list[RGB]] = {"train": [], "val": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    groups: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    words = {(item.label, item.tags[0]) for item in labelled if item.tags}
    group_number = {word: i for i, word in enumerate(sorted(words, key=str))}
    # Decoding releases the interpreter's lock, so threads help.
    with ThreadPoolExecutor(max_workers=4) as pool:
        for item, picture in zip(labelled, pool.map(read, progress(labelled)), strict=True):
            if picture is not None and item.label is not None:
                pictures[item.split or "train"].append(picture)
                labels[item.split or "train"].append(number[item.label])
                word = (item.label, item.tags[0]) if item.tags else None
                groups[item.split or "train"].append(group_number[word] if word else -1)

    splits = {
        # pop: of large pictures there should not be two copies longer than needed.
        name: _split(pictures.pop(name), labels[name], groups[name] if words else None, size)
        for name in labels
        if labels[name]
    }
    train = splits.get("train")
    if train is None:
        raise CorpusError(f"{corpus.name} has no readable labelled training pictures")
    tested = splits.get("test")
    if tested is None and test > 0:
        chosen = stratified(train.labels, test, seed)
        train, tested = train[~chosen], train[chosen]
    held_out = splits.get("val")
    if held_out is None:
        chosen = stratified(train.labels, validation, seed)
        train, held_out = train[~chosen], train[chosen]
    counts = torch.bincount(train.labels, minlength=len(classes))
    if not bool((counts > 0).all()) or len(held_out) == 0:
        few = ", ".join(name for name, count in zip(classes, counts, strict=True) if count == 0)
        raise CorpusError(
            f"{corpus.name} has too few training pictures{f' of {few}' if few else ''};"
            " each class needs at least two"
        )
    return Dataset(classes, train, held_out, tested, skipped)


def stratified(labels: Tensor, share: float, seed: int) -> Tensor:
    """Choose ``share`` of each class at random, at least one where a class has two or more.

    Args:
        labels: int64 ``(n,)``.
        share: 0..1.
        seed: of the choice.

    Returns:
        bool ``(n,)``, True for the chosen.
    """
    generator = Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():  # type: ignore[no-untyped-call]
        members = (labels == label).nonzero().flatten()
        count = round(len(members) * share) or int(len(members) > 1)
        chosen[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return chosen


def _split(
    pictures: Sequence[RGB], labels: Sequence[int], groups: Sequence[int] | None, size: int
) -> Split:
    stacked = torch.from_numpy(np.stack([picture.transpose(2, 0, 1) for picture in pictures]))
    assert stacked.shape[2:] == (size, size)
    return Split(
        stacked.contiguous(),
        torch.tensor(labels, dtype=torch.int64),
        None if groups is None else torch.tensor(groups, dtype=torch.int64),
    )
