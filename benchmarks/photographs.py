"""Search among photographs: what each model finds, and what fits it best to them.

    python -m benchmarks.photographs FOLDER... --sheet sheet.png
    python -m benchmarks.photographs FOLDER... --bundle lite2=models/lite2 --resize squeeze
    python -m benchmarks.photographs FOLDER... --dimensions
    python -m benchmarks.photographs --defects FOLDER --good NAME
    python -m benchmarks.photographs FOLDER... --parity
    python -m benchmarks.photographs FOLDER --speed
    python -m benchmarks.photographs --cost

Each FOLDER holds a folder of photographs for each class. A stratified quarter of them, seed 0, is
searched for among the others by cosine. Models: raw pixels (32x32); the model that ships; the photo
encoder, each of ``--resize`` (``averaged``: the mean of three square crops along the longer side,
at three times the cost); bundles. ``fitted`` is the embedding fitted to the gallery, as a store
does it.

Printed: precision at 1 and 5 and mean average precision by class; the share of gallery pictures
found first by altered copies of them (``benchmarks.picture_sets.ALTERATIONS``); pictures a second,
decoded and embedded. Other options:

- ``--sheet``: a contact sheet of queries and their neighbours, the model that ships and the fitted
  photo encoder;
- ``--dimensions``: what the photo encoder's embedding can be reduced to, and at what cost;
- ``--defects``: AUROC of a picture's distance to the nearest picture of a good part;
- ``--parity``, ``--speed``, ``--cost``: see ``benchmarks.photo_runtime``.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from benchmarks.photo_runtime import PARITY, cost, parity, speed
from benchmarks.picture_sets import ALTERATIONS, PictureSet, altered, contact_sheet, picture_set
from benchmarks.retrieval import pixels
from embed.architecture import Backbone
from embed.bundle import PRETRAINED, Bundle
from embed.corpus import Corpus, FolderCorpus, Item
from embed.encoder import Encoder
from embed.imported.fitting import PICTURES, fit_embedding
from embed.imported.importing import import_model
from embed.imported.photo_encoder import RESIZE, SOURCE
from embed.pictures import RGB
from embed.preprocess import Preprocess, Resize
from index.ann.exact import ExactIndex
from search_api.service.corpus_sync import batches
from train import environment
from train.evaluation.metrics import retrieval
from train.evaluation.similarity import copy_search, group_search, nearest

Features = NDArray[np.float32]
Transform = Callable[[Features], Features]

SEED = 0
DIMENSIONS = (32, 64, 128, 256, 384)
MODES = (*get_args(Resize), "averaged")


class Model(Protocol):
    """What makes features of pictures."""

    bundle: Bundle | None

    def read(self, corpus: Corpus, source: str) -> RGB:
        """A picture of the corpus, prepared; raises PictureError if it cannot be read."""

    def prepare(self, picture: RGB) -> RGB:
        """What is kept of a picture until a batch is complete."""

    def features(self, prepared: Sequence[RGB]) -> Features:
        """Features ``(n, d)`` of prepared pictures, of any length."""


class Pixels:
    """The pixels of pictures scaled to 32x32."""

    bundle: Bundle | None = None

    def read(self, corpus: Corpus, source: str) -> RGB:
        return corpus.read(source, Preprocess())

    def prepare(self, picture: RGB) -> RGB:
        return Preprocess().fit(picture)

    def features(self, prepared: Sequence[RGB]) -> Features:
        found: Features = pixels(np.stack(prepared))
        return found


class Network:
    """A bundle as it is served."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.bundle: Bundle | None = bundle
        self.encoder = Encoder(bundle, threads=threads)

    def read(self, corpus: Corpus, source: str) -> RGB:
        return corpus.read(source, self.encoder.preprocess)

    def prepare(self, picture: RGB) -> RGB:
        return self.encoder.fit(picture)

    def features(self, prepared: Sequence[RGB]) -> Features:
        return self.encoder.raw(prepared).features


class Averaged(Network):
    """A bundle applied to three square crops along the longer side of each picture."""

    def read(self, corpus: Corpus, source: str) -> RGB:
        return self.prepare(corpus.read(source, self.encoder.preprocess.decoded_side))

    def prepare(self, picture: RGB) -> RGB:
        image, side = Image.fromarray(picture, "RGB"), self.encoder.preprocess.input_size
        size = side, side
        method = Image.Resampling.BICUBIC
        crops = [ImageOps.fit(image, size, method, centering=(x, x)) for x in (0, 0.5, 1)]
        return np.stack([np.asarray(crop) for crop in crops])

    def features(self, prepared: Sequence[RGB]) -> Features:
        crops = [crop for picture in prepared for crop in picture]
        found = unit(super().features(crops)).reshape(len(prepared), 3, -1)
        mean: Features = found.mean(axis=1)
        return mean


