"""What is found by the embeddings of bundles: the class, finer groups, altered copies.

    python -m benchmarks.retrieval plain=embed/pretrained shipped=embed/pretrained \\
        --data ../shared --out retrieval.json

One column for each bundle, at its own dimension and reduced by principal components of the 50,000
training embeddings; under the name ``plain`` without the shape of its embedding, its last features
as they are. ``pixels`` in place of a bundle takes the pixels themselves, for scale.

- class: mean average precision over the whole ranking and precision at 10, 10,000 test queries
  among the 50,000 training pictures, then 1,000 test queries (drawn with seed 0) among the other
  9,000 test pictures, which does not reward training pictures learned by heart;
- fine groups (``embed.cifar10_groups``): precision at 1 and 10, test queries among the training
  pictures, those that have a group only;
- altered copies (``train.similarity.altered_copies``): the first 2,000 test pictures, searched for
  among all 60,000 by copies of them; the mean over five ways of altering, and all five at once.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embed.bundle import Bundle
from embed.corpus import ArrayCorpus, cifar10
from embed.encoder import Encoder
from embed.preprocess import CIFAR10_MEAN, CIFAR10_STD
from train.measures import retrieval
from train.shaping import unshaped
from train.similarity import altered_copies, copy_search, group_search, reduce

HELD_OUT, COPIES, SEED = 1_000, 2_000, 0
DIMENSIONS = (512, 256, 128, 64)


@dataclass(frozen=True)
class Truth:
    """Labels and groups int64 ``(n,)`` of both splits; groups are -1 where there is none."""

    test_labels: np.ndarray
    train_labels: np.ndarray
    test_groups: np.ndarray
    train_groups: np.ndarray


def truth_of(corpus: ArrayCorpus) -> Truth:
    """What CIFAR-10 says of its pictures."""
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
    """All figures of one set of embeddings, by name, 0..1.

    Args:
        test: of the test pictures, float32 of length one ``(nq, d)``.
        train: of the training pictures likewise ``(n, d)``.
        truth: their labels and groups.
        copies: by alteration, embeddings of altered copies of the first test pictures, if wanted.
    """
    found = {}
    whole = retrieval(test, truth.test_labels, train, truth.train_labels)
    found["class mAP"] = whole.mean_average_precision
    found["class precision@10"] = whole.precision_at[10]
    drawn = np.zeros(len(test), bool)
    count = min(HELD_OUT, len(test) // 10)
    drawn[np.random.default_rng(SEED).choice(len(test), count, replace=False)] = True
    labels = truth.test_labels
    held_out = retrieval(test[drawn], labels[drawn], test[~drawn], labels[~drawn])
    found["held-out class mAP"] = held_out.mean_average_precision
    found["held-out class precision@10"] = held_out.precision_at[10]
    fine = group_search(test, truth.test_groups, train, truth.train_groups)
    for k, precision in fine.precision_at.items():
        found[f"fine precision@{k}"] = precision
    if copies:
        rows = np.arange(len(next(iter(copies.values()))))
        again = copy_search(copies, np.concatenate([test, train]), rows)
        for name in ("mean", *copies):
            for k, recall in again.recall_at[name].items():
                found[f"copy recall@{k}, {name}"] = recall
    return found


def reduced(
    test: np.ndarray, train: np.ndarray, copies: dict[str, np.ndarray], dimension: int
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """All of them by the first principal components of ``train``."""
    apply = reduce(train, dimension)
    return apply(test), apply(train), {name: apply(x) for name, x in copies.items()}


def pixels(pictures: np.ndarray) -> np.ndarray:
    """Each channel normalised over the data set, as a network gets it; length one."""
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
    parser.add_argument("bundles", nargs="+", metavar="NAME=FOLDER", help="or the word pixels")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds CIFAR-10")
    parser.add_argument("--dimensions", type=int, nargs="*", default=list(DIMENSIONS))
    parser.add_argument("--test", type=int, default=10_000, help="fewer test pictures, for a try")
    parser.add_argument("--train", type=int, default=50_000, help="fewer training pictures")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
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
        own = xq.shape[1]
        results[f"{name} {own}"] = measure(xq, xb, truth, copies)
        for dimension in args.dimensions if argument != "pixels" else ():
            if dimension < own:
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
