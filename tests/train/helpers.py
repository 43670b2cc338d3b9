"""Small data sets and quick recipes."""

from __future__ import annotations

import torch
from torch import Tensor

from embed.bundle import Bundle
from embed.imported.importing import import_model
from train.data import Dataset, Split
from train.recipe import Augment, BatchSelection, Recipe

# A little of everything: two optimisers, dropout, two resolutions, batch selection, augmentation.
QUICK = Recipe(
    name="test",
    widths=(24, 24, 24),
    dropout=0.1,
    epochs=6,
    batch_size=32,
    optimiser="muon",
    lr=0.17,
    momentum=0.6,
    schedule="linear",
    warmup=0.0,
    augment=Augment(flip="alternating", translate=2, cutout=4),
    low_share=0.34,
    proxy=BatchSelection(keep=0.75, widths=(24, 24, 24), every=2),
)


def coloured(per_class: int, seed: int = 0) -> Split:
    """Noisy red, green and blue pictures with labels 0, 1 and 2, in turn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3 * per_class) % 3
    pictures: Tensor = torch.randint(0, 120, (len(labels), 3, 32, 32), generator=generator)
    pictures[torch.arange(len(labels)), labels] += 100
    return Split(pictures.byte(), labels)


def colours() -> Dataset:
    """Three classes that any network can tell apart."""
    return Dataset(("red", "green", "blue"), coloured(8), coloured(4, 1), coloured(5, 2), {})


def imported(network: str = "test_efficientnet", seed: int = 0) -> Bundle:
    """A tiny network of timm with random weights and two classes, for pictures of 32 pixels."""
    import timm

    torch.manual_seed(seed)
    weights = timm.create_model(network, num_classes=2).state_dict()
    return import_model(f"timm:{network}", weights, size=32, classes=["day", "night"])
