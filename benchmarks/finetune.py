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

With ``--photo-encoder``, the recipes ``probe`` and ``finetune`` of the photo encoder instead, with
that many labelled pictures, and the probe next to the best logistic regression of a grid that
scikit-learn finds on the same embeddings:

    git clone https://github.com/zxaoyou/segmentation_WBC cells
    git clone https://github.com/muhammedtalo/COVID-19 xrays
    python -m benchmarks.finetune flowers --source flowers --photo-encoder 500
    python -m benchmarks.finetune things --source things --photo-encoder 500
    python -m benchmarks.finetune cells --source cells --photo-encoder 200
    python -m benchmarks.finetune xrays --source xrays --photo-encoder 500

``--folder`` only writes a set as a folder, for ``lookalike train --data``.

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
- ``cells``: 300 white blood cells of five kinds, 120 x 120, 176 of one kind and 1 of another, which
  is too few to be learnt (Zheng et al. 2018, doi:10.1016/j.micron.2018.01.010, data set 1).
- ``xrays``: 1,125 X-rays of the chest, three classes from different sources (Ozturk et al. 2020,
  doi:10.1016/j.compbiomed.2020.103792).

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

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from embed.bundle import Bundle
from embed.corpus import Corpus, open_corpus
from embed.encoder import Encoder
from train import environment
from train.checkpoint import Epoch
from train.choice import choose_recipe, read_init
from train.data import Dataset, Split, load_dataset
from train.evaluation.metrics import calibration
from train.evaluation.search_quality import pictures_of
from train.evaluation.similarity import Integers, Vectors
from train.extras.probe import embed, learnable
from train.imported import embeddings
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


def cells(source: Path, out: Path) -> Path:
    names = dict(enumerate(("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"), 1))
    with (source / "Class Labels of Dataset 1.csv").open(newline="") as file:
        for number, kind in list(csv.reader(file))[1:]:
            name = f"{int(number):03}.bmp"
            _copy(source / "Dataset 1" / name, out / names[int(kind)] / name)
    return out


def xrays(source: Path, out: Path) -> Path:
    for picture in sorted((source / "X-Ray Image DataSet").glob("*/*")):
        _copy(picture, out / picture.parent.name / picture.name)
    return out


SETS = {
    "hands": hands,
    "tiles": tiles,
    "blood": blood,
    "flowers": flowers,
    "things": things,
    "cells": cells,
    "xrays": xrays,
}
GRID = [10.0**k for k in range(-3, 4)]
"""Inverse strengths of the regularisation that scikit-learn chooses from."""


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


class Labelled:
    """A corpus of which some pictures are labelled, some are for the test, and the rest unused."""

    notice = None

    def __init__(self, corpus: Corpus, labelled: int, tested: int, seed: int) -> None:
        items = [item for item in corpus.items if item.label is not None]
        order = np.random.default_rng(seed).permutation(len(items)).tolist()
        held_out = order[labelled : labelled + tested]
        splits = {**dict.fromkeys(order[:labelled], None), **dict.fromkeys(held_out, "test")}
        self.items = tuple(
            dataclasses.replace(items[i], split=split) for i, split in sorted(splits.items())
        )
        self.name, self.read = corpus.name, corpus.read


def best_of_grid(x: Vectors, y: Integers, xq: Vectors, yq: Integers) -> tuple[float, float]:
    """Test accuracy of scikit-learn's logistic regression: chosen by cross-validation, and best."""
    found = []
    for model in (
        make_pipeline(LogisticRegression(max_iter=2000)),
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
    ):
        divide = StratifiedKFold(5, shuffle=True, random_state=0)
        search = GridSearchCV(model, {"logisticregression__C": GRID}, cv=divide).fit(x, y)
        for c in GRID:
            fitted = model.set_params(logisticregression__C=c).fit(x, y)
            found.append((c, float(fitted.score(xq, yq))))
        chosen = float(search.score(xq, yq))
        print(
            f"  scikit-learn {model[0].__class__.__name__}: chosen C"
            f" {search.best_params_['logisticregression__C']:g}, cross-validated"
            f" {search.best_score_:.4f}, test {chosen:.4f}"
        )
        found.append((0.0, chosen))
    by_choice = max(score for c, score in found if c == 0.0)
    return by_choice, max(score for _, score in found)


