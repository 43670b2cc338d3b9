"""Averages of a model's weights before and after further training, on the validation split.

    python -m benchmarks.averaging embed/pretrained runs/taught/plain --data ../shared

For each weight of the new model: accuracy on the validation pictures, on their mirror images and on
both together, and the loss over both with a fitted temperature; in bfloat16, without the test set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from embed.bundle import Bundle
from embed.corpus import open_corpus
from embed.resnet import build
from train import environment
from train.data import load_dataset
from train.extras.shaping import plain_weights
from train.extras.teacher import average_weights
from train.loop import fit_temperature, predict
from train.recipe import recipe_of


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="the bundle that the run started from")
    parser.add_argument("new", type=Path, help="the plain bundle of the run, with average 1")
    parser.add_argument("--data", type=Path, default=Path("../shared"))
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.25, 0.5, 0.75, 1])
    options = parser.parse_args()
    environment.prepare()
    old, new = Bundle.load(options.old), Bundle.load(options.new)
    recipe = recipe_of(new)
    data = load_dataset(open_corpus(options.data), recipe.size, recipe.validation, recipe.seed)
    pictures, labels = data.validation.pictures, data.validation.labels
    network = build(new.architecture).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    print("| share | accuracy | mirrored | both | loss |\n|---|---|---|---|---|")
    for share in options.shares:
        network.load_state_dict(average_weights(plain_weights(new), plain_weights(old), share))
        views = [predict(network, new.preprocess, x) for x in (pictures, pictures.flip(-1))]
        both = sum(logits.softmax(1) for logits in views)
        right = [(found.argmax(1) == labels).float().mean() for found in (*views, both)]
        logits, twice = torch.cat(views), labels.repeat(2)
        loss = F.cross_entropy(logits / fit_temperature(logits, twice), twice)
        print(f"| {share} | {' | '.join(f'{r:.1%}' for r in right)} | {loss:.3f} |", flush=True)


if __name__ == "__main__":
    main()
