"""The finer tags of CIFAR-10 come from its file names."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from embed.corpus import CIFAR10_CLASSES, CIFAR10_FOLDER, cifar10

SHARED = Path(__file__).parents[3] / "shared"
GROUPS = SHARED / "cifar10-fine-groups.json"
NAMES = Path(__file__).parents[2] / "embed" / "cifar10_groups" / "names.json"


def test_73_groups_in_ten_classes() -> None:
    names = json.loads(NAMES.read_text("utf-8"))
    assert tuple(names) == CIFAR10_CLASSES
    assert sum(map(len, names.values())) == 73
    assert "fire engine" in names["truck"]


@pytest.mark.slow
@pytest.mark.skipif(not GROUPS.exists(), reason="CIFAR-10 and its groups are not in ../shared")
def test_every_picture_has_the_group_of_its_file_name() -> None:
    words = {
        (label, word): name
        for label, groups in json.loads(GROUPS.read_text("utf-8")).items()
        for name, words in groups.items()
        for word in words
    }
    corpus = cifar10(SHARED)
    corpus.splits  # noqa: B018 - torchvision checks the files before they are unpickled here
    expected: list[tuple[str, ...]] = []
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        batch = pickle.loads((SHARED / CIFAR10_FOLDER / name).read_bytes(), encoding="latin1")
        for file, label in zip(batch["filenames"], batch["labels"], strict=True):
            group = words.get((CIFAR10_CLASSES[label], file.rpartition("_s_")[0]))
            expected.append((group,) if group else ())
    assert [item.tags for item in corpus.items] == expected
    assert sum(map(bool, expected)) == 45_474
