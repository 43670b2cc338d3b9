"""Fine-tuning a trained model on other pictures, compared with training from scratch.

    git clone https://github.com/ardamavi/Sign-Language-Digits-Dataset hands
    git clone https://github.com/Charmve/Surface-Defect-Detection surfaces
    git clone https://github.com/Shenggan/BCCD_Dataset blood
    git clone https://github.com/martinwestin/flower_classification flowers
    git clone https://github.com/Keunyoung-Jung/my_first_DL things
    python -m benchmarks.finetune hands --source hands --seeds 0 1 2
    python -m benchmarks.finetune tiles --source surfaces --seeds 0 1 2 --size 64
    python -m benchmarks.finetune blood --source blood --seeds 0 1 2
    python -m benchmarks.finetune flowers --source flowers --seeds 0 1 2 --per-class 100
    python -m benchmarks.finetune things --source things --seeds 0 1 2 --per-class 50

- ``hands``: 2,062 photographs of hands that show a digit, 100 x 100, ten classes of equal size, one
  sub-folder for each (Mavi 2020, arXiv:2011.08927). Split by picture, so other pictures of the same
  person may be in the training set.
- ``tiles``: 1,344 pictures of magnetic tiles, with five kinds of defect or none; 952 in the largest
  class, 32 in the smallest (Huang et al. 2018, "Surface defect saliency of magnetic tile").
- ``blood``: 4,888 blood cells cropped from BCCD's pictures along its boxes; three classes, 85 % red
  cells; a CSV table with BCCD's own split.
- ``flowers``: 4,317 photographs of five kinds of flower, 128 x 128, from photo sites ("Flowers
  Recognition" by A. Mamaev on Kaggle).
- ``things``: 6,906 photographs of eight kinds of objects; airplanes, cars, cats and dogs are also
  classes of CIFAR-10 (Roy et al. 2018, arXiv:1807.10108, "natural images").

Each seed draws another split (except for ``blood``), order and, from scratch, weights. Variants
use the recipe ``finetune`` with the change in their name. Accuracy is on the test split, single
view, mean and sample deviation over the seeds; balanced accuracy is the mean over the classes.
Minutes are for training without evaluation.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import shutil
import statistics
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import torch
from PIL import Image

from embed.corpus import open_corpus
from train import environment
from train.data import Dataset, load_dataset
from train.loop import predict, train
from train.recipe import Recipe, read_recipe


def hands(source: Path, out: Path) -> Path:
    return _subfolders(source / "Dataset", out)


def flowers(source: Path, out: Path) -> Path:
    return _subfolders(source / "flowers", out)


def things(source: Path, out: Path) -> Path:
    return _subfolders(source / "natural_images", out)


def _subfolders(source: Path, out: Path) -> Path:
    for picture in sorted(source.glob("*/*")):
        if picture.suffix.lower() == ".jpg":
            _copy(picture, out / picture.parent.name / picture.name)
    return out


def tiles(source: Path, out: Path) -> Path:
    # The PNG files next to the pictures are masks of the defects.
    for picture in sorted((source / "Magnetic-Tile-Defect").glob("MT_*/Imgs/*.jpg")):
        label = picture.parts[-3].removeprefix("MT_").lower()
        _copy(picture, out / label / picture.name)
    return out


def blood(source: Path, out: Path) -> Path:
    root, rows = source / "BCCD", []
    for split in ("train", "val", "test"):
        for name in (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
            found = ElementTree.parse(root / "Annotations" / f"{name}.xml")
            with Image.open(root / "JPEGImages" / f"{name}.jpg") as picture:
                for number, cell in enumerate(found.iter("object")):
                    corners = ("xmin", "ymin", "xmax", "ymax")
                    box = [int(cell.findtext(f"bndbox/{corner}", "0")) for corner in corners]
                    if box[2] > box[0] and box[3] > box[1]:
                        file = f"{name}-{number:02}.png"
                        picture.crop(box).convert("RGB").save(out / file)
                        rows.append((file, cell.findtext("name"), split))
    with (out / "cells.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "split"), *rows])
    return out / "cells.csv"


SETS = {"hands": hands, "tiles": tiles, "blood": blood, "flowers": flowers, "things": things}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def variants(recipe: Recipe) -> dict[str, Recipe]:
    scratch = dataclasses.replace(recipe, init=None)
    return {
        "fine-tuned": recipe,
        "fine-tuned, unweighted": dataclasses.replace(recipe, class_balance=0.0),
        "new classifier alone": dataclasses.replace(recipe, epochs=1, old_rate=0.0),
        "from scratch": scratch,
        "from scratch, 3 x the epochs": dataclasses.replace(scratch, epochs=3 * recipe.epochs),
    }


def few(data: Dataset, per_class: int) -> Dataset:
    """The data with at most ``per_class`` training pictures of each class."""
    labels = data.train.labels
    seen = torch.nn.functional.one_hot(labels).cumsum(0)[torch.arange(len(labels)), labels]
    return dataclasses.replace(data, train=data.train[seen <= per_class])


def measure(recipe: Recipe, data: Dataset) -> tuple[float, float, float]:
    """Accuracy, balanced accuracy and minutes of one run."""
    assert data.test is not None
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        bundle = train(recipe, data, Path(folder))
        minutes = (time.monotonic() - started) / 60
    logits = predict(bundle.network(), bundle.preprocess, data.test.pictures)
    correct = logits.argmax(1).eq(data.test.labels)
    by_class = [correct[data.test.labels == i].float().mean() for i in data.test.labels.unique()]
    return float(correct.float().mean()), float(torch.stack(by_class).mean()), minutes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--source", type=Path, required=True, help="checkout of the repository")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--recipe", default="finetune")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--old-rate", type=float)
    parser.add_argument(
        "--per-class", type=int, help="maximum number of training pictures of each class"
    )
    parser.add_argument("--only", nargs="*", help="names of variants; default: all")
    args = parser.parse_args()
    environment.prepare()
    recipe = dataclasses.replace(read_recipe(args.recipe), size=args.size)
    if args.epochs:
        recipe = dataclasses.replace(recipe, epochs=args.epochs)
    if args.old_rate is not None:
        recipe = dataclasses.replace(recipe, old_rate=args.old_rate)
    chosen = {k: v for k, v in variants(recipe).items() if not args.only or k in args.only}
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory() as folder:
        corpus = open_corpus(SETS[args.set](args.source, Path(folder)))
        for seed in args.seeds:
            data = load_dataset(corpus, args.size, recipe.validation, seed, test=recipe.test)
            if args.per_class:
                data = few(data, args.per_class)
            if seed == args.seeds[0]:
                counts = ", ".join(
                    f"{name} {count}"
                    for name, count in zip(data.classes, data.train.labels.bincount(), strict=True)
                )
                print(
                    f"{args.set} at {args.size} pixels: {len(data.train):,} for training"
                    f" ({counts}), {len(data.validation):,} for validation,"
                    f" {len(data.test or ()):,} for testing, {len(data.skipped)} unreadable;"
                    f" {torch.get_num_threads()} threads, torch {torch.__version__}"
                )
            for name, variant in chosen.items():
                found[name].append(measure(dataclasses.replace(variant, seed=seed), data))
                print(seed, name, *(f"{value:.4f}" for value in found[name][-1]), flush=True)
    print("\n| | accuracy | balanced | minutes |\n|---|---|---|---|")
    for name, runs in found.items():
        cells = []
        for column, form in ((0, ".2%"), (1, ".2%"), (2, ".1f")):
            values = [run[column] for run in runs]
            spread = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):{form}}{spread}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
