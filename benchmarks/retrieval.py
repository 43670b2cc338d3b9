"""Search quality of the embeddings of bundles: by class, finer labels and altered copies.

    python -m benchmarks.retrieval plain=embed/pretrained shipped=embed/pretrained \\
        --data ../shared --out retrieval.json

One column for each bundle at its full dimension, and one for each reduction by principal components
of the 50,000 training embeddings. The name ``plain`` removes the shape of the bundle's embedding.
``pixels`` instead of a bundle uses raw pixels, for comparison.

- class: mean average precision over the whole ranking and precision at 10, 10,000 test queries
  among the 50,000 training pictures, then 1,000 test queries (drawn with seed 0) among the other
  9,000 test pictures, which does not reward memorised training pictures;
- finer labels (``embed.cifar10_groups``): precision at 1 and 10, test queries among the training
  pictures, only those that have a finer label;
- altered copies (``train.evaluation.similarity.altered_copies``): the first 2,000 test pictures,
  searched for among all 60,000 by copies of them; the mean over five alterations, and all at once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embed.bundle import Bundle
from embed.corpus import ArrayCorpus, cifar10
from embed.encoder import Encoder
from embed.preprocess import CIFAR10_MEAN, CIFAR10_STD
from train.evaluation.metrics import retrieval
from train.evaluation.similarity import altered_copies, copy_search, group_search
from train.extras.shaping import unshaped

HELD_OUT, COPIES, SEED = 1_000, 2_000, 0
DIMENSIONS = (512, 256, 128, 64)


@dataclass(frozen=True)
class Truth:
    """Labels and groups int64 ``(n,)`` of both splits; groups are finer labels, -1 for none."""

    test_labels: np.ndarray
    train_labels: np.ndarray
    test_groups: np.ndarray
    train_groups: np.ndarray


def truth_of(corpus: ArrayCorpus) -> Truth:
    """The labels of CIFAR-10 and its finer labels, numbered within the classes."""
    names = sorted({(item.label, item.tags[0]) for item in corpus.items if item.tags})
    number = {name: i for i, name in enumerate(names)}

    def groups(split: str) -> np.ndarray:
        return np.array(
            [
                number[item.label, item.tags[0]] if item.tags else -1
                for item in corpus.items
                if item.split == split
            ]
        )

    labels = {split: labels for split, (_, labels) in corpus.splits.items()}
    return Truth(labels["test"], labels["train"], groups("test"), groups("train"))


def measure(
    test: np.ndarray, train: np.ndarray, truth: Truth, copies: dict[str, np.ndarray] | None = None
) -> dict[str, float]:
    """All metrics of one set of embeddings, by name, 0..1.

    Args:
        test: embeddings of the test pictures, float32 of length one ``(nq, d)``.
        train: embeddings of the training pictures, likewise ``(n, d)``.
        truth: their labels and groups.
        copies: by alteration, embeddings of altered copies of the first test pictures; None leaves
            the copies out.
    """
    metrics = {}
    whole = retrieval(test, truth.test_labels, train, truth.train_labels)
    metrics["class mAP"] = whole.mean_average_precision
    metrics["class precision@10"] = whole.precision_at[10]
    drawn = np.zeros(len(test), bool)
    count = min(HELD_OUT, len(test) // 10)
    drawn[np.random.default_rng(SEED).choice(len(test), count, replace=False)] = True
    labels = truth.test_labels
    held_out = retrieval(test[drawn], labels[drawn], test[~drawn], labels[~drawn])
    metrics["held-out class mAP"] = held_out.mean_average_precision
    metrics["held-out class precision@10"] = held_out.precision_at[10]
    fine = group_search(test, truth.test_groups, train, truth.train_groups)
    for k, precision in fine.precision_at.items():
        metrics[f"fine precision@{k}"] = precision
    if copies:
        rows = np.arange(len(next(iter(copies.values()))))
        found = copy_search(copies, np.concatenate([test, train]), rows)
        for name in ("mean", *copies):
            for k, recall in found.recall_at[name].items():
                metrics[f"copy recall@{k}, {name}"] = recall
    return metrics


def fit_pca(x: np.ndarray, dimension: int) -> Callable[[np.ndarray], np.ndarray]:
    """Fit principal components to ``x`` float32 ``(n, d)``.

    Returns:
        a function from ``(m, d)`` to ``(m, dimension)``, float32 of length one.

    Raises:
        ValueError: ``dimension`` is not in 1..d.
    """
    if not 1 <= dimension <= x.shape[1]:
        raise ValueError(f"dimension is {dimension}; expected 1 to {x.shape[1]}")
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = x - mean
    _, directions = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    kept = directions[:, ::-1][:, :dimension].astype(np.float32)

    def apply(x: np.ndarray) -> np.ndarray:
        y = (x - mean) @ kept
        return y / np.maximum(np.linalg.norm(y, axis=1, keepdims=True), 1e-12)

    return apply


def reduced(
    test: np.ndarray, train: np.ndarray, copies: dict[str, np.ndarray], dimension: int
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """All embeddings projected onto the first principal components of ``train``."""
    apply = fit_pca(train, dimension)
    return apply(test), apply(train), {name: apply(x) for name, x in copies.items()}


def pixels(pictures: np.ndarray) -> np.ndarray:
    """Pixels ``(n, 3072)`` of length one, each channel normalised as for a network."""
    x = pictures.astype(np.float32)
    x -= np.float32(255) * np.array(CIFAR10_MEAN, np.float32)
    x /= np.float32(255) * np.array(CIFAR10_STD, np.float32)
    x = x.reshape(len(pictures), -1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "bundles", nargs="+", metavar="NAME=FOLDER", help="a bundle, or the word pixels"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds CIFAR-10")
    parser.add_argument("--dimensions", type=int, nargs="*", default=list(DIMENSIONS))
    parser.add_argument("--test", type=int, default=10_000, help="number of test pictures")
    parser.add_argument("--train", type=int, default=50_000, help="number of training pictures")
    parser.add_argument("--out", type=Path, help="JSON file for the metrics")
    args = parser.parse_args()
    corpus = cifar10(args.data)
    whole, n, nq = truth_of(corpus), args.train, args.test
    truth = Truth(
        whole.test_labels[:nq],
        whole.train_labels[:n],
        whole.test_groups[:nq],
        whole.train_groups[:n],
    )
    test, train = corpus.splits["test"][0][:nq], corpus.splits["train"][0][:n]
    altered = altered_copies(test[:COPIES], SEED)
    results: dict[str, dict[str, float]] = {}
    for argument in args.bundles:
        name, _, folder = argument.partition("=")
        started = time.monotonic()
        if argument == "pixels":
            encode = pixels
        else:
            bundle = Bundle.load(Path(folder or name))
            encoder = Encoder(unshaped(bundle) if name == "plain" else bundle)
            encode = lambda pictures: encoder.encode(pictures).embeddings  # noqa: E731, B023
        xq, xb = encode(test), encode(train)
        copies = {kind: encode(pictures) for kind, pictures in altered.items()}
        full = xq.shape[1]
        results[f"{name} {full}"] = measure(xq, xb, truth, copies)
        for dimension in args.dimensions if argument != "pixels" else ():
            if dimension < full:
                parts = reduced(xq, xb, copies, dimension)
                results[f"{name} {dimension}"] = measure(parts[0], parts[1], truth, parts[2])
        print(f"{name}: {time.monotonic() - started:.0f} s")
    print(f"\n| | {' | '.join(results)} |\n|---|{'---|' * len(results)}")
    for row in next(iter(results.values())):
        print(f"| {row} | {' | '.join(f'{found[row]:.3f}' for found in results.values())} |")
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