@dataclass(frozen=True)
class Seen:
    """What a model makes of a set: features of queries, gallery and copies by alteration."""

    xq: Features
    xb: Features
    copies: dict[str, Features]
    per_second: float = float("nan")

    def map(self, transform: Transform) -> Seen:
        copies = {name: transform(x) for name, x in self.copies.items()}
        return Seen(transform(self.xq), transform(self.xb), copies, self.per_second)


def unit(x: Features) -> Features:
    """The rows at length one; rows of zeros stay."""
    rows: Features = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return rows


def fitted(bundle: Bundle, xb: Features) -> Transform:
    """What fitting the bundle's embedding to a gallery's features does to features."""
    weights = fit_embedding(bundle, xb[:PICTURES]).weights
    centre, axes = weights.get("centre"), weights.get("projection.weight")

    def apply(x: Features) -> Features:
        x = unit(x)
        x = x if centre is None else x - centre
        return unit(x if axes is None else x @ axes.T)

    return apply


def features_of(model: Model, corpus: Corpus, items: Sequence[Item]) -> Features:
    """Features of files, read and decoded as a build of an index reads them.

    Raises:
        PictureError: one cannot be read.
    """

    def read(item: Item) -> RGB | str:
        return model.read(corpus, item.source)

    found = [
        model.features([picture for _, picture in batch if not isinstance(picture, str)])
        for batch in batches(items, read)
    ]
    return np.concatenate(found)


def see(models: dict[str, Model], pictures: PictureSet, copies: int) -> dict[str, Seen]:
    """Features of a set and of altered copies of the first ``copies`` pictures of its gallery."""
    whole, speeds = {}, {}
    for name, model in models.items():
        started = time.perf_counter()
        whole[name] = features_of(model, pictures.corpus, pictures.items)
        speeds[name] = len(pictures.items) / (time.perf_counter() - started)
    by: dict[str, dict[str, list[Features]]] = {n: {a: [] for a in ALTERATIONS} for n in models}
    for start in range(0, min(copies, len(pictures.gallery)), 25):
        # Pictures are altered once for all models.
        made = [
            altered(pictures.corpus.read(item.source), SEED + start + i)
            for i, item in enumerate(pictures.gallery[start : min(start + 25, copies)])
        ]
        for name, model in models.items():
            for alteration in ALTERATIONS:
                prepared = [model.prepare(copy[alteration]) for copy in made]
                by[name][alteration].append(model.features(prepared))
    n = len(pictures.queries)
    return {
        name: Seen(
            x[:n],
            x[n:],
            {a: np.concatenate(parts) for a, parts in by[name].items() if parts},
            speeds[name],
        )
        for name, x in whole.items()
    }


def measure(seen: Seen, labels: tuple[NDArray[np.int64], NDArray[np.int64]]) -> dict[str, float]:
    """Precision, mean average precision and recall of copies, 0..1, by name of the column."""
    yq, yb = labels
    seen = seen.map(unit)
    precision = group_search(seen.xq, yq, seen.xb, yb, (1, 5)).precision_at
    found = {
        "P@1": precision[1],
        "P@5": precision[5],
        "mAP": retrieval(seen.xq, yq, seen.xb, yb).mean_average_precision,
    }
    if seen.copies:
        rows = np.arange(len(next(iter(seen.copies.values()))))
        recall = copy_search(seen.copies, seen.xb, rows, (1,)).recall_at
        found["copies"] = recall["mean"][1]
        found |= {alteration: recall[alteration][1] for alteration in seen.copies}
    return found


def models_of(modes: Sequence[str], bundles: dict[str, Path], threads: int) -> dict[str, Model]:
    """The models to compare, by name."""
    models: dict[str, Model] = {"pixels": Pixels()}
    models["ships"] = Network(Bundle.load(PRETRAINED), threads)
    for mode in modes:
        if mode == "averaged":
            whole = import_model(SOURCE, resize="fit")
            models["photo, averaged"] = Averaged(whole, threads)
        else:
            models[f"photo, {mode}"] = Network(import_model(SOURCE, resize=mode), threads)  # type: ignore[arg-type]
    for name, folder in bundles.items():
        models[name] = Network(Bundle.load(folder), threads)
    return models


