"""What the embedding gains by its shape, measured on the validation split, to choose the settings.

    python -m benchmarks.shaping runs/best/plain --data ../shared

For a plain bundle: class mAP and precision at 10, fine precision at 1 and 10 and recall of altered
copies, of the plain features and of shaped ones for each number of dimensions and weight. Queries
are the validation pictures, which the network did not learn from; the gallery is the training
pictures (and the validation pictures, for altered copies). The test set is not looked at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from embed.bundle import Bundle
from embed.corpus import cifar10
from embed.precision import autocast
from embed.resnet import WhitenedResNet
from train import environment
from train.data import stratified
from train.measures import retrieval
from train.recipe import Recipe
from train.shaping import Shaping, shape
from train.similarity import altered_copies, copy_search, group_search


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="a plain bundle, trained on CIFAR-10")
    parser.add_argument("--data", type=Path, default=Path("../shared"))
    parser.add_argument("--likeness", type=int, nargs="+", default=[54, 118, 182, 246, 502])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.6, 0.85, 1.0, 1.2])
    parser.add_argument("--rows", type=int, default=Shaping.rows, help="of the first two maps")
    options = parser.parse_args()
    environment.prepare()
    bundle = Bundle.load(options.bundle)
    recipe = Recipe.from_dict(bundle.training["recipe"])
    corpus = cifar10(options.data)
    pictures, labels = corpus.splits["train"]
    held_out = stratified(torch.from_numpy(labels), recipe.validation, recipe.seed).numpy()
    names = sorted({(item.label, item.tags[0]) for item in corpus.items if item.tags})
    number = {name: i for i, name in enumerate(names)}
    train_items = [item for item in corpus.items if item.split == "train"]
    groups = np.array(
        [number[item.label, item.tags[0]] if item.tags else -1 for item in train_items]
    )
    learned = torch.from_numpy(pictures[~held_out]).permute(0, 3, 1, 2)
    largest = shape(bundle, learned, Shaping(max(options.likeness), rows=options.rows), recipe.seed)
    network = largest.network()
    assert isinstance(network, WhitenedResNet)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    copies = altered_copies(pictures[held_out], recipe.seed + 1)
    sets = {"train": pictures[~held_out], "val": pictures[held_out], **copies}
    parts = {name: _parts(network, bundle, x) for name, x in sets.items()}
    truth = (labels[~held_out], labels[held_out], groups[~held_out], groups[held_out])
    print(f"{len(sets['val']):,} queries, {len(sets['train']):,} training pictures")
    print("| dimensions | likeness | weight | class mAP | P@10 | fine P@1 | P@10 |", end="")
    print(" copies, mean | each ... | all at once |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    _print("plain", 0.0, {name: last for name, (last, _, _) in parts.items()}, truth)
    _print("class only", 0.0, {name: told for name, (_, told, _) in parts.items()}, truth)
    for likeness in options.likeness:
        for weight in options.weights:
            made = {
                name: torch.cat(
                    [told, weight * torch.nn.functional.normalize(alike[:, :likeness])], 1
                )
                for name, (_, told, alike) in parts.items()
            }
            _print(str(likeness), weight, made, truth)


@torch.no_grad()
def _parts(
    network: WhitenedResNet, bundle: Bundle, pictures: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """Last features, class part and likeness before its length is made one."""
    assert network.compress is not None and network.likeness is not None
    found = []
    stacked = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    for batch in stacked.split(500):  # type: ignore[no-untyped-call]
        with autocast(batch.device):
            last, pooled = network.pooled(bundle.preprocess.normalise(batch))
            told, alike = network.compress(last), network.likeness(pooled)
        found.append((last.float(), told.float(), alike.float()))
    last, told, alike = (torch.cat(part) for part in zip(*found, strict=True))
    return last, told, alike


def _print(
    likeness: str,
    weight: float,
    features: dict[str, Tensor],
    truth: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    train_labels, labels, train_groups, groups = truth
    x = {name: torch.nn.functional.normalize(f).numpy() for name, f in features.items()}
    train, val = x.pop("train"), x.pop("val")
    classes = retrieval(val, labels, train, train_labels)
    fine = group_search(val, groups, train, train_groups).precision_at
    found = copy_search(x, np.concatenate([val, train]), np.arange(len(val))).recall_at
    each = " ".join(f"{name} {found[name][1]:.3f}" for name in x if name != "all")
    print(
        f"| {train.shape[1]} | {likeness} | {weight} | {classes.mean_average_precision:.4f}"
        f" | {classes.precision_at[10]:.4f} | {fine[1]:.3f} | {fine[10]:.3f}"
        f" | {found['mean'][1]:.3f} | {each} | {found['all'][1]:.3f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