def raw_pixels(data: Dataset) -> float:
    """Test accuracy of a classifier of the pictures themselves, as 16 x 16 pixels."""

    def vectors(split: Split) -> Vectors:
        small = torch.nn.functional.adaptive_avg_pool2d(split.pictures.float(), 16).flatten(1)
        found: Vectors = (small / 255 - 0.5).numpy()
        return found

    assert data.test is not None
    x = np.concatenate([vectors(data.train), vectors(data.validation)])
    y = torch.cat([data.train.labels, data.validation.labels]).numpy()
    search = GridSearchCV(LogisticRegression(max_iter=500), {"C": GRID[:5]}, cv=5).fit(x, y)
    return float(search.score(vectors(data.test), data.test.labels.numpy()))


@dataclasses.dataclass(frozen=True)
class Measured:
    """A trained model on the test pictures; ``cpu`` is minutes of one core."""

    accuracy: float
    ece: float
    minutes: float
    cpu: float


def show(epoch: Epoch) -> None:
    accuracy, loss = epoch.validation_accuracy, epoch.validation_loss
    print(f"  epoch {epoch.epoch + 1}: validation {accuracy:.4f}, loss {loss:.4f}", flush=True)


def imported(name: str, init: str, corpus: Corpus, seed: int) -> tuple[Measured, Bundle, Dataset]:
    """Train from the files to the bundle with a recipe for imported networks, and test."""
    started, busy = time.monotonic(), time.process_time()
    recipe = choose_recipe(name, True, {"init": init, "seed": seed})
    bundle = read_init(recipe.init)
    assert bundle is not None
    data = load_dataset(corpus, bundle.preprocess, recipe.validation, seed)
    data, _ = learnable(data, validation=recipe.layers == "classifier")
    with tempfile.TemporaryDirectory() as folder:
        bundle = train(recipe, data, Path(folder), report=show)
    minutes = (time.monotonic() - started) / 60, (time.process_time() - busy) / 60
    assert data.test is not None
    probabilities = Encoder(bundle).encode(pictures_of(data.test)).probabilities
    correct = probabilities.argmax(1) == data.test.labels.numpy()
    error = calibration(probabilities.max(1), correct).error
    return Measured(float(correct.mean()), error, *minutes), bundle, data


def photo_encoder(args: argparse.Namespace, corpus: Corpus) -> None:
    rows = []
    for seed in args.seeds:
        chosen = Labelled(corpus, args.photo_encoder, args.tested, seed)
        probe, bundle, data = imported("probe", args.init, chosen, seed)
        assert data.test is not None
        features = embed(bundle, [data.train, data.validation])
        test = embed(bundle, [data.test])
        by_choice, best = best_of_grid(
            embeddings(bundle, features.values),
            features.labels,
            embeddings(bundle, test.values),
            test.labels,
        )
        print(
            f"{args.set}, seed {seed}: {len(features.labels)} labelled of {len(data.classes)}"
            f" classes, {len(test.labels)} tested, {features.values.shape[1]} features,"
            f" {bundle.weights['head.weight'].shape[1]} dimensions"
        )
        pixels = raw_pixels(data)
        print(
            f"  probe {probe}\n  scikit-learn chosen {by_choice:.4f}, best {best:.4f}; raw pixels"
            f" {pixels:.4f}",
            flush=True,
        )
        row = [pixels, probe.accuracy, by_choice, best, probe.ece, probe.minutes, probe.cpu]
        if not args.only_probe:
            tuned, bundle, _ = imported("finetune", args.init, chosen, seed)
            print(f"  fine-tuned {tuned} {bundle.metrics['fine_tuning']}", flush=True)
            row += [tuned.accuracy, tuned.ece, tuned.minutes, tuned.cpu]
        rows.append(row)
    columns = [
        "raw pixels",
        "probe",
        "scikit-learn, by cross-validation",
        "its best on the test",
        "probe's ECE",
        "minutes",
        "CPU minutes",
        "fine-tuned",
        "its ECE",
        "minutes",
        "CPU minutes",
    ]
    print(f"\n| {' | '.join(columns[: len(rows[0])])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(f'{value:.4f}' for value in row)} |")


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
    parser.add_argument(
        "--photo-encoder", type=int, metavar="N", help="train on top of it with N labelled pictures"
    )
    parser.add_argument("--init", default="photo-encoder", help="another imported network")
    parser.add_argument(
        "--tested", type=int, default=1000, help="test it on at most this many of the others"
    )
    parser.add_argument("--only-probe", action="store_true", help="without fine-tuning")
    parser.add_argument("--folder", type=Path, help="only write the set's pictures to this folder")
    args = parser.parse_args()
    if args.folder:
        print(SETS[args.set](args.source, args.folder))
        return
    environment.prepare()
    if args.photo_encoder:
        with tempfile.TemporaryDirectory() as folder:
            photo_encoder(args, open_corpus(SETS[args.set](args.source, Path(folder))))
        return
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
