"""What the embedding gains by its shape, measured on the validation split, to choose the settings.

    python -m benchmarks.shaping embed/pretrained --weights 0.8 0.9 1.0
    python -m benchmarks.shaping embed/pretrained --likeness 64 128 256 512 --rows 3
    python -m benchmarks.shaping runs/slides/bundle --data ~/slides --likeness 64 256

Class mAP and precision at 10, fine precision at 1 and 10 (where the corpus has finer words) and
recall of altered copies, of the plain features and of shaped ones for each number of dimensions and
weight: those of the bundle, or with ``--likeness`` or ``--rows`` of a shape made here. Queries are
the validation pictures, which the network did not learn from; the gallery is the training pictures
(and the validation pictures, for altered copies). The test set is not looked at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from embed.bundle import Bundle
from embed.corpus import open_corpus
from embed.precision import autocast
from embed.resnet import WhitenedResNet
from train import environment
from train.data import Dataset, load_dataset
from train.measures import retrieval
from train.recipe import BEST, Recipe
from train.search_quality import pictures_of
from train.shaping import Shaping, shape
from train.similarity import altered_copies, copy_search, group_search


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="of a whitened-resnet, plain or shaped")
    parser.add_argument("--data", type=Path, default=Path("../shared"))
    parser.add_argument("--likeness", type=int, nargs="+", help="dimensions of a shape made here")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.8, 0.9, 1.0])
    parser.add_argument("--rows", type=int, help="that its maps are divided into")
    options = parser.parse_args()
    environment.prepare()
    bundle = Bundle.load(options.bundle)
    recipe = Recipe.from_dict(bundle.training["recipe"])
    data = load_dataset(
        open_corpus(options.data), recipe.size, recipe.validation, recipe.seed, test=recipe.test
    )
    shaping = recipe.shaping
    counts = options.likeness or [bundle.architecture.likeness or BEST.shaping.likeness]
    if options.likeness or options.rows or not bundle.architecture.likeness:
        shaping = Shaping(max(counts), rows=options.rows or Shaping.rows)
        bundle = shape(bundle, data.train.pictures, shaping, recipe.seed)
    network = bundle.network()
    assert isinstance(network, WhitenedResNet)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    copies = altered_copies(pictures_of(data.validation), recipe.seed + 1)
    sets = {"train": pictures_of(data.train), "val": pictures_of(data.validation), **copies}
    parts = {name: _parts(network, bundle, x) for name, x in sets.items()}
    print(f"{len(sets['val']):,} queries, {len(sets['train']):,} training pictures")
    print("| dimensions | likeness | weight | class mAP | P@10 | fine P@1 | P@10 |", end="")
    print(" copies, mean | each ... | all at once |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    _print("plain", 0.0, {name: last for name, (last, _, _) in parts.items()}, data)
    _print("class only", 0.0, {name: told for name, (_, told, _) in parts.items()}, data)
    for likeness in sorted(counts):
        for weight in options.weights:
            made = {
                name: torch.cat(
                    # The class part has the length 1 / shaping.weight.
                    [shaping.weight * told, weight * F.normalize(alike[:, :likeness])],
                    1,
                )
                for name, (_, told, alike) in parts.items()
            }
            _print(str(likeness), weight, made, data)


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
    data: Dataset,
) -> None:
    x = {name: F.normalize(f).numpy() for name, f in features.items()}
    train, val = x.pop("train"), x.pop("val")
    classes = retrieval(val, data.validation.labels.numpy(), train, data.train.labels.numpy())
    fine = "| |"
    if data.validation.groups is not None and data.train.groups is not None:
        groups = data.validation.groups.numpy(), data.train.groups.numpy()
        precision = group_search(val, groups[0], train, groups[1]).precision_at
        fine = f"{precision[1]:.3f} | {precision[10]:.3f} |"
    found = copy_search(x, np.concatenate([val, train]), np.arange(len(val))).recall_at
    each = " ".join(f"{name} {found[name][1]:.3f}" for name in x if name != "all")
    print(
        f"| {train.shape[1]} | {likeness} | {weight} | {classes.mean_average_precision:.4f}"
        f" | {classes.precision_at[10]:.4f} | {fine}"
        f" {found['mean'][1]:.3f} | {each} | {found['all'][1]:.3f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