def compare(
    folders: Sequence[Path],
    models: dict[str, Model],
    most: int,
    copies: int,
    sheet: Path | None,
) -> None:
    """Print a table for each set and one of their means; write contact sheets."""
    tables = []
    for folder in folders:
        pictures = picture_set(folder, most, SEED)
        _print_set(pictures)
        table, embeddings = {}, {}
        for name, seen in see(models, pictures, copies).items():
            bundle = models[name].bundle
            table[name] = measure(seen, pictures.labels) | {"pictures/s": seen.per_second}
            embeddings[name] = seen.map(unit)
            if bundle and isinstance(bundle.architecture, Backbone) and not _is_fitted(bundle):
                fit = seen.map(fitted(bundle, seen.xb))
                table[f"{name}, fitted"] = measure(fit, pictures.labels)
                embeddings[f"{name}, fitted"] = fit
        print_table(table)
        tables.append(table)
        if sheet is not None:
            path = sheet
            if len(folders) > 1:
                path = sheet.with_name(f"{sheet.stem}-{pictures.name}{sheet.suffix}")
            shown = {n: embeddings[n] for n in ("ships", f"photo, {RESIZE}, fitted")}
            rng = np.random.default_rng(SEED)
            rows = rng.choice(len(pictures.queries), 6, replace=False)
            found = {name: nearest(x.xq[rows], x.xb, 8)[1] for name, x in shown.items()}
            contact_sheet(pictures, rows.tolist(), found, path)
            print(f"\ncontact sheet: {path}")
    if len(tables) > 1:
        print(f"\nmean of {len(tables)} sets")
        print_table(_mean(tables))


def dimensions(folders: Sequence[Path], most: int, copies: int, threads: int) -> None:
    """Print what reductions of the photo encoder's embedding cost and bring, mean of the sets."""
    model = Network(import_model(SOURCE, resize=RESIZE), threads)
    tables = []
    for folder in folders:
        pictures = picture_set(folder, most, SEED)
        _print_set(pictures)
        seen = see({"photo": model}, pictures, copies)["photo"].map(unit)
        table = {}
        for name, transform in reductions(seen.xb).items():
            reduced = seen.map(transform)
            d = reduced.xb.shape[1]
            table[name] = {"d": d, **measure(reduced, pictures.labels), "bytes": 4 * d}
        print_table(table)
        tables.append(table)
    means = _mean(tables)
    for row in means.values():
        row["search, ms"] = _search_time(int(row["d"]))
    print(f"\nmean of {len(tables)} sets; search: one query, exact, among 60,000")
    print_table(means)


def reductions(xb: Features) -> dict[str, Transform]:
    """Ways to reduce features of length one, fitted to those of a gallery ``(n, d)``, by name."""
    mean = xb.mean(axis=0)
    found: dict[str, Transform] = {"plain": unit, "centred": lambda x: unit(x - mean)}
    for d, whiten in [*((d, False) for d in DIMENSIONS), (256, True)]:
        if d < min(xb.shape):
            pca = PCA(d, whiten=whiten, svd_solver="full").fit(xb)
            name = f"{'whitened' if whiten else 'PCA'} {d}"
            found[name] = lambda x, pca=pca: unit(pca.transform(x))  # type: ignore[misc]
    return found


def defects(folder: Path, good: str, most: int, modes: Sequence[str], threads: int) -> None:
    """Print how well the distance to the nearest good part tells defects, by resize mode."""
    corpus = FolderCorpus(folder)
    items = [item for item in corpus.items if item.label is not None]
    rng = np.random.default_rng(SEED)
    items = [items[i] for i in rng.permutation(len(items))[:most]]
    labels = np.array([item.label for item in items])
    if good not in labels or (labels == good).all():
        raise SystemExit(f"--good is {good!r}; expected one of {sorted(set(labels.tolist()))}")
    print(f"\n{folder.name}: {(labels == good).sum():,} good parts of {len(labels):,}")
    table = {}
    for mode in modes:
        model = models_of([mode], {}, threads)[f"photo, {mode}"]
        assert model.bundle is not None
        features = unit(features_of(model, corpus, items))
        table[mode] = nearest_good(features, labels == good, model.bundle)
    print_table(table)


def nearest_good(features: Features, good: NDArray[np.bool_], bundle: Bundle) -> dict[str, float]:
    """AUROC of the distance to the nearest of 70 % of the good parts, mean of three draws.

    Args:
        features: of all pictures, of length one ``(n, d)``.
        good: which of them show good parts ``(n,)``.
        bundle: that made them, for the fitted embedding.
    """
    found: dict[str, list[float]] = {"plain": [], "centred": [], "fitted": []}
    for seed in range(3):
        parts = np.random.default_rng(seed).permutation(np.flatnonzero(good))
        known, held_out = np.split(parts, [round(0.7 * len(parts))])
        asked = np.concatenate([held_out, np.flatnonzero(~good)])
        mean = features[known].mean(axis=0)
        ways: dict[str, Transform] = {
            "plain": unit,
            "centred": lambda x, mean=mean: unit(x - mean),  # type: ignore[misc]
            "fitted": fitted(bundle, features[known]),
        }
        for name, way in ways.items():
            scores, _ = nearest(way(features[asked]), way(features[known]), 1)
            found[name].append(float(roc_auc_score(~good[asked], -scores[:, 0])))
    return {name: float(np.mean(values)) for name, values in found.items()}


