"""Finer tags for CIFAR-10: 73 groups within its ten classes, for 45,474 of the 60,000 pictures.

Taken from the words in CIFAR-10's own file names (``fire_truck_s_000148.png``), synonyms merged.
``cifar10_groups/names.json`` lists each class's groups; ``numbers.bin.xz`` has a byte per picture,
training before test: 0 for none, otherwise the group's number within its class, from 1.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FOLDER = Path(__file__).parent / "cifar10_groups"


def tags(labels: dict[str, NDArray[np.int64]], classes: tuple[str, ...]) -> dict[str, list[str]]:
    """For each split, the group of each picture, ``""`` for none; empty for a part of CIFAR-10.

    Args:
        labels: class numbers ``(n,)`` of CIFAR-10's ``train`` and ``test``, in their own order.
        classes: class names by number.
    """
    names = json.loads((_FOLDER / "names.json").read_text("utf-8"))
    by_class = [("", *names[name]) for name in classes]
    numbers = lzma.decompress((_FOLDER / "numbers.bin.xz").read_bytes())
    if sum(map(len, labels.values())) != len(numbers):
        return {}
    start, found = 0, {}
    for split in ("train", "test"):
        end = start + len(labels[split])
        pairs = zip(labels[split].tolist(), numbers[start:end], strict=True)
        found[split] = [by_class[label][number] for label, number in pairs]
        start = end
    return found
