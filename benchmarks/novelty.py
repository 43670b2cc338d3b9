"""How well the served confidence tells pictures of the stored kind from all others (AUROC).

    python -m benchmarks.novelty embed/pretrained --data ../shared --near CIFAR-100=~/cifar100 \\
        --near TinyImageNet=~/tiny-imagenet --far MNIST=~/mnist --far textures=~/dtd
    python -m benchmarks.novelty runs/photo --data ~/clothes --fit --far flowers=~/flowers

The protocol is OpenOOD v1.5's (Zhang et al. 2023, arXiv:2306.09301), with one difference: half of
the test pictures are stored as well, because a store measures what is usual on pictures that the
network was not trained with. Stored are the training pictures (none of a folder without splits) and
one half of the others; queries are the other half, and then the halves change places. Every set is
used as it is: OpenOOD removes 1,207 pictures of TinyImageNet and 1,305 of Places whose kinds are
among CIFAR-10's. Pictures are scaled as the bundle does it.

Rows: the similarity to the ten nearest stored pictures alone; for the store's classifier, and for
the network's own classes where they contain all labels, the probability of the class alone and the
served confidence. Then the share of each set that is answered with none of the classes, and, of the
queries, accuracy and expected calibration error of the served confidence.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from embed.bundle import Bundle
from embed.classes.classifier import fit_classifier
from embed.classes.novelty import NEIGHBOURS, answer, fit_novelty
from embed.corpus import Corpus, FolderCorpus, open_corpus
from embed.encoder import Encoder, Encoding
from embed.imported.fitting import PICTURES, fit_embedding
from train import environment
from train.evaluation.metrics import calibration
from train.evaluation.similarity import nearest

SEED, MOST = 0, 10_000

Probabilities = Callable[[Encoding], NDArray[np.float32]]


@dataclass(frozen=True)
class Pictures:
    """Some pictures of a corpus: their encoding, labels and whether the network saw them."""

    encoding: Encoding
    labels: NDArray[np.str_]
    trained: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> Pictures:
        parts = Encoding(*(part[rows] for part in self.encoding))
        return Pictures(parts, self.labels[rows], self.trained[rows])


def encoded(encoder: Encoder, corpus: Corpus, most: int, *, features: bool = False) -> Pictures:
    """At most ``most`` pictures of each split, drawn; ``features`` before normalisation."""
    rng = np.random.default_rng(SEED)
    splits = defaultdict(list)
    for item in corpus.items:
        splits["train" if item.split == "train" else "rest"].append(item)
    items = [
        part[i]
        for name, part in splits.items()
        for i in rng.permutation(len(part))[: most if name == "rest" else None]
    ]
    found = []
    for start in range(0, len(items), 256):
        pictures = [
            corpus.read(item.source, encoder.preprocess) for item in items[start : start + 256]
        ]
        if features:
            raw = encoder.raw(pictures)
            found.append(Encoding(raw.logits, raw.features))
        else:
            found.append(encoder.encode(pictures))
    return Pictures(
        Encoding(*(np.concatenate(parts) for parts in zip(*found, strict=True))),
        np.array([item.label or "" for item in items]),
        np.array([item.split == "train" for item in items]),
    )


def measure(
    stored: Pictures, queries: Pictures, others: dict[str, Pictures], classes: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """The rows of the table: AUROC, shares and calibration, 0..1, by set."""
    xb = stored.encoding.embeddings
    fresh = np.flatnonzero(~stored.trained)
    novelty = fit_novelty(xb, held_out=fresh, seed=SEED)
    labelled = np.flatnonzero(stored.labels != "")
    classifier = fit_classifier(xb[labelled], stored.labels[labelled].tolist(), "", seed=SEED)
    sources: dict[str, tuple[tuple[str, ...], Probabilities]] = {
        "store": (classifier.classes, lambda e: classifier.probabilities(e.embeddings))
    }
    if set(classifier.classes) <= set(classes):
        sources["network"] = classes, lambda e: e.probabilities
    scores: dict[str, dict[str, NDArray[np.float64]]] = defaultdict(dict)
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for name, pictures in {"": queries, **others}.items():
        similarities, _ = nearest(pictures.encoding.embeddings, xb, NEIGHBOURS)
        score = novelty.score(similarities)
        known = novelty.known(score).astype(np.float64).tolist()
        scores["similarity"][name] = score.astype(np.float64)
        for source, (names, probabilities_of) in sources.items():
            p = probabilities_of(pictures.encoding)
            answers = [answer(names, row, k) for row, k in zip(p, known, strict=True)]
            confidence = np.array([found.confidence for found in answers])
            scores[f"{source}: probability"][name] = p.max(axis=1).astype(np.float64)
            scores[f"{source}: confidence"][name] = confidence
            rows["none of the classes"][name] = np.mean([a.label is None for a in answers]).item()
            if not name:
                right = np.array([found.nearest for found in answers]) == pictures.labels
                rows[f"{source}: accuracy"][name] = right.mean().item()
                error = calibration(confidence.astype(np.float32), right).error
                rows[f"{source}: calibration error"][name] = error
    auroc = {row: {n: _auroc(by[""], by[n]) for n in others} for row, by in scores.items()}
    return {**auroc, **rows}


def _auroc(usual: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    truth = np.repeat([1, 0], [len(usual), len(other)])
    return float(roc_auc_score(truth, np.concatenate([usual, other])))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10, or labelled folders")
    parser.add_argument("--near", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--far", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument(
        "--fit", action="store_true", help="fit the embedding to the stored pictures, as a store"
    )
    parser.add_argument("--most", type=int, default=MOST, help="pictures of each set")
    args = parser.parse_args()
    bundle, corpus = Bundle.load(args.bundle), open_corpus(args.data)
    encoder = Encoder(bundle)
    if args.fit:
        plain = encoded(encoder, corpus, PICTURES, features=True)
        encoder = Encoder(fit_embedding(bundle, plain.encoding.embeddings))
    data = encoded(encoder, corpus, args.most)
    kinds = {"near": args.near, "far": args.far}
    others = {}
    groups: dict[str, list[str]] = {"near": [], "far": []}
    for kind, arguments in kinds.items():
        for argument in arguments:
            name, _, folder = argument.partition("=")
            others[name] = encoded(encoder, FolderCorpus(Path(folder).expanduser()), args.most)
            groups[kind].append(name)
    trained, rest = np.flatnonzero(data.trained), np.flatnonzero(~data.trained)
    halves = np.array_split(np.random.default_rng(SEED).permutation(rest), 2)
    found = [
        measure(data.take(np.concatenate([trained, a])), data.take(b), others, encoder.classes)
        for a, b in (halves, halves[::-1])
    ]
    means = {
        row: {n: float(np.mean([half[row][n] for half in found])) for n in by}
        for row, by in found[0].items()
    }
    print(f"{encoder.digest}, {encoder.dimension} dimensions, {encoder.precision};", end=" ")
    print(f"{environment.describe('cpu')['device']}; seed {SEED}")
    print(f"{corpus.name}: {len(trained):,} training pictures and {len(rest):,} others;", end=" ")
    print(", ".join(f"{name} {len(other.labels):,}" for name, other in others.items()))
    columns = ["", *others, *(f"mean {kind}" for kind, names in groups.items() if names)]
    print(f"\n| | {' | '.join(column or corpus.name for column in columns)} |", end="")
    print(f"\n|---|{'---|' * len(columns)}")
    for row, by in means.items():
        for kind, names in groups.items():
            if names and names[0] in by:
                by[f"mean {kind}"] = float(np.mean([by[name] for name in names]))
        cells = (f"{by[column]:.3f}" if column in by else "" for column in columns)
        print(f"| {row} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