def print_table(table: dict[str, dict[str, Any]]) -> None:
    """Print rows by name as a Markdown table; what a row lacks stays empty."""
    columns = list(dict.fromkeys(itertools.chain.from_iterable(table.values())))
    print(f"\n| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, row in table.items():
        print(f"| {name} | {' | '.join(_cell(row.get(column)) for column in columns)} |")
    print(flush=True)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}"


def _mean(tables: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The mean over tables of each cell that all of them have."""
    rows = [name for name in tables[0] if all(name in table for table in tables)]
    return {
        name: {
            column: statistics.fmean(table[name][column] for table in tables)
            for column in tables[0][name]
        }
        for name in rows
    }


def _is_fitted(bundle: Bundle) -> bool:
    return isinstance(bundle.architecture, Backbone) and bundle.architecture.centred


def _search_time(d: int, n: int = 60_000) -> float:
    """Median milliseconds of one exact search of ten among ``n`` random vectors."""
    rng = np.random.default_rng(SEED)
    index = ExactIndex(d)
    index.add(np.arange(n), unit(rng.standard_normal((n, d), dtype=np.float32)))
    times = []
    for _ in range(50):
        xq = unit(rng.standard_normal((1, d), dtype=np.float32))
        started = time.perf_counter()
        index.search(xq, 10)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def _print_set(pictures: PictureSet) -> None:
    classes = len({item.label for item in pictures.items})
    print(
        f"\n## {pictures.name}: {len(pictures.queries):,} queries,"
        f" {len(pictures.gallery):,} pictures searched, {classes} classes"
    )
    if pictures.too_few:
        print(f"left out, too few pictures: {pictures.too_few}")


def _named(argument: str) -> tuple[str, Path]:
    name, equals, folder = argument.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{argument!r} is not NAME=FOLDER")
    return name, Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--bundle", type=_named, action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--resize", nargs="*", choices=MODES, default=list(MODES))
    parser.add_argument("--pictures", type=int, default=1200, help="of each set, at most")
    parser.add_argument("--copies", type=int, default=150, help="pictures altered, of each set")
    parser.add_argument("--sheet", type=Path, help="PNG to write; the set's name is added")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="of --speed and --cost")
    parser.add_argument("--dimensions", action="store_true")
    parser.add_argument("--defects", type=Path, metavar="FOLDER")
    parser.add_argument("--good", default="good", help="folder of --defects with good parts")
    parser.add_argument("--parity", nargs="*", metavar="SOURCE", help=f"default: {PARITY}")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--cost", nargs="*", metavar="SOURCE", help="default: the suggestions")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    about = environment.describe("cpu")
    print(
        f"{about['device']}, {args.threads} threads, torch {about['torch']}, seed {SEED},", end=""
    )
    print(f" revision {about['revision']}")
    if args.sheet is not None and RESIZE not in args.resize:
        parser.error(f"--sheet shows the photo encoder; add {RESIZE} to --resize")
    if args.cost is not None:
        rows = {}
        for name, row in cost(args.cost, args.threads, args.rounds):
            rows[name] = row
            print(f"{name}: {row['pictures/s']:.1f} pictures/s", flush=True)
        print_table(rows)
    elif args.defects is not None:
        defects(args.defects, args.good, args.pictures, args.resize, args.threads)
    elif not args.folders:
        parser.error("name at least one FOLDER of class folders")
    elif args.parity is not None:
        for folder in args.folders:
            pictures = picture_set(folder, args.pictures, SEED)
            _print_set(pictures)
            for source, table in parity(pictures, args.parity or PARITY, args.threads):
                print(f"\n{source}")
                print_table(table)
    elif args.speed:
        for folder in args.folders:
            pictures = picture_set(folder, args.pictures, SEED)
            _print_set(pictures)
            print_table(speed(pictures, args.threads, args.rounds))
    elif args.dimensions:
        dimensions(args.folders, args.pictures, args.copies, args.threads)
    else:
        models = models_of(args.resize, dict(args.bundle), args.threads)
        for name, model in models.items():
            if isinstance(model, Network) and model.bundle is not None:
                print(f"{name}: {model.bundle.digest}, {model.encoder.precision}")
        compare(args.folders, models, args.pictures, args.copies, args.sheet)


if __name__ == "__main__":
    main()
