"""Effect of shaping on the embedding, measured on the validation split, to choose the settings.

    python -m benchmarks.shaping embed/pretrained --weights 0.8 0.9 1.0
    python -m benchmarks.shaping embed/pretrained --likeness 64 128 256 512 --rows 3
    python -m benchmarks.shaping runs/slides/bundle --data ~/slides --likeness 64 256

Prints class mAP and precision at 10, fine precision at 1 and 10 (if there are finer labels) and
recall of altered copies, for the plain features and for shaped ones of each number of dimensions
and weight. The shape is the bundle's, or a new one with ``--likeness`` or ``--rows``. Queries are
the validation pictures, which the network was not trained with; the gallery is the training
pictures (and the validation pictures, for altered copies). The test set is not used.
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
from train.evaluation.metrics import retrieval
from train.evaluation.search_quality import pictures_of
from train.evaluation.similarity import altered_copies, copy_search, group_search
from train.extras.shaping import shape
from train.recipe import BEST, Shaping, recipe_of


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="bundle of a whitened-resnet, plain or shaped")
    parser.add_argument("--data", type=Path, default=Path("../shared"))
    parser.add_argument("--likeness", type=int, nargs="+", help="dimensions of a new shape")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.8, 0.9, 1.0])
    parser.add_argument("--rows", type=int, help="rows that a new shape divides the maps into")
    options = parser.parse_args()
    environment.prepare()
    bundle = Bundle.load(options.bundle)
    recipe = recipe_of(bundle)
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
    print(" copies, mean | by alteration | all at once |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    _print("plain", 0.0, {name: last for name, (last, _, _) in parts.items()}, data)
    _print("class only", 0.0, {name: by_class for name, (_, by_class, _) in parts.items()}, data)
    for likeness in sorted(counts):
        for weight in options.weights:
            features = {
                name: torch.cat(
                    # The class part has the length 1 / shaping.weight.
                    [shaping.weight * by_class, weight * F.normalize(by_likeness[:, :likeness])],
                    1,
                )
                for name, (_, by_class, by_likeness) in parts.items()
            }
            _print(str(likeness), weight, features, data)


@torch.no_grad()
def _parts(
    network: WhitenedResNet, bundle: Bundle, pictures: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """Last features, class part, and likeness part before normalisation."""
    assert network.compress is not None and network.likeness is not None
    found = []
    stacked = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    for batch in stacked.split(500):  # type: ignore[no-untyped-call]
        with autocast(batch.device):
            last, pooled = network.pooled(bundle.preprocess.normalise(batch))
            by_class, by_likeness = network.compress(last), network.likeness(pooled)
        found.append((last.float(), by_class.float(), by_likeness.float()))
    last, by_class, by_likeness = (torch.cat(part) for part in zip(*found, strict=True))
    return last, by_class, by_likeness


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
